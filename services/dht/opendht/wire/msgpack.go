package wire

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrPacket says that bytes are no packet of OpenDHT.
var ErrPacket = errors.New("not an OpenDHT packet")

// maxDepth bounds how deep what is passed over may nest.
const maxDepth = 16

type kind uint8

const (
	kindNone kind = iota // nil, floats, negative integers, extensions
	kindBool
	kindUint
	kindStr
	kindBin
	kindArray
	kindMap
)

// reader walks over msgpack without copying. The first error stays: after it every
// read returns nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.bad, r.b = true, nil }

// be reads n bytes as a big-endian number.
func (r *reader) be(n int) uint64 {
	if len(r.b) < n {
		r.fail()
		return 0
	}
	var x uint64
	for _, c := range r.b[:n] {
		x = x<<8 | uint64(c)
	}
	r.b = r.b[n:]
	return x
}

// next reads the head of an object. n is the number, the length in bytes, which are
// there, or the count of entries, which have room.
func (r *reader) next() (k kind, n uint64) {
	if len(r.b) == 0 {
		r.fail()
		return kindNone, 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	switch {
	case c < 0x80:
		return kindUint, uint64(c)
	case c < 0x90:
		return r.sized(kindMap, uint64(c&0x0f))
	case c < 0xa0:
		return r.sized(kindArray, uint64(c&0x0f))
	case c < 0xc0:
		return r.sized(kindStr, uint64(c&0x1f))
	case c >= 0xe0:
		return kindNone, 0
	}
	switch c {
	case 0xc0:
		return kindNone, 0
	case 0xc2, 0xc3:
		return kindBool, uint64(c & 1)
	case 0xc4, 0xc5, 0xc6:
		return r.sized(kindBin, r.be(1<<(c-0xc4)))
	case 0xc7, 0xc8, 0xc9: // extension: length, type, data
		return r.pass(r.be(1<<(c-0xc7)) + 1)
	case 0xca, 0xcb:
		return r.pass(4 << (c - 0xca))
	case 0xcc, 0xcd, 0xce, 0xcf:
		return kindUint, r.be(1 << (c - 0xcc))
	case 0xd0, 0xd1, 0xd2, 0xd3: // a number that isn't negative is written so by some
		size := 1 << (c - 0xd0)
		x := r.be(size)
		if x>>(8*size-1) != 0 {
			return kindNone, 0
		}
		return kindUint, x
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return r.pass(1<<(c-0xd4) + 1)
	case 0xd9, 0xda, 0xdb:
		return r.sized(kindStr, r.be(1<<(c-0xd9)))
	case 0xdc, 0xdd:
		return r.sized(kindArray, r.be(2<<(c-0xdc)))
	case 0xde, 0xdf:
		return r.sized(kindMap, r.be(2<<(c-0xde)))
	}
	r.fail()
	return kindNone, 0
}

// sized checks that what is announced can be there.
func (r *reader) sized(k kind, n uint64) (kind, uint64) {
	least := n
	if k == kindMap {
		least = 2 * n
	}
	if r.bad || n > math.MaxInt32 || least > uint64(len(r.b)) {
		r.fail()
		return kindNone, 0
	}
	return k, n
}

func (r *reader) pass(n uint64) (kind, uint64) {
	r.take(n)
	return kindNone, 0
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uint(most uint64) uint64 {
	k, n := r.next()
	if k != kindUint || n > most {
		r.fail()
		return 0
	}
	return n
}

// bytes reads bin or str.
func (r *reader) bytes(most int) []byte {
	k, n := r.next()
	if k != kindBin && k != kindStr || n > uint64(most) {
		r.fail()
		return nil
	}
	return r.take(n)
}

// bin reads bin of one of the given lengths.
func (r *reader) bin(lengths ...int) []byte {
	k, n := r.next()
	for _, want := range lengths {
		if k == kindBin && n == uint64(want) {
			return r.take(n)
		}
	}
	r.fail()
	return nil
}

func (r *reader) bool() bool {
	k, n := r.next()
	if k != kindBool {
		r.fail()
	}
	return n == 1
}

func (r *reader) count(want kind, most int) int {
	k, n := r.next()
	if k != want || n > uint64(most) {
		r.fail()
		return 0
	}
	return int(n)
}

// skip passes over one object and returns its bytes.
func (r *reader) skip() []byte {
	start := r.b
	r.skipDeep(maxDepth)
	if r.bad {
		return nil
	}
	n := len(start) - len(r.b)
	return start[:n:n]
}

func (r *reader) skipDeep(depth int) {
	if depth == 0 {
		r.fail()
		return
	}
	k, n := r.next()
	switch k {
	case kindStr, kindBin:
		r.take(n)
	case kindMap:
		n *= 2
		fallthrough
	case kindArray:
		for ; n > 0 && !r.bad; n-- {
			r.skipDeep(depth - 1)
		}
	}
}

// AppendUint appends a number in its smallest form.
func AppendUint(b []byte, n uint64) []byte {
	switch {
	case n < 0x80:
		return append(b, byte(n))
	case n <= math.MaxUint8:
		return append(b, 0xcc, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xcf), n)
}

// AppendBin appends bytes.
func AppendBin(b, data []byte) []byte {
	switch n := len(data); {
	case n <= math.MaxUint8:
		b = append(b, 0xc4, byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, 0xc5), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xc6), uint32(n))
	}
	return append(b, data...)
}

// AppendStr appends a text.
func AppendStr[T string | []byte](b []byte, s T) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n <= math.MaxUint8:
		b = append(b, 0xd9, byte(n))
	default:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	}
	return append(b, s...)
}

func appendArray(b []byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, 0x90|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, 0xdc), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(n))
}

func appendMap(b []byte, n int) []byte { return append(b, 0x80|byte(n)) } // none of ours has 16 entries
