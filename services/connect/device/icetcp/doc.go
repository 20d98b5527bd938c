// Package icetcp opens TCP connections between Jami devices with ICE (RFC 6544, RFC 8445) as
// stock's pjnath speaks it (connect-and-calls §1.4). One listening port serves all connections
// of a process: which one a peer means, the first check on it says.
//
// All that travels on the TCP connection is in frames (RFC 4571):
//
//	length   uint16, big endian, 1 to 65535
//	payload  a STUN message, or bytes of the stream
//
// A frame with a STUN message is told by its first two bits, its cookie and its length
// (RFC 5389 §6); a TLS record, which is what the stream carries, begins with 20 to 23.
//
// The device that was asked for the connection is controlling. Both send their checks on
// each TCP connection: who opened it first, the other one when that came. The
// controlling side nominates once (RFC 8445 §8.1.1). Where there is a relay on a TURN server
// (RFC 6062), peers are told of it too, and connect to it; in the connection that comes of it are
// the same frames.
package icetcp
