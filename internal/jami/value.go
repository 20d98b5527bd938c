package jami

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// MaxValue bounds a value's data, signature, cipher text and user type together
// (§1.4).
const MaxValue = 64 << 10

// maxPacked leaves room for ids, owner and map keys around MaxValue.
const maxPacked = MaxValue + 4<<10

// Errors of values.
var (
	ErrValue     = errors.New("DHT value")
	ErrSignature = errors.New("signature does not verify")
	ErrRecipient = errors.New("DHT value for another recipient")
	ErrTooLarge  = errors.New("too large for a DHT value")
)

// Value is one value of the DHT. With Cipher set only ID and Priority are known
// beside it.
type Value struct {
	ID       uint64
	Priority uint64

	Seq      uint16
	Owner    []byte // DER public key of the signer; nil: not signed
	To       ID     // key id of the recipient, zero: for anyone
	Type     uint16
	Data     []byte
	UserType string
	Sig      []byte

	Cipher []byte
}

// Signed reports whether the value names a signer.
func (v *Value) Signed() bool { return v.Owner != nil }

// Encrypted reports whether the value is for a recipient's eyes.
func (v *Value) Encrypted() bool { return v.Cipher != nil }

// Signer returns the key id of the owner.
func (v *Value) Signer() ID { return KeyID(v.Owner) }

// size is what MaxValue bounds.
func (v *Value) size() int { return len(v.Cipher) + len(v.Data) + len(v.Sig) + len(v.UserType) }

// Pack returns the value as it is on the wire and in a receipt.
func (v *Value) Pack() ([]byte, error) {
	if v.size() > MaxValue {
		return nil, fmt.Errorf("%w: %w: %d bytes, at most %d", ErrValue, ErrTooLarge, v.size(), MaxValue)
	}
	p := newPacker(v.size() + 1024)
	n := 2
	if v.Priority != 0 {
		n++
	}
	p.mapLen(n)
	p.str("id")
	p.uint(v.ID)
	p.str("dat")
	if v.Encrypted() {
		p.bin(v.Cipher)
	} else {
		v.packInner(p)
	}
	if v.Priority != 0 {
		p.str("p")
		p.uint(v.Priority)
	}
	return p.done()
}

// packInner writes {"body": B[, "sig"]}.
func (v *Value) packInner(p *packer) {
	n := 1
	if v.Sig != nil {
		n++
	}
	p.mapLen(n)
	p.str("body")
	v.packBody(p)
	if v.Sig != nil {
		p.str("sig")
		p.bin(v.Sig)
	}
}

// packBody writes B; the order is part of what is signed.
func (v *Value) packBody(p *packer) {
	n := 2
	if v.Signed() {
		n += 2
		if !v.To.IsZero() {
			n++
		}
	}
	if v.UserType != "" {
		n++
	}
	p.mapLen(n)
	if v.Signed() {
		p.str("seq")
		p.uint(uint64(v.Seq))
		p.str("owner")
		p.bin(v.Owner)
		if !v.To.IsZero() {
			p.str("to")
			p.bin(v.To[:])
		}
	}
	p.str("type")
	p.uint(uint64(v.Type))
	p.str("data")
	p.bin(v.Data)
	if v.UserType != "" {
		p.str("utype")
		p.str(v.UserType)
	}
}

// Sign makes key, an RSA key that may be anywhere, the owner and signs the body.
func (v *Value) Sign(key crypto.Signer) error {
	if _, ok := key.Public().(*rsa.PublicKey); !ok { // §1.4: only RSA is accepted
		return fmt.Errorf("%w: %w: not RSA", ErrValue, ErrKey)
	}
	owner, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrValue, err)
	}
	v.Owner = owner
	body, err := v.body()
	if err != nil {
		return err
	}
	v.Sig, err = SignBytes(key, body)
	return err
}

func (v *Value) body() ([]byte, error) {
	p := newPacker(len(v.Data) + 1024)
	v.packBody(p)
	return p.done()
}

// Verify checks the owner's signature.
func (v *Value) Verify() error {
	if !v.Signed() {
		return fmt.Errorf("%w: not signed", ErrSignature)
	}
	pub, err := x509.ParsePKIXPublicKey(v.Owner)
	if err != nil {
		return fmt.Errorf("%w: owner: %w", ErrSignature, err)
	}
	body, err := v.body()
	if err != nil {
		return err
	}
	return VerifyBytes(pub, body, v.Sig)
}

// EncryptTo signs the value with key for the owner of pub, the key of a certificate
// that was found good, and returns the encrypted value, which keeps id and priority.
// Its sequence is 0 (§1.4). The errors are [ErrKey] for a key that cannot receive,
// [ErrTooLarge] and [ErrKeyFailed].
func (v *Value) EncryptTo(pub crypto.PublicKey, key crypto.Signer) (*Value, error) {
	to, ok := pub.(*rsa.PublicKey)
	if !ok { // §2: other keys cannot receive
		return nil, fmt.Errorf("%w: %w: the recipient's is not RSA", ErrValue, ErrKey)
	}
	if err := checkRSA(to); err != nil {
		return nil, fmt.Errorf("%w: the recipient's: %w", ErrValue, err)
	}
	id, _, err := PublicIDs(to)
	if err != nil {
		return nil, err
	}
	if n := v.size(); n > MaxValue { // before the key is used
		return nil, fmt.Errorf("%w: %w: %d bytes, at most %d", ErrValue, ErrTooLarge, n, MaxValue)
	}
	c := *v
	c.To, c.Seq, c.Cipher = id, 0, nil
	if err := c.Sign(key); err != nil {
		return nil, err
	}
	p := newPacker(c.size() + 1024)
	c.packInner(p)
	clear, err := p.done()
	if err != nil {
		return nil, err
	}
	cipher, err := sealHybrid(to, clear)
	if err != nil {
		return nil, err
	}
	if len(cipher) > MaxValue {
		return nil, fmt.Errorf("%w: %w: %d bytes encrypted, at most %d", ErrValue, ErrTooLarge, len(cipher), MaxValue)
	}
	return &Value{ID: v.ID, Priority: v.Priority, Cipher: cipher}, nil
}

// Decrypt opens an encrypted value and checks that it is for this key and that its
// owner signed it (§1.4). key is as for the function [Decrypt].
//
// A value with its owner's key and signature never fits into one RSA block of up to
// 4,096 bits, so that the short form, and its oracle, is refused without using the key.
//
// The errors are [ErrDecrypt], [ErrKeyFailed], [ErrValue] for what does not parse,
// [ErrRecipient] and [ErrSignature].
func (v *Value) Decrypt(key crypto.Decrypter) (*Value, error) {
	pub, ok := key.Public().(*rsa.PublicKey)
	if !ok || len(v.Cipher) > MaxValue {
		return nil, ErrDecrypt
	}
	me, _, err := PublicIDs(pub)
	if err != nil {
		return nil, err
	}
	clear, err := openHybrid(key, pub, v.Cipher)
	if err != nil {
		return nil, err
	}
	u := newUnpacker(clear)
	c := &Value{ID: v.ID, Priority: v.Priority}
	if err := c.unpackInner(u); err != nil {
		return nil, err
	}
	if err := u.end(); err != nil {
		return nil, err
	}
	if !c.Signed() { // and has no recipient then
		return nil, fmt.Errorf("%w: not signed", ErrSignature)
	}
	if c.To != me {
		return nil, ErrRecipient
	}
	if err := c.Verify(); err != nil {
		return nil, err
	}
	return c, nil
}

// SignBytes signs as Jami does everywhere: RSA PKCS#1 v1.5 with SHA-512. The error is
// [ErrKeyFailed].
func SignBytes(key crypto.Signer, b []byte) ([]byte, error) {
	h := sha512.Sum512(b)
	sig, err := key.Sign(rand.Reader, h[:], crypto.SHA512)
	if err != nil {
		return nil, fmt.Errorf("sign: %w: %w", ErrKeyFailed, err)
	}
	return sig, nil
}

// VerifyBytes checks what SignBytes made with a key of 2,048 to 8,192 bits. The error
// is [ErrSignature].
func VerifyBytes(pub crypto.PublicKey, b, sig []byte) error {
	r, ok := pub.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("%w: not an RSA key", ErrSignature)
	}
	if err := checkRSA(r); err != nil { // a stranger's key may be as long as a value
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	h := sha512.Sum512(b)
	if rsa.VerifyPKCS1v15(r, crypto.SHA512, h[:], sig) != nil {
		return ErrSignature
	}
	return nil
}

// ParseValue reads a packed value. It does not verify anything.
func ParseValue(b []byte) (*Value, error) {
	if len(b) > maxPacked {
		return nil, fmt.Errorf("%w: %d bytes packed", ErrValue, len(b))
	}
	u := newUnpacker(b)
	v := new(Value)
	var hasDat bool
	err := u.each(func(key string) error {
		var err error
		switch key {
		case "id":
			v.ID, err = u.d.DecodeUint64()
		case "p":
			v.Priority, err = u.d.DecodeUint64()
		case "dat":
			hasDat = true
			if u.isBytes() {
				if v.Cipher, err = u.bytes(); err == nil && v.Cipher == nil {
					v.Cipher = []byte{}
				}
			} else {
				err = v.unpackInner(u)
			}
		default:
			err = u.skip()
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !hasDat:
		return nil, fmt.Errorf("%w: without data", ErrValue)
	case v.size() > MaxValue:
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrValue, v.size(), MaxValue)
	}
	return v, u.end()
}

func (v *Value) unpackInner(u *unpacker) error {
	var hasBody, hasSeq bool
	err := u.each(func(key string) error {
		var err error
		switch key {
		case "body":
			hasBody = true
			hasSeq, err = v.unpackBody(u)
		case "sig":
			v.Sig, err = u.bytes()
		default:
			err = u.skip()
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case !hasBody:
		return fmt.Errorf("%w: without body", ErrValue)
	case v.Owner != nil && (len(v.Sig) == 0 || !hasSeq): // §1.4: unparsable
		return fmt.Errorf("%w: owner without signature or sequence", ErrValue)
	case v.Owner == nil: // nothing to verify it with; re-packing would not keep it
		v.Sig = nil
	}
	return nil
}

func (v *Value) unpackBody(u *unpacker) (hasSeq bool, err error) {
	err = u.each(func(key string) error {
		var err error
		switch key {
		case "seq":
			hasSeq = true
			v.Seq, err = u.d.DecodeUint16()
		case "owner":
			if v.Owner, err = u.bytes(); err == nil {
				v.Owner, err = derKey(v.Owner)
			}
		case "to":
			err = u.id(&v.To)
		case "type":
			v.Type, err = u.d.DecodeUint16()
		case "data":
			v.Data, err = u.bytes()
		case "utype":
			v.UserType, err = u.d.DecodeString()
		default:
			err = u.skip()
		}
		return err
	})
	if v.Owner == nil {
		v.Seq, v.To = 0, ID{}
	}
	return hasSeq, err
}

// Message bodies that Jami puts into values are msgpack maps.
var _ msgpack.CustomEncoder = ID{}

// EncodeMsgpack writes an id as 20 bytes of bin.
func (id ID) EncodeMsgpack(e *msgpack.Encoder) error { return e.EncodeBytes(id[:]) }

// DecodeMsgpack reads 20 bytes.
func (id *ID) DecodeMsgpack(d *msgpack.Decoder) error {
	b, err := d.DecodeBytes()
	if err != nil {
		return err
	}
	if len(b) != len(id) {
		return fmt.Errorf("%w: %d bytes, want 20", ErrID, len(b))
	}
	copy(id[:], b)
	return nil
}

// DeviceAnnouncement is the data of the value that says which device serves a
// Jami Id (§3.2).
type DeviceAnnouncement struct {
	Device ID
	PubKey []byte // DER
}

// Pack returns the map {"dev", "pk"}.
func (a *DeviceAnnouncement) Pack() ([]byte, error) {
	p := newPacker(len(a.PubKey) + 64)
	p.mapLen(2)
	p.str("dev")
	p.bin(a.Device[:])
	p.str("pk")
	p.bin(a.PubKey)
	return p.done()
}

// ParseAnnouncement reads the data of an announcement. Other values share its
// key: an error means "not an announcement".
func ParseAnnouncement(b []byte) (*DeviceAnnouncement, error) {
	u := newUnpacker(b)
	a := new(DeviceAnnouncement)
	err := u.each(func(key string) error {
		var err error
		switch key {
		case "dev":
			err = u.id(&a.Device)
		case "pk":
			a.PubKey, err = u.bytes()
		default:
			err = u.skip()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if a.Device.IsZero() {
		return nil, fmt.Errorf("%w: announcement without device", ErrValue)
	}
	if a.PubKey != nil && KeyID(a.PubKey) != a.Device {
		return nil, fmt.Errorf("%w: announcement's key is not its device", ErrValue)
	}
	return a, u.end()
}

// VerifyAnnouncement checks that v announces a device of the account id, signed
// by the account's key, and returns which (§3.8).
func VerifyAnnouncement(v *Value, id ID) (*DeviceAnnouncement, error) {
	if v.Encrypted() || !v.Signed() || v.Signer() != id {
		return nil, fmt.Errorf("%w: not signed by the account", ErrSignature)
	}
	a, err := ParseAnnouncement(v.Data)
	if err != nil {
		return nil, err
	}
	return a, v.Verify()
}

// AnnouncedDevice returns the short id of the device that the account id announces with a
// packed value, if it does.
func AnnouncedDevice(packed []byte, id ID) (ID, bool) {
	v, err := ParseValue(packed)
	if err != nil {
		return ID{}, false
	}
	a, err := VerifyAnnouncement(v, id)
	if err != nil {
		return ID{}, false
	}
	return a.Device, true
}
