package identity

import (
	"slices"
	"sync"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// Bounds of what waits to be opened: of one writer of the overlay, and of all. What finds
// no place comes again with the next renewal of the lease, for as long as it is there.
const (
	queueWriters     = 256
	queueWriterItems = 32
	queueWriterBytes = 256 << 10
	queueBytes       = 8 << 20
)

// sealed value that waits to be opened.
type waiting struct {
	value  *jami.Value
	digest account.Digest
}

// fairQueue holds values by who wrote them into the overlay, and gives one of each in turn:
// who writes ten thousand keeps nobody else waiting. It is safe for concurrent use. Its
// zero value is not ready: see newFairQueue.
type fairQueue struct {
	ready chan struct{} // has an element when something may be there

	mu    sync.Mutex
	of    map[string][]waiting
	turn  []string // writers with something, the next one first
	in    map[account.Digest]struct{}
	bytes int
}

func newFairQueue() *fairQueue {
	return &fairQueue{ready: make(chan struct{}, 1), of: map[string][]waiting{}, in: map[account.Digest]struct{}{}}
}

// push takes a value unless it is in already. full: it found no place.
func (q *fairQueue) push(writer string, w waiting) (full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, is := q.in[w.digest]; is {
		return false
	}
	mine, n := q.of[writer], len(w.value.Cipher)
	for _, o := range mine {
		n += len(o.value.Cipher)
	}
	switch {
	case len(mine) == 0 && len(q.of) >= queueWriters, len(mine) >= queueWriterItems, n > queueWriterBytes,
		q.bytes+len(w.value.Cipher) > queueBytes:
		return true
	case len(mine) == 0:
		q.turn = append(q.turn, writer)
	}
	q.of[writer] = append(mine, w)
	q.in[w.digest] = struct{}{}
	q.bytes += len(w.value.Cipher)
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return false
}

// pop returns the next value.
func (q *fairQueue) pop() (w waiting, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.turn) == 0 {
		return w, false
	}
	writer := q.turn[0]
	q.turn = slices.Delete(q.turn, 0, 1)
	mine := q.of[writer]
	w = mine[0]
	if mine = mine[1:]; len(mine) > 0 {
		q.of[writer] = mine
		q.turn = append(q.turn, writer)
	} else {
		delete(q.of, writer)
	}
	delete(q.in, w.digest)
	q.bytes -= len(w.value.Cipher)
	return w, true
}
