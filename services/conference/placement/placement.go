// SPDX-License-Identifier: Apache-2.0

// Package placement chooses the media worker of a leg, and how the workers of one room
// are joined. It is pure: workers and the room's place go in, names come out.
package placement

import (
	"net/netip"
	"slices"
	"time"
)

// Alive is how long after its last beat (one each 400 ms) a worker counts as there.
const Alive = 1600 * time.Millisecond

// busyCPU is from how many cores in use a worker gets no leg of a room that could be
// elsewhere: a room's tick runs on one.
const busyCPU = 0.75

// Worker is a media worker as its last beat told of it.
type Worker struct {
	Name    string
	Legs    int
	MaxLegs int            // it takes no more, 0: as many as come
	CPU     float64        // cores in use
	Late    bool           // it does not keep its time, and takes no more until it does
	Shy     bool           // it refused, or did not answer, a moment ago, whatever it says of itself
	Near    []netip.Prefix // networks whose people it is near to
	Seen    time.Time
}

func (w *Worker) full() bool { return w.Late || w.MaxLegs > 0 && w.Legs >= w.MaxLegs }

func (w *Worker) busy() bool { return w.full() || w.Shy || w.CPU >= busyCPU }

// near is how near it is to somebody: the length of the longest prefix that he is in, and one
// more, or 0.
func (w *Worker) near(from netip.Addr) int {
	best := 0
	for _, p := range w.Near {
		if p.Contains(from) {
			best = max(best, p.Bits()+1)
		}
	}
	return best
}

// Choose returns the worker for a new leg, or "" when there is none that takes it. from is the address of
// who joins, or none: he goes to the worker nearest to him that isn't busy. Else a room,
// which is at the given workers in the order in which it came to them, stays together: each worker
// more costs each of the others a trunk, and everybody the mix of the loudest. So it goes to the
// first of them that isn't busy, else to another one that isn't, else to any that isn't
// full. Among equals it is the one with the fewest legs, then with the least CPU in use, then by name, so
// that every process chooses alike.
func Choose(now time.Time, workers []Worker, from netip.Addr, at ...string) string {
	var best, spare *Worker
	place, nearest := len(at), 0
	from = from.Unmap()
	for i := range workers {
		w := &workers[i]
		if now.Sub(w.Seen) > Alive || w.full() {
			continue
		}
		if spare == nil || spare.Shy && !w.Shy || spare.Shy == w.Shy && less(w, spare) {
			spare = w
		}
		if w.busy() {
			continue
		}
		k := slices.Index(at, w.Name)
		if k < 0 {
			k = len(at)
		}
		if near := w.near(from); best == nil || near > nearest || near == nearest && (k < place || k == place && less(w, best)) {
			best, place, nearest = w, k, near
		}
	}
	switch {
	case best != nil:
		return best.Name
	case spare != nil:
		return spare.Name
	}
	return ""
}

func less(a, b *Worker) bool {
	switch {
	case a.Legs != b.Legs:
		return a.Legs < b.Legs
	case a.CPU != b.CPU:
		return a.CPU < b.CPU
	}
	return a.Name < b.Name
}
