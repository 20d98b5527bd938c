// Package wire is OpenDHT's packets as bytes (dht-and-identity §1.1–1.5): one msgpack
// map a datagram. It knows no socket, clock or log.
//
//	key   where             content
//	y     all               "q" query, "r" reply, "e" error, "p" fragment
//	t     all               transaction id, uint32; 4 bytes big-endian are read too
//	v     but fragments     agent
//	n     optional          network, uint32, left out when 0
//	s     optional          the sender is a client: not for routing tables
//	q     queries           ping find get put listen refresh update
//	a, r  queries, replies  arguments, results
//	e     errors            [code, text]
//	p     fragments         {index: {o: offset, d: at most 1280 bytes}}
//
// Names in a and r: id (20 bytes, in all), h or target (20), w (families: 2, 10), q
// (select and where), token (at most 64), vid, n4 (26 bytes a node), n6 (38), c
// (creation, unix s), sa (observed address, 4 or 16), values, exp, re, fileds, sid, ve.
//
// [Decode] allocates nothing for any packet: what it returns points into it, and
// lists are checked once and read where they are ([Array]).
package wire
