package gitwire

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1" //nolint:gosec // Git's own
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// Object is one that came in a pack.
type Object struct {
	Type plumbing.ObjectType
	Data []byte
}

// Objects are those of a pack, by their ids: the bytes of each have it.
type Objects map[plumbing.Hash]Object

// unpacking is a pack that is being read.
type unpacking struct {
	lim  Limits
	left int64 // bytes that all objects may still have
	objs Objects
	at   map[int64]plumbing.Hash // by their offset in the pack
	wait []delta
}

// delta is an object that is told as what differs from another one.
type delta struct {
	offset int64
	base   plumbing.Hash // zero: the one at from
	from   int64
	change []byte
}

// Unpack reads a pack. Bases of its deltas are in it: it is no thin one.
func Unpack(pack []byte, lim Limits) (Objects, error) {
	if len(pack) < sha1.Size {
		return nil, fmt.Errorf("%w: %d bytes", ErrPack, len(pack))
	}
	if sum := sha1.Sum(pack[:len(pack)-sha1.Size]); !bytes.Equal(sum[:], pack[len(pack)-sha1.Size:]) { //nolint:gosec // Git's own
		return nil, fmt.Errorf("%w: its checksum is of other bytes", ErrPack)
	}
	s := packfile.NewScanner(bytes.NewReader(pack))
	_, n, err := s.Header()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPack, err)
	}
	if int64(n) > int64(lim.Objects) {
		return nil, fmt.Errorf("%w: %d objects, at most %d", ErrLarge, n, lim.Objects)
	}
	u := &unpacking{lim: lim, left: lim.All, objs: Objects{}, at: map[int64]plumbing.Hash{}}
	for range n {
		if err := u.next(s); err != nil {
			return nil, err
		}
	}
	return u.objs, u.resolve()
}

// next reads an object.
func (u *unpacking) next(s *packfile.Scanner) error {
	h, err := s.NextObjectHeader()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPack, err)
	}
	if h.Length < 0 || h.Length > u.lim.Object {
		return fmt.Errorf("%w: an object of %d bytes, at most %d", ErrLarge, h.Length, u.lim.Object)
	}
	b := limited{left: h.Length}
	if _, _, err := s.NextObject(&b); err != nil {
		return fmt.Errorf("%w: %w", ErrPack, err)
	}
	if b.left != 0 {
		return fmt.Errorf("%w: an object is shorter than it says", ErrPack)
	}
	switch h.Type {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject:
		return u.keep(h.Offset, h.Type, b.data)
	case plumbing.REFDeltaObject, plumbing.OFSDeltaObject:
		if u.left -= int64(len(b.data)); u.left < 0 {
			return fmt.Errorf("%w: objects of more than %d bytes", ErrLarge, u.lim.All)
		}
		d := delta{offset: h.Offset, change: b.data, base: h.Reference, from: h.OffsetReference}
		if h.Type == plumbing.OFSDeltaObject {
			d.base = plumbing.ZeroHash
		}
		u.wait = append(u.wait, d)
		return nil
	}
	return fmt.Errorf("%w: an object of type %v", ErrPack, h.Type)
}

// keep keeps an object under the id that its bytes have.
func (u *unpacking) keep(offset int64, typ plumbing.ObjectType, data []byte) error {
	if u.left -= int64(len(data)); u.left < 0 {
		return fmt.Errorf("%w: objects of more than %d bytes", ErrLarge, u.lim.All)
	}
	h := plumbing.ComputeHash(typ, data)
	u.objs[h], u.at[offset] = Object{typ, data}, h
	return nil
}

// resolve makes objects of deltas; a base may stand behind what is told by it.
func (u *unpacking) resolve() error {
	for len(u.wait) > 0 {
		var still []delta
		for _, d := range u.wait {
			base := d.base
			if base.IsZero() {
				base = u.at[d.from]
			}
			b, ok := u.objs[base]
			if !ok {
				still = append(still, d)
				continue
			}
			data, err := u.patch(b.Data, d.change)
			if err != nil {
				return err
			}
			if err := u.keep(d.offset, b.Type, data); err != nil {
				return err
			}
		}
		if len(still) == len(u.wait) {
			return fmt.Errorf("%w: %d objects build on what is not in it", ErrPack, len(still))
		}
		u.wait = still
	}
	return nil
}

// patch applies a delta, whose beginning says how long base and result are.
func (u *unpacking) patch(base, change []byte) ([]byte, error) {
	_, n := binary.Uvarint(change)
	if n <= 0 {
		return nil, fmt.Errorf("%w: a delta without a size", ErrPack)
	}
	size, n2 := binary.Uvarint(change[n:])
	if n2 <= 0 || size > uint64(u.lim.Object) {
		return nil, fmt.Errorf("%w: an object of %d bytes, at most %d", ErrLarge, size, u.lim.Object)
	}
	data, err := packfile.PatchDelta(base, change)
	if err != nil || uint64(len(data)) != size {
		return nil, errors.Join(fmt.Errorf("%w: a delta that does not fit", ErrPack), err)
	}
	return data, nil
}

// limited takes so many bytes and no more.
type limited struct {
	data []byte
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		return 0, fmt.Errorf("%w: an object is longer than it says", ErrPack)
	}
	l.left -= int64(len(p))
	l.data = append(l.data, p...)
	return len(p), nil
}

// packTypes are the numbers of types in a pack.
var packTypes = map[plumbing.ObjectType]byte{plumbing.CommitObject: 1, plumbing.TreeObject: 2, plumbing.BlobObject: 3}

// writePack writes a pack of whole objects (Git's pack format, version 2).
func writePack(w io.Writer, ids []plumbing.Hash, read func(plumbing.Hash) (Object, error)) error {
	sum := sha1.New() //nolint:gosec // Git's own
	both := io.MultiWriter(w, sum)
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(ids)))
	if _, err := both.Write(head); err != nil {
		return err
	}
	zw := zlib.NewWriter(both)
	for _, id := range ids {
		o, err := read(id)
		if err != nil {
			return err
		}
		if _, err := both.Write(entryHead(packTypes[o.Type], len(o.Data))); err != nil {
			return err
		}
		zw.Reset(both)
		if _, err := zw.Write(o.Data); err != nil {
			return err
		}
		if err := zw.Close(); err != nil {
			return err
		}
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

// entryHead is type and size of an object: 4 bits of the size, then 7 in each byte, the lowest first.
func entryHead(typ byte, size int) []byte {
	b := []byte{typ<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(size&0x7f))
	}
	return b
}
