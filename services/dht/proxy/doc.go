// Package proxy serves an overlay by HTTP, as OpenDHT's proxies do (dht-and-identity
// §5.1): for clients that are not to, or can't, take part in it themselves.
//
//	GET /, /node/info                what the node knows of the network; the client's address
//	GET /node/stats                  what is served
//	GET /K, /key/K                   the values of a key, one a line, as they are found
//	GET /key/K/listen (or LISTEN)    those, and each change, until the client goes
//	POST /K, /key/K                  put a value, for its lifetime, or permanently
//	SUBSCRIBE /key/K                 be told of changes by a push service, for a day
//	UNSUBSCRIBE /key/K               no longer
//	POST /node/pingPush              push once, so that a client sees that it arrives
//	OPTIONS                          what a browser asks before (CORS)
//
// K is 40 hex digits, or any other text, whose SHA-1 is the key. Errors are
// {"err": words} with 400, 429 (too much from one address), 502 (a value could not be
// stored), 503 or 500.
//
// What is permanent is kept for a day, and so is a subscription, unless the client asks
// again; two hours before the end it is told by its push service. Both outlive the
// process, in a file that is written a moment after each change; a change that came
// while no process ran is told after the start.
//
// A signed value's signature is verified before it is put. Of values put here one id of a
// key is one value: another may replace it where OpenDHT's nodes would let it (§1.7).
//
// One listener of the overlay serves all who watch a key (feeds). Lock order: a feed's
// lock, then the proxy's.
package proxy
