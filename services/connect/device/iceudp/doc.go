// Package iceudp opens UDP paths between Jami devices with ICE (RFC 8445), for nodes that
// both know it and where TCP does not get through. What travels on a path are datagrams: they may
// get lost, be doubled or come in another order.
//
// One socket is for all connections that peers ask for; a node that asks has a socket of its own
// for each, so that the two addresses of a datagram always tell the connection that it is
// of. On a socket come, told by the first two bits, the cookie and the length (RFC 7983, RFC 5389 §6):
//
//	a check       its USERNAME names the connection, its MESSAGE-INTEGRITY proves that the sender
//	              knows the password, which travelled encrypted
//	an answer     its transaction is one that was begun here, its source where the check went
//	anything else goes to the connection whose path comes from there, or nowhere
//
// The one local candidate is the socket; the kernel chooses the address. So a pair
// (RFC 8445 §6.1.2) is an address of the peer's. The device that was asked for the connection is
// controlling; it nominates the first pair that works, once. After that each side asks for consent
// every five seconds, and the path ends when there was none for thirty (RFC 7675 §5.1).
package iceudp
