package contract

import "time"

// DHTStats is what the dht process knows of its place in the networks.
type DHTStats struct {
	Overlays []DHTOverlay `json:"overlays"`
	Leases   int          `json:"leases"` // keys that the bus listens to
	// Warnings say to a person what is wrong and what to do about it; empty: all is well.
	Warnings []string `json:"warnings,omitempty"`
}

// DHTOverlay is the state of one overlay. Counters are since Started.
type DHTOverlay struct {
	Overlay   string         `json:"overlay"`           // "libp2p", "opendht" or "proxy"
	ID        string         `json:"id"`                // of the key that signs what the node puts
	NodeID    string         `json:"node_id,omitempty"` // of OpenDHT: as in other nodes' routing tables
	Network   uint32         `json:"network"`           // 0: the public one
	Addresses []string       `json:"addresses"`
	Public    []string       `json:"public"` // addresses under which most others see this node
	Started   time.Time      `json:"started"`
	Bootstrap []DHTBootstrap `json:"bootstrap"`
	Tables    []DHTTable     `json:"tables"`
	Store     DHTStore       `json:"store"`
	Searches  int            `json:"searches"` // that something waits for
	Requests  int            `json:"requests"` // that wait for an answer
	Puts      int            `json:"puts"`     // values that this node puts
	Listens   int            `json:"listens"`  // of this node, by node that is asked
	Traffic   []DHTTraffic   `json:"traffic"`
	Dropped   []DHTCount     `json:"dropped"` // packets that came and were dropped, by reason
	Events    []DHTCount     `json:"events"`
	Via       *DHTVia        `json:"via,omitempty"` // of "proxy": by whom it reaches the network
}

// DHTBootstrap is a node to start from.
type DHTBootstrap struct {
	Addr    string `json:"addr"`
	Answers bool   `json:"answers"`
}

// DHTTable is the routing table of one family of addresses.
type DHTTable struct {
	Family   string      `json:"family"`   // "ipv4", "ipv6"; "all" where the overlay does not tell them apart
	Good     int         `json:"good"`     // nodes that answer
	Dubious  int         `json:"dubious"`  // that were not heard of for long
	Failed   int         `json:"failed"`   // that did not answer
	Incoming int         `json:"incoming"` // of the good ones: asked this node since they last answered
	Depth    int         `json:"depth"`    // buckets less one
	Estimate float64     `json:"estimate"` // nodes of the network, roughly
	Buckets  []DHTBucket `json:"buckets"`  // bucket i shares i leading bits with this node's id, the last one more
}

// DHTBucket is the fill of one bucket.
type DHTBucket struct {
	Good    int `json:"good"`
	Dubious int `json:"dubious"`
	Failed  int `json:"failed"`
}

// DHTStore is what this node keeps for others, and its own values.
type DHTStore struct {
	Keys      int `json:"keys"`
	Values    int `json:"values"`
	Bytes     int `json:"bytes"` // of others' values
	Quota     int `json:"quota"` // of Bytes
	Own       int `json:"own"`
	Listeners int `json:"listeners"` // others that listen here
}

// DHTTraffic counts packets of a kind; an overlay over streams counts bytes alone.
type DHTTraffic struct {
	Kind     string `json:"kind"`
	In       uint64 `json:"in"`
	InBytes  uint64 `json:"in_bytes"`
	Out      uint64 `json:"out"`
	OutBytes uint64 `json:"out_bytes"`
}

// DHTCount is a counter.
type DHTCount struct {
	Name string `json:"name"`
	N    uint64 `json:"n"`
}

// DHTPing asks for a sign of life of the node at "host:port" of OpenDHT.
type DHTPing struct {
	Addr string `json:"addr"`
}

// DHTPong is its answer.
type DHTPong struct {
	Addr     string  `json:"addr"`
	ID       string  `json:"id"`
	Agent    string  `json:"agent"` // program, as it says
	Seen     string  `json:"seen"`  // address under which it sees this node
	TimeMs   float64 `json:"time_ms"`
	Sendings int     `json:"sendings"` // 2: the first packet, or its answer, was lost
}

// DHTScan asks for a walk through OpenDHT's network. One runs at a time.
type DHTScan struct {
	Seconds int `json:"seconds"` // 1 to 120
	Nodes   int `json:"nodes"`   // found, at most; 1 to 50000
	Rate    int `json:"rate"`    // packets a second, 1 to 1000
	// List has the nodes in the answer, up to 5000.
	List bool `json:"list"`
}

// DHTScanned is what a walk found.
type DHTScanned struct {
	Found    int              `json:"found"`  // nodes that answered
	Silent   int              `json:"silent"` // that were named and did not answer
	Asked    int              `json:"asked"`  // questions
	Whole    bool             `json:"whole"`  // nobody was left to ask
	TookMs   int64            `json:"took_ms"`
	Estimate float64          `json:"estimate"` // of the network, from this node's table
	Families []DHTCount       `json:"families"`
	Agents   []DHTCount       `json:"agents"` // programs, as they say
	Nodes    []DHTScannedNode `json:"nodes,omitempty"`
}

// DHTScannedNode is one node that answered.
type DHTScannedNode struct {
	ID     string  `json:"id"`
	Addr   string  `json:"addr"`
	Agent  string  `json:"agent"`
	TimeMs float64 `json:"time_ms"`
}

// The subjects of an operator's look at dht.
var (
	DHTStatsGet = query[None, DHTStats]("dht", "dht.stats", "node.dht.stats", "routing tables, stored values, searches and traffic", "")
	DHTPingCmd  = query[DHTPing, DHTPong]("dht", "dht.ping", "node.dht.ping", "ask a node of OpenDHT for a sign of life", "")
	DHTScanCmd  = query[DHTScan, DHTScanned]("dht", "dht.scan", "node.dht.scan", "walk through OpenDHT's network", "")
)
