// Package gitwire is Git's smart protocol, version 0, as Jami's devices speak it on the channel
// git://DEVICE/CONVERSATION (swarm §3): who opened the channel asks, the other serves; nobody
// pushes. It knows bytes alone: no repository, no network.
//
//	client   git-upload-pack /CONVERSATION\0host=DEVICE\0
//	server   OID HEAD\0capabilities\n, OID refs/heads/main\n, flush
//	client   want OID capabilities\n, flush, have OID\n …, done\n
//	server   ACK OID\n or NAK\n, the pack on side band 1, flush
//	client   flush, or the next request
//
// A stock daemon of version 13.7 reads each message of the channel by itself: every write here is
// of whole pkt-lines. Its server takes one want, the last, and the first have for common;
// its client takes an ACK with "continue", and NAKs beside it, for what they are.
//
// What a peer sends is bounded before it is kept: lines, references, bytes of the pack, objects
// in it, bytes of one object and of all.
package gitwire

import "errors"

// Errors of a peer.
var (
	ErrWire  = errors.New("not Git's protocol as devices speak it")
	ErrPack  = errors.New("not a pack that is taken")
	ErrLarge = errors.New("the peer sends more than is taken")
)

// Main is the branch that a conversation has (swarm §1.1).
const Main = "refs/heads/main"

// Limits are of what a peer may send.
type Limits struct {
	Pack    int64 // bytes as sent
	Objects int
	Object  int64 // bytes of one
	All     int64 // bytes of all objects
}

// Bounds of what is said before a pack.
const (
	maxRefs  = 4096
	maxHaves = 256 // that are sent
	maxAsked = 64 << 10
)
