package mapping

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// ValueID tells values of one key apart.
type ValueID struct {
	Writer string
	ID     uint64
}

// IDOf returns it.
func IDOf(v *overlay.Value) ValueID { return ValueID{v.Writer, v.ID} }

// Set is what was found under one key. It is not safe for concurrent use.
type Set map[ValueID]Found

// Merge keeps the latest of each value.
func (s Set) Merge(f Found) {
	k := IDOf(&f.Value)
	if old, ok := s[k]; !ok || f.Seq >= old.Seq {
		s[k] = f
	}
}

// Sorted returns the values that aren't gone, by writer and id.
func (s Set) Sorted() []overlay.Value {
	var out []overlay.Value
	for _, f := range s {
		if !f.Gone {
			out = append(out, f.Value)
		}
	}
	slices.SortFunc(out, func(a, b overlay.Value) int {
		return cmp.Or(strings.Compare(a.Writer, b.Writer), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Told is what one listener knows. It is not safe for concurrent use.
type Told map[ValueID]overlay.Value

// Diff notes what is there now and returns what changed.
func (t Told) Diff(now Set) []overlay.Change {
	var out []overlay.Change
	for _, v := range now.Sorted() {
		k := IDOf(&v)
		if old, ok := t[k]; !ok || old.Type != v.Type || !bytes.Equal(old.Data, v.Data) {
			out = append(out, overlay.Change{Value: v})
		}
		t[k] = v
	}
	for k, v := range t {
		if f, ok := now[k]; !ok || f.Gone {
			delete(t, k)
			out = append(out, overlay.Change{Value: v, Expired: true})
		}
	}
	return out
}
