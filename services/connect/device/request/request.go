package request

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Bounds of a message. A stock device with 31 candidates sends less than 4 KiB.
const (
	MaxID       = 1 << 53
	MaxSize     = 16 << 10 // bytes of a packed message
	maxText     = 12 << 10 // bytes of ice_msg
	maxConnType = 256      // bytes
	maxKeys     = 16
)

// UserType is the user type of the overlay's values that carry a [Message].
const UserType = "peer_request"

// Errors of reading and writing.
var (
	ErrMalformed = errors.New("not a connection request")
	ErrTooLarge  = errors.New("larger than any connection request")
)

// Message asks for a connection, or answers.
type Message struct {
	ID       uint64
	Answer   bool
	ConnType string // a hint, for push notifications alone
	ICE      Description
	UDP      *Description // nil: TCP alone
}

// NewID returns an id for a new request.
func NewID() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:])%MaxID + 1, nil
}

// Pack returns the map with its keys in stock's order, of which udp is none and the last.
func (m *Message) Pack() ([]byte, error) {
	if m.ID == 0 || m.ID > MaxID {
		return nil, fmt.Errorf("%w: id %d", ErrMalformed, m.ID)
	}
	if len(m.ConnType) > maxConnType {
		return nil, fmt.Errorf("%w: a connection type of %d bytes", ErrTooLarge, len(m.ConnType))
	}
	text, err := m.ICE.Text()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf)
	e.UseCompactInts(true)
	keys := 4
	if m.UDP != nil {
		keys++
	}
	err = errors.Join(
		e.EncodeMapLen(keys),
		e.EncodeString("id"), e.EncodeUint(m.ID),
		e.EncodeString("ice_msg"), e.EncodeString(text),
		e.EncodeString("isAnswer"), e.EncodeBool(m.Answer),
		e.EncodeString("connType"), e.EncodeString(m.ConnType))
	if err == nil && m.UDP != nil {
		if text, err = m.UDP.Text(); err != nil {
			return nil, err
		}
		err = errors.Join(e.EncodeString("udp"), e.EncodeString(text))
	}
	if err != nil {
		return nil, fmt.Errorf("connection request: %w", err)
	}
	if buf.Len() > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, buf.Len())
	}
	return buf.Bytes(), nil
}

// Parse reads a packed message. Keys that are not known are passed over where their values
// have no parts.
func Parse(b []byte) (*Message, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b))
	}
	r := bytes.NewReader(b)
	d := msgpack.NewDecoder(r)
	n, err := d.DecodeMapLen()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if n < 0 || n > maxKeys {
		return nil, fmt.Errorf("%w: a map of %d", ErrMalformed, n)
	}
	m := new(Message)
	had := make(map[string]bool, 5)
	var text, udp string
	for range n {
		key, err := str(d, r, 32)
		if err == nil && had[key] {
			err = errors.New("it is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: key %q: %w", ErrMalformed, key, err)
		}
		had[key] = true
		switch key {
		case "id":
			m.ID, err = unsigned(d)
		case "ice_msg":
			text, err = str(d, r, maxText)
		case "udp":
			udp, err = str(d, r, maxText)
		case "isAnswer":
			m.Answer, err = d.DecodeBool()
		case "connType":
			m.ConnType, err = str(d, r, maxConnType)
		default:
			err = pass(d)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrMalformed, key, err)
		}
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%w: bytes after its end", ErrMalformed)
	}
	if m.ID == 0 || m.ID > MaxID {
		return nil, fmt.Errorf("%w: id %d", ErrMalformed, m.ID)
	}
	if m.ICE, err = ParseDescription(text); err != nil {
		return nil, err
	}
	if had["udp"] {
		u, err := ParseUDP(udp)
		if err != nil {
			return nil, err
		}
		m.UDP = &u
	}
	return m, nil
}

// str reads a text of at most limit bytes.
func str(d *msgpack.Decoder, r *bytes.Reader, limit int) (string, error) {
	c, err := d.PeekCode()
	if err != nil {
		return "", err
	}
	if !msgpcode.IsString(c) && !msgpcode.IsBin(c) {
		return "", errors.New("not a text")
	}
	n, err := d.DecodeBytesLen()
	if err != nil {
		return "", err
	}
	if n > limit || n > r.Len() {
		return "", fmt.Errorf("a text of %d bytes", n)
	}
	b := make([]byte, n)
	if err := d.ReadFull(b); err != nil {
		return "", err
	}
	return string(b), nil
}

func unsigned(d *msgpack.Decoder) (uint64, error) {
	c, err := d.PeekCode()
	if err != nil {
		return 0, err
	}
	if c > msgpcode.PosFixedNumHigh && (c < msgpcode.Uint8 || c > msgpcode.Uint64) {
		return 0, errors.New("not an unsigned number")
	}
	return d.DecodeUint64()
}

// pass passes over one value without parts.
func pass(d *msgpack.Decoder) error {
	c, err := d.PeekCode()
	if err != nil {
		return err
	}
	if msgpcode.IsFixedMap(c) || msgpcode.IsFixedArray(c) || c >= msgpcode.Array16 && c <= msgpcode.Map32 {
		return errors.New("unknown, and it has parts")
	}
	return d.Skip()
}
