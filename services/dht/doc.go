// Package dht is the process that takes part in a distributed hash table for the
// node: it puts, gets and watches values, announces the account's device and says
// who is online.
//
// Keys on the bus are 40 hex digits; any other text is hashed with SHA-1
// (dht-and-identity §5.1). Data is opaque; signed and encrypted values are packed
// OpenDHT values.
//
// Permanent values of the bus's users outlive this process: they are in
// DATA/dht/permanent.json before the put is acknowledged. The node's keys are in
// DATA/dht/node.key (libp2p) and DATA/dht/opendht.key. A file damaged: the process stays
// up, not ready, and answers its commands with "state_damaged"; none is overwritten.
//
// It listens at the Jami Ids of the accounts' contacts and tells who of them comes online and
// goes offline; see package presence. 512 are followed, of all accounts.
//
// The setting dht.overlay says which hash table it is, or both at once, or whose proxies
// are asked. Sub-packages: overlay (what one has to do), libp2p, opendht and proxyclient
// (three that do), both (two as one), presence (who is online),
// permanent (the file), and for clients by HTTP, when
// dht.proxy_listen is set, proxy, proxyjson and push. None knows the bus.
package dht
