// Package mux shares one connection between two Jami devices among channels
// (connect-and-calls §2). Between nodes, over UDP, a [Transport] carries their messages; else on the
// connection is a stream of msgpack objects, each an array of
//
//	channel  uint16  0 control, 0xffff protocol, else a channel
//	data     bin     at most 65535 bytes; empty: the channel ends, in both directions
//
// Data of control and protocol is one or more msgpack objects:
//
//	[name str, channel uint16, state int]   state 0 request, 1 accept, 2 decline
//	{"v": 1}                                version, which each side sends first
//	{"p": true}, {"p": false}               beacon, and its answer
//
// Nothing on the wire says how much a side may send. What a channel's reader leaves is kept
// up to a bound; then the connection is not read for a while, which holds the peer back;
// then the channel is cut, since beacons have to be answered. A peer that does not read
// what it is sent loses the connection.
package mux
