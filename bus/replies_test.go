package bus

import (
	"fmt"
	"testing"
	"time"
)

// TestRepliesAreBounded: by number, bytes and age.
func TestRepliesAreBounded(t *testing.T) {
	s := &Service{done: map[string]*pastReply{}}
	keep := func(id string, size int, at time.Time) *pastReply {
		s.mu.Lock()
		defer s.mu.Unlock()
		p := &pastReply{id: id, at: at}
		s.rememberLocked(p)
		p.kept += size
		s.bytes += size
		s.trimLocked()
		return p
	}
	now := time.Now()
	for i := range 100 {
		keep(fmt.Sprint("big", i), 1<<20, now)
	}
	if s.bytes > keepRepliesBytes || len(s.done) < 10 || len(s.order) != len(s.done) {
		t.Fatalf("%d bytes of %d replies, %d in order", s.bytes, len(s.done), len(s.order))
	}
	for i := range keepRepliesMax + 100 {
		keep(fmt.Sprint("small", i), 0, now)
	}
	if len(s.done) != keepRepliesMax {
		t.Fatalf("%d replies", len(s.done))
	}
	for _, p := range s.order {
		p.at = now.Add(-keepReplies)
	}
	again := keep("small5000", 10, now) // in place of one that is too old
	s.forgetOld()
	if len(s.done) != 1 || s.done["small5000"] != again || s.bytes != len("small5000")+10 {
		t.Fatalf("%d replies, %d bytes", len(s.done), s.bytes)
	}
	again.at = now.Add(-keepReplies)
	if s.forgetOld(); len(s.done) != 0 || s.bytes != 0 || s.sweep != nil {
		t.Fatalf("%d replies, %d bytes", len(s.done), s.bytes)
	}
}
