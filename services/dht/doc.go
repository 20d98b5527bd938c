// Package dht is the process that takes part in a distributed hash table for the
// node: it puts, gets and watches values, announces the account's device and says
// who is online.
//
// Keys on the bus are 40 hex digits; any other text is hashed with SHA-1
// (dht-and-identity §5.1). Data is opaque; signed and encrypted values are packed
// OpenDHT values.
//
// Permanent values of the bus's users outlive this process: they are in
// DATA/dht/permanent.json before the put is acknowledged. The node's key is in
// DATA/dht/node.key. Either file damaged: the process stays up, not ready, and
// answers its commands with "state_damaged"; neither is overwritten.
//
// Sub-packages: overlay (what a hash table has to do), libp2p (one that does),
// permanent (the file). None knows the bus.
package dht
