// Package turnclient allocates relays on TURN servers for the node itself: over UDP for media
// (RFC 8656), and of TCP for connections between devices (RFC 6062). Who sends to whom is its
// callers' affair.
//
// Servers are tried in the order in which they are named, the one that served last first. An
// allocation is kept alive, and is looked at every half minute: what is gone, since the server
// was started anew, say, ends and tells so.
package turnclient
