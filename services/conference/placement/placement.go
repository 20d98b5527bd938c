// SPDX-License-Identifier: Apache-2.0

// Package placement chooses the media worker of a leg. It is pure: workers and
// the room's place go in, a name comes out.
package placement

import "time"

// Alive is how long after its last beat (one a second) a worker counts as there.
const Alive = 3500 * time.Millisecond

// Worker is a media worker as its last beat told of it.
type Worker struct {
	Name string
	Legs int
	CPU  float64 // cores in use
	Seen time.Time
}

// Choose returns the worker for a new leg, or "" when there is none. A room stays
// on the worker that it has while that one lives, because there is one mixer for
// a room; a new room goes where the fewest legs are, then where the least CPU is
// used, then by name, so that every process chooses alike.
func Choose(now time.Time, workers []Worker, current string) string {
	var best *Worker
	for i := range workers {
		w := &workers[i]
		if now.Sub(w.Seen) > Alive {
			continue
		}
		if w.Name == current {
			return current
		}
		if best == nil || less(w, best) {
			best = w
		}
	}
	if best == nil {
		return ""
	}
	return best.Name
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
