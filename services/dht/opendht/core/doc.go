// Package core is one node of OpenDHT's network as a state machine: packets and the
// time go in, packets and calls back come out. It has no socket, goroutine, lock or
// clock, so that thousands of nodes run in one test, the same way for the same seed.
// Facts: dht-and-identity §1.
//
// # Use
//
// A [Core] belongs to one goroutine. Call [Core.Handle] for every datagram, and
// [Core.Advance] at the time that the last Advance named and before any other method,
// which use the time of the last Advance. Functions that are handed in are called from
// Handle and Advance only, except Config.Send, which every method may call; they may
// call the Core.
//
// # Parts
//
//	table.go     nodes that answer, by distance: good, dubious, expired
//	request.go   queries of ours: three sendings, matched by transaction and address
//	fragment.go  values that are larger than a packet, both ways
//	server.go    answers to others' queries
//	storage.go   others' values: policies, quotas, expiry
//	listeners.go who is told of changes to them
//	search.go    the look-up that get.go, put.go and listen.go ride on
//	upkeep.go    bootstrap, buckets, handing values on to new neighbours
//	guard.go     limits on strangers
//
// # Strangers
//
// An address is proven once it answered a query of ours or brought a token that it was
// given. Until then it gets at most [amplification] times the bytes that it sent: node
// lists are cut, and an answer with values is held until the address answers a ping,
// which is sent at once. Values that come in fragments take memory only once the token,
// the listener or the query that they belong to is known. A reply counts only from the
// address that was asked, with its transaction and node id.
package core
