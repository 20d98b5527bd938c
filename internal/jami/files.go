package jami

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// ErrFile says that a msgpack file of an account directory does not parse.
var ErrFile = errors.New("account file")

// KnownDevice is a device of the account: its name and when it last
// synchronised (§4).
type KnownDevice struct {
	Name string
	Sync time.Time
}

// Bounds of files, in entries and bytes.
const (
	maxFileContacts = 100_000
	maxFileRequests = 10_000
	maxFile         = 64 << 20
)

// PackContacts returns the file "contacts": {bin20 → Contact}.
func PackContacts(m map[ID]Contact) ([]byte, error) {
	p := newPacker(128 * (len(m) + 1))
	p.limit("contacts", len(m), maxFileContacts)
	p.contacts(m)
	return p.done()
}

// ParseContacts reads the file "contacts".
func ParseContacts(b []byte) (map[ID]Contact, error) {
	return parseFile("contacts", b, func(u *unpacker) (map[ID]Contact, error) { return u.contacts(maxFileContacts) })
}

// PackRequests returns the file "incomingTrustRequests": {bin20 → PendingRequest}.
func PackRequests(m map[ID]PendingRequest) ([]byte, error) {
	p := newPacker(128 * (len(m) + 1))
	p.limit("trust requests", len(m), maxFileRequests)
	p.requests(m)
	return p.done()
}

// ParseRequests reads the file "incomingTrustRequests".
func ParseRequests(b []byte) (map[ID]PendingRequest, error) {
	return parseFile("trust requests", b, func(u *unpacker) (map[ID]PendingRequest, error) { return u.requests(maxFileRequests) })
}

// parseFile reads a file that is one map.
func parseFile[V any](what string, b []byte, read func(*unpacker) (map[ID]V, error)) (map[ID]V, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: %s: %d bytes, at most %d", ErrFile, what, len(b), maxFile)
	}
	u := newUnpacker(b)
	m, err := read(u)
	if err == nil {
		err = u.end()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFile, what, err)
	}
	if m == nil {
		m = map[ID]V{}
	}
	return m, nil
}

// PackKnownDevices returns the file "knownDevices": {bin32 → [name, unix s]}.
func PackKnownDevices(m map[LongID]KnownDevice) ([]byte, error) {
	p := newPacker(64 * (len(m) + 1))
	p.mapLen(len(m))
	for id, dev := range m {
		p.bin(id[:])
		p.keep(p.e.EncodeArrayLen(2))
		p.str(dev.Name)
		p.uint(uint64(dev.Sync.Unix()))
	}
	return p.done()
}

// ParseKnownDevices reads the file "knownDevices".
func ParseKnownDevices(b []byte) (map[LongID]KnownDevice, error) {
	d := msgpack.NewDecoder(bytes.NewReader(b))
	n, err := d.DecodeMapLen()
	if err != nil || n < 0 {
		return nil, fmt.Errorf("%w: known devices: not a map", ErrFile)
	}
	m := make(map[LongID]KnownDevice, min(n, len(b)))
	for range n {
		key, err := d.DecodeBytes()
		var id LongID
		if err != nil || len(key) != len(id) {
			return nil, fmt.Errorf("%w: known devices: key of %d bytes", ErrFile, len(key))
		}
		copy(id[:], key)
		if l, err := d.DecodeArrayLen(); err != nil || l != 2 {
			return nil, fmt.Errorf("%w: known devices: entry of %d", ErrFile, l)
		}
		name, err := d.DecodeString()
		if err != nil {
			return nil, fmt.Errorf("%w: known devices: %w", ErrFile, err)
		}
		at, err := d.DecodeInt64()
		if err != nil {
			return nil, fmt.Errorf("%w: known devices: %w", ErrFile, err)
		}
		m[id] = KnownDevice{Name: name, Sync: time.Unix(at, 0)}
	}
	return m, nil
}

// PackBin wraps bytes as one msgpack bin: the form of certificates and revocation
// lists in the DHT (§2, §3.7).
func PackBin(b []byte) ([]byte, error) {
	p := newPacker(len(b) + 8)
	p.bin(b)
	return p.done()
}

// ParseBin unwraps what [PackBin] made.
func ParseBin(b []byte) ([]byte, error) {
	d := msgpack.NewDecoder(bytes.NewReader(b))
	n, err := d.DecodeBytesLen()
	if err != nil || n < 0 {
		return nil, fmt.Errorf("%w: not a bin", ErrFile)
	}
	head := len(b) - n
	if again, err := PackBin(b[max(head, 0):]); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: a bin of %d bytes in %d", ErrFile, n, len(b))
	}
	return b[head:], nil
}
