package proxyjson

import (
	"fmt"

	"github.com/parley-jami/parley/internal/jami"
)

// MaxKey bounds a key that is given as a text, in bytes.
const MaxKey = 1024

// ParseKey reads a key: 40 hex digits, or any other text, whose SHA-1 it is.
func ParseKey(text string) (jami.ID, error) {
	if text == "" || len(text) > MaxKey {
		return jami.ID{}, fmt.Errorf("%w: a key is 40 hex digits or a text of at most %d bytes", ErrField, MaxKey)
	}
	if id, err := jami.ParseID(text); err == nil {
		return id, nil
	}
	return jami.HashKey(text), nil
}

// Table says what a node knows of the network by one family of addresses. A client is
// connected where Good is not 0, and is connecting where Dubious is not.
type Table struct {
	Dubious  int `json:"dubious"`
	Good     int `json:"good"`
	Incoming int `json:"incoming"`
	Depth    int `json:"table_depth,omitempty"`
	Size     int `json:"network_size_estimation,omitempty"`
}

// NodeInfo is the answer to GET /node/info. A client takes one without NodeID for a
// failure.
type NodeInfo struct {
	ID     string `json:"id,omitempty"` // of the server's identity, if it has one
	IPv4   Table  `json:"ipv4"`
	IPv6   Table  `json:"ipv6"`
	NodeID string `json:"node_id"`
	Ops    int    `json:"ops"`
	// PublicIP is the client's address as the server sees it, an IPv4 one mapped to IPv6.
	PublicIP string `json:"public_ip,omitempty"`
	// VAPID is the key that browsers subscribe with to a server of ours (RFC 8292): a
	// point of P-256 in base64url.
	VAPID string `json:"vapid,omitempty"`
}

// NodeStats is the answer to GET /node/stats.
type NodeStats struct {
	Listens     int      `json:"listenCount"`
	Node        NodeInfo `json:"nodeInfo"`
	PushListens int      `json:"pushListenersCount"`
	Puts        int      `json:"putCount"`
	RequestRate float64  `json:"requestRate"` // per second
	Permanent   int      `json:"totalPermanentPuts"`
}

// Marshal returns the answer.
func (n NodeInfo) Marshal() ([]byte, error) { return marshal(n) }

// Marshal returns the answer.
func (n NodeStats) Marshal() ([]byte, error) { return marshal(n) }

// ParseNodeInfo reads an answer.
func ParseNodeInfo(b []byte) (*NodeInfo, error) {
	n := new(NodeInfo)
	if err := unmarshal(b, n); err != nil {
		return nil, err
	}
	if n.NodeID == "" {
		return nil, fmt.Errorf("%w: without node_id", ErrField)
	}
	return n, nil
}
