// Package overlay says what the dht service needs of a distributed hash table.
// Package libp2p implements it over Kademlia, opendht over OpenDHT's own wire, and
// proxyclient over the HTTP of OpenDHT's proxies.
//
// A key holds any number of values. A value is told apart by its writer and its
// id, lives for the time that its type has ([Lifetime]) and is opaque here: what is
// signed or encrypted travels as a packed OpenDHT value (dht-and-identity §1.4).
package overlay

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Errors of overlays.
var (
	ErrTooLarge = errors.New("the value is too large")
	ErrQuota    = errors.New("too many values are stored")
	ErrClosed   = errors.New("the overlay is closed")
	// ErrRefused: a value that nobody would keep, such as one whose signature does not
	// verify, or that may not replace the one that has its id.
	ErrRefused = errors.New("the value is refused")
	// ErrSilent: a node that was asked did not answer.
	ErrSilent = errors.New("no answer")
	// ErrUnreachable: nothing of the overlay answers.
	ErrUnreachable = errors.New("the overlay is out of reach")
)

// MaxValue bounds the data of one value, in bytes (§1.4).
const MaxValue = 64 << 10

// MaxSigned is what every overlay takes of data that it signs itself: the rest of
// OpenDHT's 64 KiB is for the signature.
const MaxSigned = 63 << 10

// Key is where values are stored.
type Key [20]byte

// Value is one value. Writer is set by the overlay.
type Value struct {
	Key     Key
	ID      uint64 // 0 in Put: chosen by the overlay
	Type    uint16
	Data    []byte
	Writer  string
	Expires time.Time
	// Packed is the OpenDHT value that this one was read from, nil where it was read
	// from something else; Put has no use for it.
	Packed []byte
}

// Stored is what became of a put.
type Stored struct {
	Value Value
	// Peers is how many peers were asked to keep it. 0: no peer is known, or not all
	// answered in time; this node keeps it, answers for it, and hands it on as soon as
	// it can.
	Peers int
}

// Change is a value that appeared or was changed, or one that expired or was
// cancelled.
type Change struct {
	Value   Value
	Expired bool
}

// Node describes this node.
type Node struct {
	Overlay   string
	ID        string
	Addresses []string
	Public    []netip.Addr // under which most others see this node, one a family at most
	Peers     int          // in the routing table
	Stored    int          // own values
}

// Overlay is one node of a distributed hash table. It is safe for concurrent
// use.
type Overlay interface {
	// Put stores a value until it expires, or, when it is permanent, until it is
	// cancelled; one of the same key and id is replaced.
	Put(ctx context.Context, v Value, permanent bool) (Stored, error)
	// Restore takes in permanent values that a process before this one put, and
	// waits for nobody; the error tells of those that it could not take.
	Restore(vs []Value) error
	// Cancel removes a value that this node put; false when there was none.
	Cancel(ctx context.Context, key Key, id uint64) bool
	// Get returns the values of a key that are found until ctx ends.
	Get(ctx context.Context, key Key) ([]Value, error)
	// Listen returns what is there and calls fn, from one goroutine, for every
	// change after that, until stop is called or the overlay is closed. stop
	// waits for a call of fn that runs, so fn may not call it.
	Listen(ctx context.Context, key Key, fn func(Change)) (now []Value, stop func(), err error)
	Node() Node
	// Close ends everything and waits for it.
	Close() error
}

// lifetimes are OpenDHT's (§1.7).
var lifetimes = map[uint16]time.Duration{
	0: 10 * time.Minute,   // user data
	1: 5 * time.Minute,    // DhtMessage
	2: 15 * time.Minute,   // IpServiceAnnouncement
	3: 5 * time.Minute,    // ImMessage
	4: 7 * 24 * time.Hour, // TrustRequest
	5: time.Minute,        // IceCandidates
	8: 7 * 24 * time.Hour, // Certificate
}

// MaxLifetime is the longest of any type.
const MaxLifetime = 7 * 24 * time.Hour

// Lifetime returns how long a value of a type lives; an unknown type lives as
// long as user data.
func Lifetime(typ uint16) time.Duration {
	if d, ok := lifetimes[typ]; ok {
		return d
	}
	return lifetimes[0]
}
