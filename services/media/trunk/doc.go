// Package trunk joins the media workers that mix one room. Each sends the packets of its own
// loudest speakers, as they came, to the others, and mixes theirs as those of members: so
// what a worker does for a room depends on how many are heard, not on how many are there.
//
// A datagram is
//
//	8 bytes   session: which room with which peer, the first byte 0xC0 (free in RFC 7983)
//	SRTP      AEAD_AES_128_GCM (RFC 7714), one stream a session
//
// with these elements of RFC 8285 (two-byte form), since the stream's own sequence number
// is the session's:
//
//	1   level and voice as in RFC 6464, sequence number and SSRC of the speaker's stream
//	2   the speaker's participant id
//
// Keys come from an X25519 exchange of the two processes by HKDF (RFC 5869); the private halves
// live in memory and end with their process. The names, starts and public halves are told over
// the bus, which says who is a worker; no secret crosses it.
package trunk
