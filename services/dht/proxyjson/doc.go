// Package proxyjson is the JSON of OpenDHT's proxies (dht-and-identity §5.1), for the
// server and for clients: values, subscriptions, notices of push services, and what a
// node says of itself. It knows bytes only.
//
// A value, one object, sent on a line of its own:
//
//	id       decimal digits as a string; read as a number, too. "0" or none: the server chooses
//	type     number, 0 to 65535
//	data     base64 of the data; written only if there is some: OpenDHT 2.4.12 reads "" as two zero bytes
//	utype    user type, if there is one
//	prio     priority, if it is not 0
//	seq      number, 0 to 65535; of a signed value only
//	owner    of a signed value: its public key, SubjectPublicKeyInfo as PEM
//	sig      of a signed value: base64 of the signature
//	to       of a signed value: key id of the recipient, 40 hex digits, if there is one
//	cypher   of an encrypted value: base64 of the cipher text; only id and prio are beside it
//	expired  true when a listener is told of a value's end
//
// A put is a value to which permanent may be added: true, or a subscription that is told
// before the server stops to keep the value.
//
// Readers skip names that they don't know. What a signature covers is kept exactly.
package proxyjson
