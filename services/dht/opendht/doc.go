// Package opendht implements an overlay with OpenDHT's own protocol, so that the node
// takes part in the network that Jami's stock clients use. Package core is the
// protocol, package wire its packets, package sim a network of thousands in a test,
// package mapping what a value of the overlay is on that wire.
//
// The node's id on the wire follows from its signing key, as everywhere in Jami: SHA-1 of
// "node:" and the key id (§2).
package opendht
