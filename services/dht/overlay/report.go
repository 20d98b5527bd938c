package overlay

import (
	"context"
	"net/netip"
	"time"
)

// Report is the state of one overlay. What an overlay does not know is zero or missing.
type Report struct {
	Overlay   string
	ID        string // of the key that signs what the node puts
	NodeID    string // in routing tables; empty: ID, or none
	Network   uint32 // 0: the public one
	Addresses []string
	Public    []netip.Addr // as most others see this node
	Started   time.Time
	Bootstrap []BootstrapNode
	Tables    []Table
	Store     Store
	Searches  int // that something waits for
	Requests  int // without an answer yet
	Puts      int // values that this node puts
	Listens   int // keys that this node listens to
	Traffic   []Traffic
	Dropped   []Count   // packets that came and were dropped, by reason
	Events    []Count   // other counters
	Proxies   []Proxy   // by which the network is reached, the preferred first; none: it is reached directly
	Since     time.Time // when Proxies last became what they are: one in use, another, or none
	Peers     int       // that the proxy in use knows
}

// Proxy is one by which the network is reached.
type Proxy struct {
	URL     string
	InUse   bool
	Answers bool // when it was last asked
}

// BootstrapNode is a node to start from, as the settings name it or by its address.
type BootstrapNode struct {
	Addr    string
	Answers bool
}

// Table is the routing table of one family of addresses, or of all of them.
type Table struct {
	Family   string // "ipv4", "ipv6", or "all"
	Good     int
	Dubious  int // not heard of for long
	Failed   int // did not answer
	Incoming int // of the good ones: have this node in their tables, as far as it shows
	Buckets  []Bucket
	Estimate float64 // nodes of the network
}

// Depth is how many leading bits the fullest known neighbourhood shares with this node.
func (t *Table) Depth() int { return max(len(t.Buckets)-1, 0) }

// Bucket is one part of a table, by the leading bits that are shared.
type Bucket struct {
	Good, Dubious, Failed int
}

// Store is what is kept for others, and who listens to it.
type Store struct {
	Keys, Values int
	Bytes, Quota int
	Own          int // values of this node
	Listeners    int
}

// Traffic counts packets of a kind. An overlay over streams counts bytes alone.
type Traffic struct {
	Kind          string
	In, InBytes   uint64
	Out, OutBytes uint64
}

// Count is a counter with a name of a closed set.
type Count struct {
	Name string
	N    uint64
}

// Reporter is an overlay that tells of its state.
type Reporter interface {
	// Reports returns one report for each network that the overlay takes part in. It is
	// safe for concurrent use.
	Reports() []Report
}

// Pong is the answer of one node.
type Pong struct {
	Addr     netip.AddrPort
	ID       string
	Agent    string     // program, as it says
	Seen     netip.Addr // address under which it sees this node
	Time     time.Duration
	Sendings int // how often the question was sent
}

// Walk bounds a scan.
type Walk struct {
	Nodes int // found, at most
	Rate  int // questions a second, at most
}

// Walked is what a scan found.
type Walked struct {
	Nodes    []Pong // that answered, with Seen and Time
	Silent   int    // that were named and did not answer
	Asked    int    // questions
	Whole    bool   // there was nobody left to ask
	Took     time.Duration
	Estimate float64
}

// Prober is an overlay that asks single nodes.
type Prober interface {
	// Ping asks the node at "host:port"; [ErrSilent] when none of its addresses answers
	// until ctx ends, another error when there is no such address.
	Ping(ctx context.Context, hostport string) (Pong, error)
	// Scan asks the nodes of the routing table for others, and those again, until nobody
	// is left, ctx ends or a bound is met.
	Scan(ctx context.Context, w Walk) (Walked, error)
}
