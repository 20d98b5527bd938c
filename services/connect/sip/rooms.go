package sip

import "context"

// Face is what a caller may know of a room before the call.
type Face struct {
	Exists bool
	Auth   bool // digest authentication is asked for
}

// Call is a caller who wants to enter a room.
type Call struct {
	ID       string // participant id, chosen by the server
	Name     string
	Room     string
	Offer    string // SDP, empty for a late offer (RFC 3261 §13.2.1)
	Source   string // IP of the caller
	JamiID   string // of the account whose device called, 40 hex; empty: a stranger
	Device   string // long id of the device that called on a channel, 64 hex; empty: a phone
	Verified bool   // the digest was right
	Unproved bool   // Source may be forged, until Confirm
	By       string // who calls, where the node does; Enter gives an offer then
	Jami     bool   // that offer is for Jami devices, one of which will answer
	Signalled
}

// Signalled is what the signalling of a call comes over.
type Signalled struct {
	Over          string // "udp", "tcp", "tls", or "channel" of a Jami device, "channel/udp" by UDP
	Local, Remote string // addresses and ports
	TLS, Suite    string // version and cipher suite; empty: without TLS
}

// Change is a new offer of a participant, or the answer to ours.
type Change struct {
	Room   string
	ID     string
	Source string // IP of the caller now
	SDP    string
	Answer bool
	Was    string // the room's SDP that the far end has, where the leg is made again
	Device string // long id of the device that took a call of ours

	Signalled Signalled // of whom took a call of ours
}

// Rooms is where calls go. Its errors are turned into SIP statuses by
// [Config].Status. Methods may be called concurrently.
type Rooms interface {
	Face(ctx context.Context, room string) (Face, error)
	// Secrets returns H(room ":" realm ":" PIN) for MD5 and SHA-256, hex.
	Secrets(ctx context.Context, room, realm string) (md5, sha256 string, err error)
	// Enter returns the SDP answer, or an offer when Call.Offer is empty.
	Enter(ctx context.Context, c Call) (sdp string, err error)
	// Negotiate brings an offer, which is answered, or the answer to our offer.
	Negotiate(ctx context.Context, c Change) (string, error)
	// Confirm says that the caller is where Call.Source says.
	Confirm(ctx context.Context, room, id string) error
	Leave(ctx context.Context, room, id, reason string) error
	// Again is told of a call of a Jami device that the last process let in. An error ends it.
	Again(ctx context.Context, c Call) error
}
