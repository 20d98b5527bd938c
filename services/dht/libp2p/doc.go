// Package libp2p implements an overlay with go-libp2p and go-libp2p-kad-dht, in a
// network of its own (protocol "/parley/kad/1.0.0"), apart from public ones.
//
// # How values are kept
//
// kad-dht keeps one record a key, so each writer has a record of its own, which
// holds all of its values under that key:
//
//	record key     /parley/<key, 40 hex>/<writer's peer id>
//	record         [body bin, signature bin]                    (msgpack)
//	body           [1, key bin 20, sequence, expiry ms, [[id, type, expiry ms, data]…]]
//	signature      of "parley-dht-record:" | body, by the writer's Ed25519 peer key
//	writers        provider records of the CID of SHA-256("parley-dht:" | key)
//
// A get finds the writers, then each one's record, from the 20 peers closest to
// it. A record replaces one with a lower sequence; one without values cancels.
//
// # Listening
//
// Kademlia has no push. A listener sees this node's own puts at once and asks
// for the others' every 2 s, backing off to 10 s while nothing changes.
//
// # What it does not do
//
// No public bootstrap, no mDNS, no relay, no AutoNAT, no hole punching: it speaks to
// the peers that it is given and those that they name.
package libp2p
