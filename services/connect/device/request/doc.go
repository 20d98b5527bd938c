// Package request is the message with which a Jami device asks another one for a connection,
// and the one that answers (connect-and-calls §1.1, §1.2). It travels as an encrypted value
// of the overlay, at the key "peer:" of the recipient.
//
// The message is a msgpack map:
//
//	id        uint64  1 to 2^53, random; the answer has the same; never used again
//	ice_msg   str     see below
//	isAnswer  bool
//	connType  str     a hint of what it is for; empty in answers
//	udp       str     as ice_msg, with credentials of its own: a connection over UDP is offered
//	                  too. Only in answers to requests that have it
//
// Stock's reader passes over keys that it does not know, as udp.
//
// ice_msg is lines of text:
//
//	<ufrag>
//	<pwd>
//	<foundation> <component> <TCP|UDP> <priority> <ip> <port> typ <host|srflx|prflx|relay>[ tcptype <active|passive|so>]
//
// Stock's reader passes over a candidate that it doesn't understand; so does this one, and
// over those of other components, in ice_msg of UDP and in udp of TCP. What has no
// credentials, or more than a device ever sends, is refused.
package request
