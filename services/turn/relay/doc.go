// Package relay is a TURN server: TURN over UDP, TCP and TLS (RFC 8656), IPv4 and IPv6
// relays (RFC 6156 is part of it), TCP relays (RFC 6062) and STUN Binding (RFC 8489).
// The protocol is pion/turn's; what is here decides who gets what:
//
//	auth.go    who: short-lived and lasting credentials
//	peers.go   to where: never private networks or this machine, unless allowed
//	book.go    how many: reservations, running allocations, their log lines
//	gate.go    what of a stranger's datagrams is answered at all
//	conns.go   how long a TCP connection may stay without a credential
//	ports.go   relay sockets within a range of ports
//	pipe.go    bandwidth and bytes of one allocation
//
// Lock order: none; no lock is held while another is taken.
package relay
