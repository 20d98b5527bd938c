package core

import (
	"net/netip"
	"time"

	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// kinds is how many kinds of packets there are, with 0 for none.
const kinds = int(wire.Legacy) + 1

// Traffic counts packets and their bytes, without the headers of UDP.
type Traffic struct {
	Packets, Bytes uint64
}

func (t *Traffic) add(bytes int) {
	t.Packets++
	t.Bytes += uint64(bytes)
}

// Stats count since the start. Counting allocates nothing.
type Stats struct {
	Received, ReceivedBytes uint64 // all that came, good or not
	Sent, SentBytes         uint64
	In, Out                 [kinds]Traffic // by wire.Kind; In without what was dropped before it was read

	// Packets that came and were dropped.
	Unusable  uint64 // from an address that no node can have
	Malformed uint64
	Foreign   uint64 // of another network
	Own       uint64 // with this node's own id
	Limited   uint64 // over the limit of queries
	Forged    uint64 // answers to what was not asked
	Stray     uint64 // fragments of nothing
	BadToken  uint64 // queries with a token that was not given to their address
	Stale     uint64 // that waited too long to be looked at
	Crowded   uint64 // no room for fragments, for a listener, or for an answer that waits

	Refused            uint64 // values that a policy refused
	Evicted            uint64 // values that gave way to a quota
	Held               uint64 // answers that waited for a proof of address
	Errors, Unanswered uint64 // of our queries
}

// Stats returns what was counted.
func (c *Core) Stats() Stats { return c.stats }

// BucketStats is the fill of one bucket.
type BucketStats struct {
	Good, Dubious, Failed int
}

// TableStats describes the routing table of one family.
type TableStats struct {
	IPv6 bool
	BucketStats
	// Incoming are those of the good ones that asked us something after they last
	// answered: nodes that have this one in their tables.
	Incoming int
	Buckets  []BucketStats // bucket i shares i leading bits with this node's id, the last one more
	// Estimate is how many nodes the network has, from how close the closest good ones
	// are; a third more or less is usual. In a network that the table holds whole, it is
	// exact.
	Estimate float64
}

// Snapshot is the state of a node at one time.
type Snapshot struct {
	Started  time.Time
	Stats    Stats
	Tables   []TableStats // of the families that are on
	Keys     int          // with values of others or of this node
	Values   int
	Bytes    int // of others' values, with their keeping
	Quota    int // of Bytes
	Watchers int // others that listen here
	Puts     int // values that this node puts
	Listens  int // keys that this node listens to, by node that is asked
	Searches int // that something waits for
	Requests int // without an answer yet
	Public   []netip.Addr
	Asked    []Bootstrap
}

// Bootstrap is a node to start from.
type Bootstrap struct {
	Addr    netip.AddrPort
	Answers bool // it is good in the table or, where that has no place for it, did when it was asked last
}

// Snapshot describes the node. It goes through the stored keys.
func (c *Core) Snapshot() Snapshot {
	s := Snapshot{Started: c.start, Stats: c.stats, Bytes: c.store.bytes, Quota: c.cfg.MaxStore, Watchers: c.store.listeners,
		Puts: len(c.puts), Listens: len(c.listens), Requests: len(c.requests), Public: c.PublicAddrs()}
	for _, k := range c.store.keys {
		s.Values += len(k.values)
		if len(k.values) > 0 {
			s.Keys++
		}
	}
	good := map[netip.AddrPort]bool{}
	for f := range c.tables {
		if !c.on[f] {
			continue
		}
		t := c.tableStats(f)
		s.Tables = append(s.Tables, t)
		for _, x := range c.searches[f] {
			if x.busy() {
				s.Searches++
			}
		}
		for _, b := range c.tables[f].buckets {
			for _, p := range b.peers {
				good[p.addr] = p.good(c.now)
			}
		}
	}
	for _, a := range c.boot.addrs {
		answers, known := good[a]
		if !known {
			answers = c.boot.answers[a]
		}
		s.Asked = append(s.Asked, Bootstrap{a, answers})
	}
	return s
}

func (c *Core) tableStats(f int) TableStats {
	t := TableStats{IPv6: f == v6}
	for _, b := range c.tables[f].buckets {
		var n BucketStats
		for _, p := range b.peers {
			switch {
			case p.good(c.now):
				n.Good++
				if p.heard.After(p.replied) {
					t.Incoming++
				}
			case p.failed:
				n.Failed++
			default:
				n.Dubious++
			}
		}
		t.Good, t.Dubious, t.Failed = t.Good+n.Good, t.Dubious+n.Dubious, t.Failed+n.Failed
		t.Buckets = append(t.Buckets, n)
	}
	t.Estimate = c.estimate(f, t.Good)
	return t
}

// estimate counts the nodes of a family. Of N ids that are spread evenly the k-th
// closest is at k/N of the whole, on average: each of the closest says N, and they are
// weighed by their rank.
func (c *Core) estimate(f, good int) float64 {
	if len(c.tables[f].buckets) == 1 { // it has never been full
		return float64(good + 1)
	}
	var buf [searchTarget]*peer
	var part, ranks float64
	for i, p := range c.tables[f].closest(buf[:0], &c.self, searchTarget, func(p *peer) bool { return p.good(c.now) }) {
		part += distance(p.id[:], c.self[:])
		ranks += float64(i + 1)
	}
	if part == 0 {
		return float64(good + 1)
	}
	return max(ranks/part, float64(good)) + 1
}

// distance is the XOR distance as a part of the whole, from 0 to 1.
func distance(a, b []byte) (d float64) {
	scale := 1.0
	for i := range a[:8] {
		scale /= 256
		d += float64(a[i]^b[i]) * scale
	}
	return d
}
