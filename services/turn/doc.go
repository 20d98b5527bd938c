// Package turn is a TURN and STUN server: it relays for browsers and Jami apps whose
// network lets nothing else through. It is a process of its own, `parley run turn`,
// that no node needs and that needs no bus; it shares a secret with the nodes that send
// their browsers here (package internal/turn).
//
// Sub-package: relay (the server).
package turn
