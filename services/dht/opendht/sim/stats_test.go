package sim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/dht/opendht/core"
)

// What a node says of the size of the network is right within a factor of three for
// nearly all, and on average within a third.
func TestEstimateOfTheNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	const size = 300
	n := New(7)
	nodes := n.Cluster(size, 200*time.Millisecond)
	var sum float64
	off := 0
	for _, x := range nodes {
		var s core.Snapshot
		x.Do(func() { s = x.Snapshot() })
		e := s.Tables[0].Estimate
		if sum += e; e < size/3 || e > size*3 {
			off++
		}
	}
	if mean := sum / size; mean < size*2/3 || mean > size*4/3 || off > size/50 {
		t.Errorf("on average %.0f of %d, %d are off", mean, size, off)
	}
}

// A bootstrap node answers or not whether or not the table has a place for it.
func TestBootstrapNodesAreReported(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	n := New(5)
	first := n.Cluster(20, 100*time.Millisecond)[0]
	gone := n.NextAddr()
	x := n.Add(nil)
	x.Do(func() { x.Bootstrap([]netip.AddrPort{first.Addr, gone}) })
	for range 3 {
		n.Run(10 * time.Minute)
		var s core.Snapshot
		x.Do(func() { s = x.Snapshot() })
		for _, b := range s.Asked {
			if b.Answers != (b.Addr == first.Addr) {
				t.Errorf("%+v", b)
			}
		}
	}
	n.Remove(first)
	n.Run(3 * time.Hour)
	x.Do(func() {
		if s := x.Snapshot(); s.Asked[0].Answers {
			t.Error("one that is gone answers")
		}
	})
}

// All that nodes send is counted once, by kind, and comes to nodes that count it.
func TestCountersAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	n := New(3)
	nodes := n.Cluster(30, 100*time.Millisecond)
	n.Run(20 * time.Second)
	var sent, received, dropped uint64
	for _, x := range nodes {
		s := x.Stats()
		sent += s.Sent
		received += s.Received
		dropped += s.Unusable + s.Malformed + s.Foreign + s.Own
		var in, out core.Traffic
		for i := range s.In {
			in.Packets, in.Bytes = in.Packets+s.In[i].Packets, in.Bytes+s.In[i].Bytes
			out.Packets, out.Bytes = out.Packets+s.Out[i].Packets, out.Bytes+s.Out[i].Bytes
		}
		if out.Packets != s.Sent || out.Bytes != s.SentBytes || in.Packets != s.Received || in.Bytes != s.ReceivedBytes {
			t.Errorf("%+v", s)
		}
	}
	if sent != n.Packets || dropped != 0 || received > sent || sent-received > n.Lost+50 { // some are on the way
		t.Errorf("sent %d of %d, received %d, dropped %d, lost %d", sent, n.Packets, received, dropped, n.Lost)
	}
}
