// Package votes finds a node's public address out of what others say that it is.
package votes

import (
	"net/netip"
	"slices"
)

// most bounds the reports that count: the last one of each of so many hosts.
const most = 16

// Votes are what other hosts say of one address family. The zero value has none. It is not
// safe for concurrent use.
type Votes struct {
	by   [most]netip.Addr // hosts of those who say it
	said [most]netip.Addr
	next int
	best netip.Addr
}

// Add notes what a host says, which replaces what the same host said before, and reports
// whether Most is another now. With as many votes, the one before stays.
func (v *Votes) Add(by, said netip.Addr) (changed bool) {
	i := slices.Index(v.by[:], by)
	switch {
	case i < 0:
		i = v.next
		v.next = (v.next + 1) % most
	case v.said[i] == said:
		return false
	}
	v.by[i], v.said[i] = by, said
	was, top := v.best, v.count(v.best)
	for _, a := range v.said {
		if n := v.count(a); n > top {
			v.best, top = a, n
		}
	}
	return v.best != was
}

func (v *Votes) count(a netip.Addr) (n int) {
	for _, x := range v.said {
		if a.IsValid() && x == a {
			n++
		}
	}
	return n
}

// Most returns the address that most hosts name; invalid when there is none.
func (v *Votes) Most() netip.Addr { return v.best }
