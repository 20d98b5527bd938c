package names

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"

	"github.com/parley-jami/parley/internal/jami"
)

// pemKey is the label of a public key.
const pemKey = "PUBLIC KEY"

// Sizes of an account's key. Below is what stock peers refuse (dht-and-identity
// §2); above, checking a signature would cost whoever checks it too much.
const (
	minKeyBits = 2048
	maxKeyBits = 8192
)

// MaxBody bounds a reply and a registration. The largest that is valid has a key
// and a signature of maxKeyBits: about 4 KiB.
const MaxBody = 8 << 10

// Record says which account a name stands for.
type Record struct {
	Name string
	Addr jami.ID

	// Key is the account's public key in DER, Signature the account's over Name.
	// Both or neither are there.
	Key       []byte
	Signature []byte
}

// Verified reports whether the account's own signature came with the record. It
// was checked then.
func (r *Record) Verified() bool { return len(r.Key) > 0 }

// Sign makes the record that registers a name for an account.
func Sign(name string, account crypto.Signer) (Record, error) {
	name, err := Normalize(name)
	if err != nil {
		return Record{}, err
	}
	if err := fits(account.Public()); err != nil {
		return Record{}, err
	}
	r := Record{Name: name}
	if r.Key, err = x509.MarshalPKIXPublicKey(account.Public()); err != nil {
		return Record{}, ErrUnsupported.Because(err)
	}
	r.Addr = jami.KeyID(r.Key)
	digest := sha512.Sum512([]byte(name))
	if r.Signature, err = account.Sign(rand.Reader, digest[:], crypto.SHA512); err != nil {
		return Record{}, ErrUnavailable.Because(err)
	}
	return r, nil
}

// Verify checks that the key is the account's and signed the name.
func (r *Record) Verify() error {
	pub, err := parseKey(r.Key)
	if err != nil {
		return err
	}
	if jami.KeyID(r.Key) != r.Addr {
		return ErrBadSignature.With("the key is not that of the account")
	}
	digest := sha512.Sum512([]byte(r.Name))
	if err := rsa.VerifyPKCS1v15(pub, crypto.SHA512, digest[:], r.Signature); err != nil {
		return ErrBadSignature.With("the account did not sign this name")
	}
	return nil
}

func parseKey(der []byte) (*rsa.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, ErrBadSignature.With("no public key")
	}
	if err := fits(pub); err != nil {
		return nil, ErrBadSignature.With("%s", err.Detail)
	}
	// One key has one encoding, or it would have several ids.
	if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(again, der) {
		return nil, ErrBadSignature.With("the key is not in DER")
	}
	return pub.(*rsa.PublicKey), nil
}

func fits(pub crypto.PublicKey) *Error {
	k, ok := pub.(*rsa.PublicKey)
	switch {
	case !ok:
		return ErrUnsupported.With("not an RSA key")
	case k.N.BitLen() < minKeyBits || k.N.BitLen() > maxKeyBits:
		return ErrUnsupported.With("a key of %d bits; %d to %d are taken", k.N.BitLen(), minKeyBits, maxKeyBits)
	}
	return nil
}

// message is the JSON object of every request and reply.
type message struct {
	Name      string `json:"name,omitempty"`
	Addr      string `json:"addr,omitempty"`
	Owner     string `json:"owner,omitempty"`
	PublicKey string `json:"publickey,omitempty"`
	Signature string `json:"signature,omitempty"`
	Success   bool   `json:"success,omitempty"`
}

// Reply is the answer to a look-up.
func (r *Record) Reply() []byte { return r.encode("", "\n") }

// Registration is the body that registers the record, with the account's
// Ethereum address. Stock Jami ends the key with a NUL; servers expect what it sends.
func (r *Record) Registration(owner string) []byte { return r.encode(owner, "\n\x00") }

func (r *Record) encode(owner, keyEnd string) []byte {
	m := message{Name: r.Name, Addr: r.Addr.String(), Owner: owner}
	if r.Verified() {
		key := pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: r.Key})
		m.PublicKey = base64.StdEncoding.EncodeToString(append(bytes.TrimRight(key, "\n"), keyEnd...))
		m.Signature = base64.StdEncoding.EncodeToString(r.Signature)
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // texts alone
	}
	return b
}

// ParseReply reads the answer to a look-up of name, or, with name "", of an
// account. The signature is checked if there is one.
func ParseReply(name string, body []byte) (Record, error) {
	m, err := parse(body)
	if err != nil {
		return Record{}, ErrInvalidReply.Because(err)
	}
	if name == "" {
		if m.Name == "" {
			return Record{}, ErrNotFound
		}
		if name, err = Normalize(m.Name); err != nil {
			return Record{}, ErrInvalidReply.Because(err)
		}
		if m.Addr == "" { // all that stock's server says
			return Record{Name: name}, nil
		}
	} else if name, err = Normalize(name); err != nil {
		return Record{}, err
	}
	if m.Addr == "" {
		return Record{}, ErrNotFound
	}
	r := Record{Name: name}
	if r.Addr, err = ParseAddr(m.Addr); err != nil {
		return Record{}, ErrInvalidReply.Because(err)
	}
	if m.PublicKey == "" || m.Signature == "" {
		return r, nil
	}
	if err = r.prove(&m); err == nil {
		err = r.Verify()
	}
	if err != nil {
		return Record{}, ErrInvalidReply.Because(err)
	}
	return r, nil
}

// ParseRegistration reads the body of a registration of name and checks the
// signature. What is missing or does not parse is [ErrIncomplete].
func ParseRegistration(name string, body []byte) (Record, error) {
	name, err := Normalize(name)
	if err != nil {
		return Record{}, err
	}
	m, err := parse(body)
	if err != nil {
		return Record{}, ErrIncomplete.Because(err)
	}
	if m.Addr == "" || m.PublicKey == "" || m.Signature == "" {
		return Record{}, ErrIncomplete.With("addr, publickey and signature are needed")
	}
	r := Record{Name: name}
	if r.Addr, err = ParseAddr(m.Addr); err != nil {
		return Record{}, ErrIncomplete.Because(err)
	}
	if err := r.prove(&m); err != nil {
		return Record{}, ErrIncomplete.Because(err)
	}
	if err := r.Verify(); err != nil {
		return Record{}, err
	}
	return r, nil
}

func parse(body []byte) (m message, err error) {
	if len(body) > MaxBody {
		return m, ErrInvalidReply.With("more than %d bytes", MaxBody)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return message{}, ErrInvalidReply.With("not a JSON object of the fields that are expected")
	}
	return m, nil
}

// prove takes over key and signature.
func (r *Record) prove(m *message) error {
	key, err := base64.StdEncoding.DecodeString(m.PublicKey)
	if err != nil {
		return ErrIncomplete.With("publickey is not base64")
	}
	if r.Signature, err = base64.StdEncoding.DecodeString(m.Signature); err != nil {
		return ErrIncomplete.With("signature is not base64")
	}
	text := strings.Trim(string(key), "\x00 \t\r\n")
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != pemKey || len(rest) > 0 || !strings.HasPrefix(text, "-----BEGIN "+pemKey) {
		return ErrIncomplete.With("publickey is not a PEM public key")
	}
	r.Key = block.Bytes
	return nil
}
