package proxyjson

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/parley-jami/parley/internal/jami"
)

// MaxValue bounds the JSON of a value or a put, in bytes: [jami.MaxValue] in base64, a
// key, and names.
const MaxValue = (jami.MaxValue/3+1)*4 + 8<<10

// Errors of what is read.
var (
	// ErrJSON says that it is not an object of JSON.
	ErrJSON = errors.New("incorrect JSON")
	// ErrField says that a member of it cannot be taken.
	ErrField = errors.New("invalid value")
)

const pemPublicKey = "PUBLIC KEY"

// Line is a value that a get or a listener is told.
type Line struct {
	Value   *jami.Value
	Expired bool
}

// Put is the body of a put.
type Put struct {
	Value     *jami.Value
	Permanent bool
	// Push is told before a permanent value ends; nil: nobody is.
	Push *Subscription
}

// value is a value as it is written. The order of its members has no meaning.
type value struct {
	Cypher    *[]byte `json:"cypher,omitempty"`
	Data      []byte  `json:"data,omitempty"`
	Expired   bool    `json:"expired,omitempty"`
	ID        string  `json:"id"`
	Owner     string  `json:"owner,omitempty"`
	Permanent any     `json:"permanent,omitempty"`
	Prio      uint64  `json:"prio,omitempty"`
	Seq       *uint16 `json:"seq,omitempty"`
	Sig       []byte  `json:"sig,omitempty"`
	To        string  `json:"to,omitempty"`
	Type      *uint16 `json:"type,omitempty"`
	UserType  string  `json:"utype,omitempty"`
}

func written(v *jami.Value) *value {
	w := &value{ID: strconv.FormatUint(v.ID, 10), Prio: v.Priority}
	if v.Encrypted() {
		w.Cypher = &v.Cipher
		return w
	}
	w.Data, w.Type, w.UserType = v.Data, &v.Type, v.UserType
	if v.Signed() {
		w.Seq, w.Sig = &v.Seq, v.Sig
		w.Owner = string(pem.EncodeToMemory(&pem.Block{Type: pemPublicKey, Bytes: v.Owner}))
		if !v.To.IsZero() {
			w.To = v.To.String()
		}
	}
	return w
}

// Marshal returns the line without its end.
func (l Line) Marshal() ([]byte, error) {
	w := written(l.Value)
	w.Expired = l.Expired
	return marshal(w)
}

// Marshal returns the body.
func (p Put) Marshal() ([]byte, error) {
	w := written(p.Value)
	if p.Permanent {
		w.Permanent = true
	}
	if p.Permanent && p.Push != nil {
		w.Permanent = p.Push
	}
	return marshal(w)
}

// marshal leaves <, > and & as they are, which user types may have.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("proxy JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// read is a value as it is read.
type read struct {
	Cypher    *string         `json:"cypher"`
	Data      string          `json:"data"`
	Expired   bool            `json:"expired"`
	ID        json.RawMessage `json:"id"`
	Owner     string          `json:"owner"`
	Permanent json.RawMessage `json:"permanent"`
	Prio      uint64          `json:"prio"`
	Seq       *uint16         `json:"seq"`
	Sig       string          `json:"sig"`
	To        string          `json:"to"`
	Type      uint16          `json:"type"`
	UserType  string          `json:"utype"`
}

// ParseLine reads what a get or a listener is told. No signature is verified.
func ParseLine(b []byte) (*Line, error) {
	r, v, err := parse(b)
	if err != nil {
		return nil, err
	}
	return &Line{Value: v, Expired: r.Expired}, nil
}

// ParsePut reads the body of a put. No signature is verified, and the id may be 0.
func ParsePut(b []byte) (*Put, error) {
	r, v, err := parse(b)
	if err != nil {
		return nil, err
	}
	p := &Put{Value: v}
	switch text := string(bytes.TrimSpace(r.Permanent)); {
	case text == "" || text == "null" || text == "false":
	case text == "true":
		p.Permanent = true
	default:
		p.Permanent = true
		if p.Push, err = ParseSubscription(r.Permanent); err != nil {
			return nil, fmt.Errorf("permanent: %w", err)
		}
	}
	return p, nil
}

func parse(b []byte) (*read, *jami.Value, error) {
	if len(b) > MaxValue {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d", jami.ErrTooLarge, len(b), MaxValue)
	}
	var r read
	if err := unmarshal(b, &r); err != nil {
		return nil, nil, err
	}
	v, err := r.value()
	if err != nil {
		return nil, nil, err
	}
	if n := len(v.Cipher) + len(v.Data) + len(v.Sig) + len(v.UserType); n > jami.MaxValue {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d", jami.ErrTooLarge, n, jami.MaxValue)
	}
	return &r, v, nil
}

// unmarshal reads one object.
func unmarshal(b []byte, into any) error {
	if t := bytes.TrimLeft(b, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return fmt.Errorf("%w: not an object", ErrJSON)
	}
	err := json.Unmarshal(b, into)
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &typ):
		return fmt.Errorf("%w: %q cannot be a %s", ErrField, typ.Field, typ.Value)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrJSON, err)
	}
	return nil
}

func (r *read) value() (*jami.Value, error) {
	v := &jami.Value{Priority: r.Prio}
	var err error
	if v.ID, err = parseNumber(r.ID); err != nil {
		return nil, fmt.Errorf("%w: id: %w", ErrField, err)
	}
	if r.Cypher != nil {
		if v.Cipher, err = decode("cypher", *r.Cypher); err != nil {
			return nil, err
		}
		return v, nil
	}
	v.Type, v.UserType = r.Type, r.UserType
	if v.Data, err = decode("data", r.Data); err != nil {
		return nil, err
	}
	if r.Owner == "" { // what remains is of signed values
		return v, nil
	}
	if v.Owner, err = parseOwner(r.Owner); err != nil {
		return nil, err
	}
	if v.Sig, err = decode("sig", r.Sig); err != nil {
		return nil, err
	}
	if len(v.Sig) == 0 || r.Seq == nil { // §1.4
		return nil, fmt.Errorf("%w: owner without sig or seq", ErrField)
	}
	v.Seq = *r.Seq
	if r.To != "" {
		if v.To, err = jami.ParseID(r.To); err != nil {
			return nil, fmt.Errorf("%w: to: %w", ErrField, err)
		}
	}
	return v, nil
}

// parseNumber reads an unsigned number, or a string of its digits; none is 0.
func parseNumber(raw json.RawMessage) (uint64, error) {
	text := string(bytes.TrimSpace(raw))
	if text == "" || text == "null" || text == `""` {
		return 0, nil
	}
	if text[0] == '"' {
		text = strings.Trim(text, `"`)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: not a number of 64 bits", ErrField)
	}
	return n, nil
}

// decode reads base64, never nil.
func decode(name, text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrField, name, err)
	}
	return b, nil
}

// parseOwner reads PEM; servers before 4.3.0 end it with a NUL.
func parseOwner(text string) ([]byte, error) {
	block, _ := pem.Decode([]byte(strings.TrimRight(text, "\x00")))
	if block == nil {
		return nil, fmt.Errorf("%w: owner: not PEM", ErrField)
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, fmt.Errorf("%w: owner: %w", ErrField, err)
	}
	return block.Bytes, nil
}
