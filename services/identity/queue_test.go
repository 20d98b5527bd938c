package identity

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/parley-jami/parley/internal/jami"
)

func letterOf(writer string, n, size int) waiting {
	return waiting{&jami.Value{Cipher: make([]byte, size)}, sha256.Sum256(fmt.Appendf(nil, "%s %d", writer, n))}
}

// One of each writer in turn, in the order in which they came.
func TestTheQueueIsFair(t *testing.T) {
	q := newFairQueue()
	for n := range queueWriterItems + 5 {
		if full := q.push("mallory", letterOf("mallory", n, 1)); full != (n >= queueWriterItems) {
			t.Errorf("%d: %v", n, full)
		}
	}
	q.push("alice", letterOf("alice", 0, 1))
	q.push("alice", letterOf("alice", 0, 1)) // is in
	q.push("bob", letterOf("bob", 0, 1))
	want := []waiting{letterOf("mallory", 0, 1), letterOf("alice", 0, 1), letterOf("bob", 0, 1), letterOf("mallory", 1, 1), letterOf("mallory", 2, 1)}
	for i, x := range want {
		if got, ok := q.pop(); !ok || got.digest != x.digest {
			t.Errorf("%d is another one", i)
		}
	}
	for n := 3; n < queueWriterItems; n++ {
		q.pop()
	}
	if _, ok := q.pop(); ok || q.bytes != 0 || len(q.of) != 0 || len(q.in) != 0 {
		t.Errorf("%d bytes are left", q.bytes)
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	q := newFairQueue()
	for n := range 2 * queueWriters {
		q.push(fmt.Sprint(n), letterOf("x", n, 10))
	}
	if len(q.of) != queueWriters {
		t.Errorf("%d writers", len(q.of))
	}
	q = newFairQueue()
	for w := range queueWriters {
		for n := range queueWriterItems {
			q.push(fmt.Sprint(w), letterOf(fmt.Sprint(w), n, jami.MaxValue))
		}
		if n := len(q.of[fmt.Sprint(w)]); n > queueWriterBytes/jami.MaxValue {
			t.Fatalf("%d of one writer", n)
		}
	}
	if q.bytes != queueBytes {
		t.Errorf("%d bytes", q.bytes)
	}
}
