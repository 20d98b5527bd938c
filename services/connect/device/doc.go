// Package device keeps the connections between the node's accounts and the devices of Jami
// accounts (connect-and-calls §1): it answers the requests of devices that want one, asks
// devices for one, and hands out the channels on them.
//
//	request    a message of package request comes or goes, through the overlay
//	icetcp     both sides connect by TCP
//	secure     TLS 1.3, in which each shows the chain that the exchange named
//	mux        channels on that
//
// The device that was asked is the controlling one of ICE, and the client of TLS. Nobody is
// told that a request is refused, as with stock.
//
// Two nodes offer each other UDP too, in a part of the request that stock passes over. It is tried a
// little later than TCP, whichever path is there first is taken:
//
//	iceudp     both sides find a path by UDP
//	secure     DTLS 1.2, with the same proof; the device that was asked is the server
//	streams    an SCTP stream for each channel, in place of mux's framing
//
// Who may connect is asked at the request, at the handshake, and while the connection is
// there: it ends at once when the device is revoked or the account banned.
package device
