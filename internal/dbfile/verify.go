package dbfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// The form of a bbolt file, version 2, in the machine's byte order:
//
//	page       id 8 | flags 2 | count 2 | overflow 4 | elements; overflow more pages belong to it
//	meta       pages 0 and 1: magic 4 | version 4 | page size 4 | flags 4 | root 8 | sequence 8 |
//	           free list 8 | pages in use 8 | transaction 8 | FNV-1a 8 of what is before
//	branch     count times: offset 4 | key's length 4 | child 8
//	leaf       count times: flags 4 | offset 4 | key's length 4 | value's length 4
//	free list  count times: page 8; with a count of 0xFFFF the first of these is the count
//	bucket     the value of a leaf's element with flag 1: root 8 | sequence 8; with a root
//	           of 0 a leaf page follows
//
// Offsets count from the element; keys and values follow the elements without a gap,
// in their order, which shows a count that has changed. Keys ascend; those below a branch's element are not
// less than its key and less than the next one's.
const (
	pageHead   = 16
	element    = 16
	metaSize   = 64
	bucketHead = 16

	magic         = 0xED0CDAED
	formatVersion = 2

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10

	bucketFlag = 1
)

var order = binary.NativeEndian

// structure is a file that is being verified.
type structure struct {
	r    io.ReaderAt
	size uint64 // of a page
	n    uint64 // pages in use
	seen []bool // by page
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w (%s)", ErrDamaged, fmt.Sprintf(format, args...))
}

// verify reads every page of a file of that length. It returns nil when each page is
// reached exactly once, by the trees or by the list of free pages, and all within has
// its place and its order.
func verify(r io.ReaderAt, length int64) error {
	s := &structure{r: r}
	root, free, err := s.metas(uint64(length))
	if err != nil {
		return err
	}
	if err := s.tree(root, nil, nil); err != nil {
		return err
	}
	if err := s.freelist(free); err != nil {
		return err
	}
	for id, seen := range s.seen {
		if !seen {
			return damaged("page %d is of no use", id)
		}
	}
	return nil
}

// meta is the head of the file as a transaction left it.
type meta struct{ size, root, free, pages, tx uint64 }

func (s *structure) meta(at int64, id uint64) (m meta, err error) {
	b := make([]byte, pageHead+metaSize)
	if _, err := s.r.ReadAt(b, at); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return m, damaged("it has no head")
		}
		return m, err
	}
	h := fnv.New64a()
	body := b[pageHead:]
	h.Write(body[:metaSize-8])
	switch {
	case order.Uint64(b) != id, order.Uint16(b[8:]) != flagMeta, order.Uint32(body) != magic, order.Uint64(body[metaSize-8:]) != h.Sum64():
		return m, damaged("head %d", id)
	case order.Uint32(body[4:]) != formatVersion:
		return m, damaged("its format is %d", order.Uint32(body[4:]))
	}
	m = meta{uint64(order.Uint32(body[8:])), order.Uint64(body[16:]), order.Uint64(body[32:]), order.Uint64(body[40:]), order.Uint64(body[48:])}
	if m.size < 512 || m.size > 1<<16 || m.size&(m.size-1) != 0 {
		return m, damaged("pages of %d bytes", m.size)
	}
	return m, nil
}

// metas takes the newer head. bbolt would take the older one for a newer one that is
// damaged, and with it forget the last write. A write is so small that no disk leaves
// a half of it.
func (s *structure) metas(length uint64) (root, free uint64, err error) {
	a, err := s.meta(0, 0)
	if err != nil {
		return 0, 0, err
	}
	b, err := s.meta(int64(a.size), 1)
	if err != nil {
		return 0, 0, err
	}
	if b.tx > a.tx {
		a, b = b, a
	}
	if a.size != b.size || a.pages < 4 || a.pages > length/a.size {
		return 0, 0, damaged("%d pages of %d bytes in %d bytes", a.pages, a.size, length)
	}
	s.size, s.n = a.size, a.pages
	s.seen = make([]bool, s.n)
	s.seen[0], s.seen[1] = true, true
	return a.root, a.free, nil
}

// page reads a page, which nobody may have read before.
func (s *structure) page(id uint64) (b []byte, flags, count uint16, err error) {
	if id < 2 || id >= s.n {
		return nil, 0, 0, damaged("page %d of %d", id, s.n)
	}
	head := make([]byte, pageHead)
	if _, err := s.r.ReadAt(head, int64(id*s.size)); err != nil {
		return nil, 0, 0, err
	}
	overflow := uint64(order.Uint32(head[12:]))
	if order.Uint64(head) != id || overflow >= s.n-id {
		return nil, 0, 0, damaged("the head of page %d", id)
	}
	for i := id; i <= id+overflow; i++ {
		if s.seen[i] {
			return nil, 0, 0, damaged("page %d has two uses", i)
		}
		s.seen[i] = true
	}
	b = make([]byte, (1+overflow)*s.size)
	if _, err := s.r.ReadAt(b, int64(id*s.size)); err != nil {
		return nil, 0, 0, err
	}
	return b, order.Uint16(head[8:]), order.Uint16(head[10:]), nil
}

// tree reads the page and what is below it; its keys are not less than low and less
// than high, which is nil for no bound.
func (s *structure) tree(id uint64, low, high []byte) error {
	b, flags, count, err := s.page(id)
	switch {
	case err != nil:
		return err
	case flags == flagLeaf:
		return s.leaf(b, id, count, low, high)
	case flags != flagBranch, count == 0:
		return damaged("page %d is neither branch nor leaf", id)
	}
	type child struct {
		key  []byte
		page uint64
	}
	var list []child
	next := pageHead + int(count)*element
	for i := range int(count) {
		at := pageHead + i*element
		if at+element > len(b) {
			return damaged("page %d is too short", id)
		}
		key, _, err := part(b, at, next, order.Uint32(b[at:]), order.Uint32(b[at+4:]), 0)
		if err != nil {
			return err
		}
		next += len(key)
		if bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
			return damaged("a key of page %d is out of order", id)
		}
		low = key
		list = append(list, child{key, order.Uint64(b[at+8:])})
	}
	for i, c := range list {
		end := high
		if i+1 < len(list) {
			end = list[i+1].key
		}
		if err := s.tree(c.page, c.key, end); err != nil {
			return err
		}
	}
	return nil
}

// leaf reads a page's or an inline bucket's elements.
func (s *structure) leaf(b []byte, id uint64, count uint16, low, high []byte) error {
	next := pageHead + int(count)*element
	for i := range int(count) {
		at := pageHead + i*element
		if at+element > len(b) {
			return damaged("page %d is too short", id)
		}
		key, value, err := part(b, at, next, order.Uint32(b[at+4:]), order.Uint32(b[at+8:]), order.Uint32(b[at+12:]))
		if err != nil {
			return err
		}
		next += len(key) + len(value)
		if c := bytes.Compare(key, low); c < 0 || c == 0 && i > 0 || high != nil && bytes.Compare(key, high) >= 0 {
			return damaged("a key of page %d is out of order", id)
		}
		low = key
		switch order.Uint32(b[at:]) {
		case 0:
		case bucketFlag:
			if err := s.bucket(value, id); err != nil {
				return err
			}
		default:
			return damaged("an element of page %d", id)
		}
	}
	return nil
}

func (s *structure) bucket(value []byte, id uint64) error {
	if len(value) < bucketHead {
		return damaged("a bucket of page %d", id)
	}
	if root := order.Uint64(value); root != 0 {
		return s.tree(root, nil, nil)
	}
	b := value[bucketHead:]
	if len(b) < pageHead || order.Uint16(b[8:]) != flagLeaf || order.Uint32(b[12:]) != 0 {
		return damaged("a bucket of page %d", id)
	}
	return s.leaf(b, id, order.Uint16(b[10:]), nil, nil)
}

// part returns the key and the value that are that far behind an element, and have to
// be at next.
func part(b []byte, at, next int, offset, key, value uint32) (k, v []byte, err error) {
	from := uint64(at) + uint64(offset)
	mid := from + uint64(key)
	end := mid + uint64(value)
	if key == 0 || from != uint64(next) || end > uint64(len(b)) {
		return nil, nil, damaged("an element at %d", at)
	}
	return b[from:mid], b[mid:end], nil
}

func (s *structure) freelist(id uint64) error {
	b, flags, count, err := s.page(id)
	if err != nil {
		return err
	}
	if flags != flagFreelist {
		return damaged("page %d is no list of free pages", id)
	}
	n, at := uint64(count), pageHead
	if count == 0xFFFF {
		n, at = order.Uint64(b[at:]), at+8
	}
	if n > uint64(len(b)-at)/8 {
		return damaged("%d free pages", n)
	}
	for i := range int(n) {
		free := order.Uint64(b[at+8*i:])
		if free < 2 || free >= s.n || s.seen[free] {
			return damaged("page %d is free and is not", free)
		}
		s.seen[free] = true
	}
	return nil
}
