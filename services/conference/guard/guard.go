// SPDX-License-Identifier: Apache-2.0

// Package guard slows down who guesses PINs: each source by itself, so that
// nobody is locked out for another's guesses.
package guard

import (
	"net/netip"
	"time"
)

const (
	// free tries come without a delay: people mistype.
	free = 3
	// first delay; each further wrong try doubles it up to most.
	first = time.Second
	most  = 5 * time.Minute
	// forget a source this long after its last try.
	forget = 15 * time.Minute
	// Max bounds the sources that are remembered (about 100 bytes each). Beyond,
	// the one whose delay ends soonest of a few is forgotten.
	Max = 1 << 16
	// sample is how many are looked at to find one to forget.
	sample = 16
)

type entry struct {
	wrong int
	until time.Time // no try before
	last  time.Time
}

// Guard counts wrong tries. It belongs to one goroutine.
type Guard struct{ by map[string]*entry }

// New returns an empty guard.
func New() *Guard { return &Guard{by: map[string]*entry{}} }

// source makes one of all the addresses that one caller can easily have: an IPv6
// host owns a /64.
func source(s string) string {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return s
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return s
	}
	return p.String()
}

// Wait returns how long src has to wait before its next try; 0: it may try now.
func (g *Guard) Wait(now time.Time, src string) time.Duration {
	e := g.by[source(src)]
	if e == nil {
		return 0
	}
	if now.Sub(e.last) > forget {
		delete(g.by, source(src))
		return 0
	}
	return max(0, e.until.Sub(now))
}

// Wrong notes a wrong try.
func (g *Guard) Wrong(now time.Time, src string) {
	key := source(src)
	e := g.by[key]
	if e == nil {
		if len(g.by) >= Max {
			g.evict(now)
		}
		e = new(entry)
		g.by[key] = e
	}
	e.wrong++
	e.last = now
	if over := e.wrong - free; over > 0 {
		e.until = now.Add(min(first<<min(over-1, 16), most))
	}
}

// Right forgets src.
func (g *Guard) Right(src string) { delete(g.by, source(src)) }

// Len returns how many sources are remembered.
func (g *Guard) Len() int { return len(g.by) }

func (g *Guard) evict(now time.Time) {
	var worst string
	var until time.Time
	n := 0
	for k, e := range g.by { // in random order
		if now.Sub(e.last) > forget {
			delete(g.by, k)
			return
		}
		if worst == "" || e.until.Before(until) {
			worst, until = k, e.until
		}
		if n++; n == sample {
			break
		}
	}
	delete(g.by, worst)
}
