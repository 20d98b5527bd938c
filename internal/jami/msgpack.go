package jami

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// packer writes msgpack with the smallest form of every integer. It keeps the
// first error, so that a body reads as its field list.
type packer struct {
	buf bytes.Buffer
	e   *msgpack.Encoder
	err error
}

func newPacker(size int) *packer {
	p := new(packer)
	p.buf.Grow(size)
	p.e = msgpack.NewEncoder(&p.buf)
	p.e.UseCompactInts(true)
	return p
}

func (p *packer) keep(err error) {
	if p.err == nil {
		p.err = err
	}
}

func (p *packer) mapLen(n int)  { p.keep(p.e.EncodeMapLen(n)) }
func (p *packer) str(s string)  { p.keep(p.e.EncodeString(s)) }
func (p *packer) uint(n uint64) { p.keep(p.e.EncodeUint(n)) }

// bin writes nil as zero bytes: Jami never writes nil for data.
func (p *packer) bin(b []byte) {
	if b == nil {
		b = []byte{}
	}
	p.keep(p.e.EncodeBytes(b))
}

func (p *packer) done() ([]byte, error) {
	if p.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, p.err)
	}
	return p.buf.Bytes(), nil
}

// maxDepth bounds how deep what we skip may nest; the decoder's own skipping
// recurses without a limit.
const maxDepth = 16

// unpacker reads msgpack of strangers.
type unpacker struct {
	r *bytes.Reader
	d *msgpack.Decoder
}

func newUnpacker(b []byte) *unpacker {
	r := bytes.NewReader(b)
	return &unpacker{r: r, d: msgpack.NewDecoder(r)}
}

// each calls fn for every key of a map; fn reads the value. A key may come once.
func (u *unpacker) each(fn func(key string) error) error {
	n, err := u.d.DecodeMapLen()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrValue, err)
	}
	if n < 0 {
		return fmt.Errorf("%w: nil instead of a map", ErrValue)
	}
	if n > u.r.Len() { // every entry takes two bytes or more
		return fmt.Errorf("%w: truncated map", ErrValue)
	}
	seen := make(map[string]bool, min(n, 16))
	for range n {
		key, err := u.d.DecodeString()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrValue, err)
		}
		if seen[key] {
			return fmt.Errorf("%w: %q twice", ErrValue, key)
		}
		seen[key] = true
		if err := fn(key); err != nil {
			return fmt.Errorf("%w: %q: %w", ErrValue, key, err)
		}
	}
	return nil
}

// isBytes reports whether a bin or str comes next.
func (u *unpacker) isBytes() bool {
	c, err := u.d.PeekCode()
	return err == nil && (msgpcode.IsBin(c) || msgpcode.IsString(c))
}

// bytes reads bin, str or an array of ints (§1.4). The result is never nil.
func (u *unpacker) bytes() ([]byte, error) {
	if u.isBytes() {
		n, err := u.d.DecodeBytesLen()
		if err != nil {
			return nil, err
		}
		if n > u.r.Len() {
			return nil, fmt.Errorf("%d bytes announced, %d there", n, u.r.Len())
		}
		b := make([]byte, n)
		return b, u.d.ReadFull(b)
	}
	n, err := u.d.DecodeArrayLen()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > u.r.Len() {
		return nil, fmt.Errorf("array of %d, %d bytes there", n, u.r.Len())
	}
	b := make([]byte, n)
	for i := range b {
		if b[i], err = u.d.DecodeUint8(); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (u *unpacker) id(id *ID) error {
	b, err := u.bytes()
	if err != nil {
		return err
	}
	if len(b) != len(id) {
		return fmt.Errorf("%w: %d bytes, want 20", ErrID, len(b))
	}
	copy(id[:], b)
	return nil
}

// skip passes over one object, nested at most maxDepth deep.
func (u *unpacker) skip() error { return u.skipDeep(maxDepth) }

func (u *unpacker) skipDeep(depth int) error {
	c, err := u.d.PeekCode()
	if err != nil {
		return err
	}
	n := 0
	switch {
	case depth == 0:
		return fmt.Errorf("nested too deep")
	case msgpcode.IsFixedMap(c), c == msgpcode.Map16, c == msgpcode.Map32:
		n, err = u.d.DecodeMapLen()
		n *= 2
	case msgpcode.IsFixedArray(c), c == msgpcode.Array16, c == msgpcode.Array32:
		n, err = u.d.DecodeArrayLen()
	default:
		return u.d.Skip()
	}
	for i := 0; i < n && err == nil; i++ {
		err = u.skipDeep(depth - 1)
	}
	return err
}

// end fails when something follows.
func (u *unpacker) end() error {
	if _, err := u.d.PeekCode(); err == nil {
		return fmt.Errorf("%w: bytes after its end", ErrValue)
	}
	return nil
}

// derKey accepts a public key in DER or PEM and returns DER (§1.4).
func derKey(b []byte) ([]byte, error) {
	if block, _ := pem.Decode(b); block != nil {
		b = block.Bytes
	}
	if _, err := x509.ParsePKIXPublicKey(b); err != nil {
		return nil, err
	}
	return b, nil
}
