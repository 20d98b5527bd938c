// Package proxyclient implements an overlay for nodes without UDP: it speaks to an
// OpenDHT node through that one's HTTP proxy (dht-and-identity §5.1), Debian's "dhtnode
// --proxyserver PORT" or a node of ours. What a value is there says package
// opendht/mapping; its JSON, package proxyjson.
//
//	GET  /node/info       is the proxy well, and how many peers has it
//	GET  /key/K           what is there, one value a line
//	GET  /key/K/listen    what is there and every change, one value a line, without end
//	POST /key/K           put a value, for as long as its type lives or for 24 h
//
// # What the proxy is trusted with
//
// Nothing but to carry values. The node signs, verifies and encrypts as in any overlay;
// signed values that don't verify, and certificates of another key, are dropped. A proxy
// can keep values back, show old ones, say that one has ended, and show values of one key
// under another, as any node of the network can. It alone sees which keys this node asks
// for; with http:// who is on the way does, too. What it sends is bounded: the length of a
// line and the time that it takes, the lines a second, the values and bytes of a key.
// Redirects are not followed. A stock proxy that has an identity of its own (dhtnode -i)
// keeps back all encrypted values but those for itself.
//
// # Several proxies
//
// One is used at a time, the first in the list that answers /node/info with its node_id
// and knows a peer; if none knows any, the first that answers. It stays until it fails;
// the next takes its place, and after a round in vain the node tries again after a time
// that grows. A request that a proxy does not take goes to the others at once.
//
// # What the API does not have
//
//   - No age: Expires is a lifetime from when a value was last seen, at most.
//   - No end of a put that is permanent: it is kept for 24 h, and put again every 22 h, and
//     whenever the proxy was away, is another, or is another node than before. Cancel puts
//     the value that says it is gone, for what this node signed; any other is put once
//     more, not permanently (for stock "permanent": false is true), at which the proxy stops
//     to keep it and it ends with its lifetime. That goes to every proxy that was asked to
//     keep it, also to one that refused, since stock notes a permanent value before it puts
//     it; it is tried for as long as the value lives. A proxy that is away for so long, that
//     a process before this one asked, or a stock one that starts anew with its state (dhtnode
//     -f) keeps the value for its 24 h.
//   - No word of how many peers took a value: Stored.Peers is 1 for a proxy that said so.
//     A put that fails is tried again until its value has expired.
//   - No word of what a listener missed: after a reconnect what is there is asked for, and
//     what is twice not there has ended. It is asked for from time to time anyway, since stock
//     proxies don't always tell listeners that a value was replaced.
package proxyclient
