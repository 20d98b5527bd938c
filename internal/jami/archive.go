package jami

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"unicode/utf8"
)

// maxArchive bounds an archive once it is inflated; stock ones have some 20 KB.
const maxArchive = 32 << 20

// Errors of archives.
var (
	ErrArchive  = errors.New("account archive")
	ErrPassword = errors.New("the password is wrong or missing")
)

// Entries of the archive's JSON that are not settings (§3.5).
const (
	entryAccountKey  = "ringAccountKey"
	entryAccountCert = "ringAccountCert"
	entryCAKey       = "ringCaKey"
	entryEthKey      = "ethKey"
	entryCRL         = "ringAccountCRL"
	entryContacts    = "ringAccountContacts"
	entryConvs       = "conversations"
	entryConvReqs    = "conversationsRequests"
)

// Archive is what an account is: whoever has it is the account.
type Archive struct {
	AccountKey *rsa.PrivateKey
	Account    *x509.Certificate
	CA         *x509.Certificate   // nil where the account signed itself
	Above      []*x509.Certificate // issuers of the CA, where an organisation has several
	CAKey      *rsa.PrivateKey     // nil: certificates cannot be renewed
	EthKey     []byte              // 32 bytes, or nil
	CRL        []byte              // DER, or nil

	Contacts              map[string]Contact // by Jami Id
	Conversations         json.RawMessage    // the swarm's business; nil: none
	ConversationsRequests json.RawMessage
	Settings              map[string]string // "Account.displayName" and the like

	// Unknown are entries of newer versions that are no text, and UnknownOf what
	// their contacts have beside. They are kept as they are.
	Unknown   map[string]json.RawMessage
	UnknownOf map[string]map[string]json.RawMessage // by Jami Id
}

// ID is the account's Jami Id.
func (a *Archive) ID() ID {
	id, _ := CertIDs(a.Account)
	return id
}

// Chain is the account's certificate and those above it.
func (a *Archive) Chain() []*x509.Certificate {
	if a.CA == nil {
		return []*x509.Certificate{a.Account}
	}
	return append([]*x509.Certificate{a.Account, a.CA}, a.Above...)
}

// Contact is one entry of the contact list; times are unix seconds (§3.8).
type Contact struct {
	Added          int64  `json:"added" msgpack:"added"`
	Removed        int64  `json:"removed,omitempty" msgpack:"removed"`
	Confirmed      bool   `json:"confirmed,omitempty" msgpack:"confirmed"`
	Banned         bool   `json:"banned,omitempty" msgpack:"banned"`
	ConversationID string `json:"conversationId" msgpack:"conversationId"`
}

// Pack returns the archive as a file. An empty password makes the plain form.
func (a *Archive) Pack(password []byte) ([]byte, error) {
	text, err := a.json()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if len(password) > 0 {
		w = zlib.NewWriter(&b)
	}
	if _, err = w.Write(text); err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	if len(password) > 0 {
		return SealPassword(password, b.Bytes())
	}
	return b.Bytes(), nil
}

func (a *Archive) json() ([]byte, error) {
	m := make(map[string]any, len(a.Settings)+len(a.Unknown)+8)
	for k, v := range a.Unknown {
		m[k] = v
	}
	for k, v := range a.Settings {
		m[k] = v
	}
	b64 := base64.StdEncoding.EncodeToString
	key, err := MarshalKey(a.AccountKey)
	if err != nil {
		return nil, err
	}
	m[entryAccountKey] = b64(key)
	m[entryAccountCert] = b64(MarshalChain(a.Chain()...))
	if a.CAKey != nil {
		if key, err = MarshalKey(a.CAKey); err != nil {
			return nil, err
		}
		m[entryCAKey] = b64(key)
	}
	for name, b := range map[string][]byte{entryEthKey: a.EthKey, entryCRL: a.CRL} {
		if b != nil {
			m[name] = b64(b)
		}
	}
	if len(a.Contacts) > 0 {
		contacts, err := a.contacts()
		if err != nil {
			return nil, err
		}
		m[entryContacts] = contacts
	}
	for name, raw := range map[string]json.RawMessage{entryConvs: a.Conversations, entryConvReqs: a.ConversationsRequests} {
		if raw != nil {
			m[name] = raw
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	return text, nil
}

// contacts puts what is not known of them back.
func (a *Archive) contacts() (map[string]any, error) {
	out := make(map[string]any, len(a.Contacts))
	for id, c := range a.Contacts {
		if out[id] = c; a.UnknownOf[id] == nil {
			continue
		}
		text, err := json.Marshal(c)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		all := maps.Clone(a.UnknownOf[id])
		if err := json.Unmarshal(text, &all); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, err)
		}
		out[id] = all
	}
	return out, nil
}

// Encrypted reports whether an archive file has a password, by its form alone.
func Encrypted(b []byte) bool { return !isGzip(b) && !looksJSON(b) }

// ParseArchive reads an archive file. An empty password is for the plain form.
// The error never shows bytes of a key. Dates and signatures of the certificates
// are not checked: an expired one is repaired with the CA key.
func ParseArchive(b, password []byte) (*Archive, error) {
	text, err := inflateArchive(b, password)
	if err != nil {
		return nil, err
	}
	return parseArchiveJSON(text)
}

func parseArchiveJSON(text []byte) (*Archive, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%w: not JSON", ErrArchive)
	}
	a := &Archive{Settings: map[string]string{}}
	r := archiveReader{m: m}
	if key := r.bytes(entryAccountKey); r.err == nil {
		a.AccountKey, r.err = ParseKey(key)
	}
	if pem := r.bytes(entryAccountCert); r.err == nil {
		r.err = a.setCerts(pem)
	}
	if key := r.bytes(entryCAKey); r.err == nil && key != nil {
		a.CAKey, r.err = ParseKey(key)
	}
	a.EthKey, a.CRL = r.bytes(entryEthKey), r.bytes(entryCRL)
	if r.err == nil && a.EthKey != nil {
		_, r.err = EthAddress(a.EthKey)
	}
	if raw := r.take(entryContacts); raw != nil && r.err == nil {
		r.err = a.setContacts(raw)
	}
	a.Conversations, a.ConversationsRequests = r.take(entryConvs), r.take(entryConvReqs)
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, r.err)
	}
	for k, raw := range m {
		var s string
		if json.Unmarshal(raw, &s) == nil && !bytes.Equal(raw, []byte("null")) {
			a.Settings[k] = s
			continue
		}
		if a.Unknown == nil {
			a.Unknown = map[string]json.RawMessage{}
		}
		a.Unknown[k] = raw
	}
	return a, nil
}

// setCerts takes the account certificate, and its CA where there is one, and
// checks that the key belongs to it.
func (a *Archive) setCerts(pem []byte) error {
	certs, err := ParseCerts(pem)
	if err != nil {
		return err
	}
	if a.Account = certs[0]; len(certs) > 1 {
		a.CA, a.Above = certs[1], certs[2:]
	}
	if !a.AccountKey.PublicKey.Equal(a.Account.PublicKey) {
		return errors.New("key and certificate don't belong together")
	}
	return nil
}

// setContacts takes the contact list and, apart, what this version doesn't know.
func (a *Archive) setContacts(raw json.RawMessage) error {
	var all map[string]map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(raw, &a.Contacts), json.Unmarshal(raw, &all)); err != nil {
		return fmt.Errorf("contacts: %w", err)
	}
	for id, fields := range all {
		if _, err := ParseID(id); err != nil {
			return fmt.Errorf("contact: %w", err)
		}
		for _, known := range []string{"added", "removed", "confirmed", "banned", "conversationId"} {
			delete(fields, known)
		}
		if len(fields) == 0 {
			continue
		}
		if a.UnknownOf == nil {
			a.UnknownOf = map[string]map[string]json.RawMessage{}
		}
		a.UnknownOf[id] = fields
	}
	return nil
}

// archiveReader takes entries out of the map and keeps the first error.
type archiveReader struct {
	m   map[string]json.RawMessage
	err error
}

func (r *archiveReader) take(name string) json.RawMessage {
	raw := r.m[name]
	delete(r.m, name)
	return raw
}

// bytes decodes a base64 entry; nil where it is missing or empty.
func (r *archiveReader) bytes(name string) []byte {
	raw := r.take(name)
	if raw == nil || r.err != nil {
		return nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		r.err = fmt.Errorf("%s is not a text", name)
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		r.err = fmt.Errorf("%s is not base64", name)
		return nil
	}
	if len(b) == 0 {
		return nil
	}
	return b
}

// inflateArchive undoes the layers of §3.5.
func inflateArchive(b, password []byte) ([]byte, error) {
	out := b
	gz := isGzip(out)
	if gz {
		var err error
		if out, err = inflate(out, maxArchive); err != nil {
			return nil, err
		}
	}
	if len(password) > 0 && !looksJSON(out) {
		clear, err := OpenPassword(password, out)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrArchive, ErrPassword)
		}
		return inflate(clear, maxArchive)
	}
	if isGzip(out) { // a second layer is tolerated
		return inflate(out, maxArchive)
	}
	if !gz && !looksJSON(out) {
		return nil, fmt.Errorf("%w: %w", ErrArchive, ErrPassword)
	}
	return out, nil
}

func isGzip(b []byte) bool { return bytes.HasPrefix(b, []byte{0x1f, 0x8b, 8}) }

// looksJSON reports whether b is text of the form of an object. What is encrypted begins
// with random bytes, now and then with a brace.
func looksJSON(b []byte) bool {
	t := bytes.TrimSpace(b)
	return len(t) > 1 && t[0] == '{' && t[len(t)-1] == '}' && utf8.Valid(t)
}

// inflate reads gzip or zlib up to limit bytes.
func inflate(b []byte, limit int64) ([]byte, error) {
	var r io.ReadCloser
	var err error
	if isGzip(b) {
		r, err = gzip.NewReader(bytes.NewReader(b))
	} else {
		r, err = zlib.NewReader(bytes.NewReader(b))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: it was cut short, or is none (%w)", ErrArchive, err)
	}
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: it was cut short, or is none (%w)", ErrArchive, err)
	}
	if int64(len(out)) > limit {
		return nil, fmt.Errorf("%w: inflates beyond %d MiB", ErrArchive, limit>>20)
	}
	return out, nil
}
