package jami

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

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
func (p *packer) int(n int64)   { p.keep(p.e.EncodeInt(n)) }
func (p *packer) bool(b bool)   { p.keep(p.e.EncodeBool(b)) }

// strMap writes a map of texts in the order of its keys, as stock's maps have it.
func (p *packer) strMap(m map[string]string) {
	p.mapLen(len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		p.str(k)
		p.str(m[k])
	}
}

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

// limit refuses a list that readers would.
func (p *packer) limit(what string, n, limit int) {
	if n > limit {
		p.keep(fmt.Errorf("%w: %d %s, at most %d", ErrTooMany, n, what, limit))
	}
}

func sortedIDs[V any](m map[ID]V) []ID {
	return slices.SortedFunc(maps.Keys(m), func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
}

func compareLong(a, b LongID) int { return bytes.Compare(a[:], b[:]) }

// ErrTooMany says that a list has more entries than are taken.
var ErrTooMany = errors.New("too many entries")

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
		key, err := u.str(MaxValue)
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
			return nil, fmt.Errorf("%d bytes announced, %d there: %w", n, u.r.Len(), io.ErrUnexpectedEOF)
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

// bytesOrNil reads bytes, or nil, which is the same as none.
func (u *unpacker) bytesOrNil() ([]byte, error) {
	c, err := u.d.PeekCode()
	if err == nil && c == msgpcode.Nil {
		return nil, u.d.DecodeNil()
	}
	b, err := u.bytes()
	if len(b) == 0 {
		b = nil
	}
	return b, err
}

// str reads a text of at most limit bytes.
func (u *unpacker) str(limit int) (string, error) {
	if !u.isBytes() {
		return "", errors.New("not a text")
	}
	b, err := u.bytes()
	if err == nil && len(b) > limit {
		err = fmt.Errorf("a text of %d bytes, at most %d", len(b), limit)
	}
	return string(b), err
}

// strMap reads a map of at most limit texts.
func (u *unpacker) strMap(limit int) (map[string]string, error) {
	var m map[string]string
	return m, u.entries(limit, func() error {
		k, err := u.str(maxName)
		if err != nil {
			return err
		}
		if m == nil {
			m = map[string]string{}
		}
		m[k], err = u.str(MaxValue)
		return err
	})
}

// entries calls fn for each of at most limit entries of a map with keys of any type; fn
// reads key and value. A nil is an empty map.
func (u *unpacker) entries(limit int, fn func() error) error {
	n, err := u.d.DecodeMapLen()
	if err != nil {
		return err
	}
	return u.times(n, limit, fn)
}

func (u *unpacker) times(n, limit int, fn func() error) error {
	if n > limit {
		return fmt.Errorf("%w: %d entries, at most %d", ErrTooMany, n, limit)
	}
	for range n { // -1 is nil
		if err := fn(); err != nil {
			return err
		}
	}
	return nil
}

// seconds reads unix seconds, which have been after 1969.
func (u *unpacker) seconds() (int64, error) {
	n, err := u.d.DecodeInt64()
	if err == nil && n < 0 {
		err = fmt.Errorf("the time %d", n)
	}
	return n, err
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

func (u *unpacker) longID(id *LongID) error {
	b, err := u.bytes()
	if err != nil {
		return err
	}
	if len(b) != len(id) {
		return fmt.Errorf("%w: %d bytes, want 32", ErrID, len(b))
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
	case msgpcode.IsBin(c), msgpcode.IsString(c):
		n, err = u.d.DecodeBytesLen()
		return u.pass(n, err)
	case msgpcode.IsExt(c):
		_, n, err = u.d.DecodeExtHeader()
		return u.pass(n, err)
	default:
		return u.d.Skip()
	}
	for i := 0; i < n && err == nil; i++ {
		err = u.skipDeep(depth - 1)
	}
	return err
}

// pass leaves n bytes out; the decoder would make room for them first.
func (u *unpacker) pass(n int, err error) error {
	switch {
	case err != nil:
		return err
	case n < 0 || n > u.r.Len():
		return fmt.Errorf("%d bytes announced, %d there: %w", n, u.r.Len(), io.ErrUnexpectedEOF)
	}
	_, err = u.r.Seek(int64(n), io.SeekCurrent)
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
