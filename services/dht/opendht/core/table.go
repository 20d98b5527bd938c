package core

import (
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// Sizes of the table (§1.6).
const (
	bucketSize = 8
	maxDepth   = 40 // buckets; more than a network of 2^40 nodes fills
)

// siteMost bounds how many nodes of a table may be of one site, if that is not near
// us: one attacker does not fill the table.
const siteMost = 8

type bucket struct {
	peers   []*peer
	touched time.Time // last look-up in it
}

// table are the known nodes of a family. Bucket i holds those that share i leading
// bits with the own id, the last one all that share more: only that one splits.
type table struct {
	self    jami.ID
	buckets []bucket
	sites   map[netip.Addr]int
}

func (t *table) init(self jami.ID) {
	t.self = self
	t.buckets = make([]bucket, 1, 8)
	t.sites = map[netip.Addr]int{}
}

func (t *table) bucket(id *jami.ID) *bucket {
	return &t.buckets[min(commonBits(&t.self, id), len(t.buckets)-1)]
}

// insert takes in a peer that answered. When the bucket is full it replaces a failed
// peer; else it returns a dubious one to ping, or nil.
func (t *table) insert(p *peer, now time.Time) (in bool, ping *peer) {
	if p.table || p.client {
		return p.table, nil
	}
	h := site(p.addr.Addr())
	if !local(h) && t.sites[h] >= siteMost {
		return false, nil
	}
	b := t.bucket(&p.id)
	for i, x := range b.peers {
		if x.id == p.id { // the same id at another address: the one that is known stays while it works
			if x.good(now) {
				return false, x
			}
			t.replace(b, i, p)
			return true, nil
		}
	}
	for len(b.peers) >= bucketSize && b == &t.buckets[len(t.buckets)-1] && len(t.buckets) < maxDepth {
		t.split()
		b = t.bucket(&p.id)
	}
	if len(b.peers) < bucketSize {
		b.peers = append(b.peers, p)
		p.table = true
		t.sites[h]++
		return true, nil
	}
	for i, x := range b.peers {
		switch {
		case x.failed:
			t.replace(b, i, p)
			return true, nil
		case !x.good(now) && ping == nil:
			ping = x
		}
	}
	return false, ping
}

// wants reports whether a peer of this id would come in, if it answered.
func (t *table) wants(id *jami.ID, now time.Time) bool {
	b := t.bucket(id)
	if len(b.peers) < bucketSize || b == &t.buckets[len(t.buckets)-1] && len(t.buckets) < maxDepth {
		return true
	}
	for _, p := range b.peers {
		if !p.good(now) {
			return true
		}
	}
	return false
}

func (t *table) replace(b *bucket, i int, p *peer) {
	t.leave(b.peers[i])
	b.peers[i] = p
	p.table = true
	t.sites[site(p.addr.Addr())]++
}

func (t *table) leave(p *peer) {
	p.table = false
	h := site(p.addr.Addr())
	if t.sites[h]--; t.sites[h] <= 0 {
		delete(t.sites, h)
	}
}

func (t *table) split() {
	last := len(t.buckets) - 1
	old := t.buckets[last]
	t.buckets[last] = bucket{touched: old.touched}
	t.buckets = append(t.buckets, bucket{touched: old.touched})
	for _, p := range old.peers {
		b := t.bucket(&p.id)
		b.peers = append(b.peers, p)
	}
}

// closest appends the up to n peers closest to a target that ok accepts, closest
// first. Of a target that shares k bits with the own id, all in bucket k are closer than
// any other, then come those above it, then the buckets below it one by one.
func (t *table) closest(out []*peer, target *jami.ID, n int, ok func(*peer) bool) []*peer {
	start := len(out)
	k := min(commonBits(&t.self, target), len(t.buckets)-1)
	out = t.closestIn(out, start, k, target, n, ok)
	if len(out)-start < n {
		for i := k + 1; i < len(t.buckets); i++ {
			out = t.closestIn(out, start, i, target, n, ok)
		}
	}
	for i := k - 1; i >= 0 && len(out)-start < n; i-- {
		out = t.closestIn(out, start, i, target, n, ok)
	}
	return out
}

// closestIn sorts the peers of a bucket into out[start:].
func (t *table) closestIn(out []*peer, start, bucket int, target *jami.ID, n int, ok func(*peer) bool) []*peer {
	for _, p := range t.buckets[bucket].peers {
		at := len(out)
		for at > start && closer(target, &p.id, &out[at-1].id) {
			at--
		}
		if at-start >= n || !ok(p) {
			continue
		}
		if len(out)-start < n {
			out = append(out, nil)
		}
		copy(out[at+1:], out[at:len(out)-1])
		out[at] = p
	}
	return out
}

// Counts of a table.
type Counts struct {
	Good, Dubious, Failed int
}

func (t *table) count(now time.Time) (n Counts) {
	for _, b := range t.buckets {
		for _, p := range b.peers {
			switch {
			case p.good(now):
				n.Good++
			case p.failed:
				n.Failed++
			default:
				n.Dubious++
			}
		}
	}
	return n
}
