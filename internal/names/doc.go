// Package names is what the name servers of Jami speak: a name stands for an
// account, and who asks can check that the account itself said so. It has the
// client and the forms that client and server share.
//
// # Requests (dht-and-identity §5.2)
//
//	GET  /name/NAME   who has the name
//	GET  /addr/ID     which name the account has
//	POST /name/NAME   register it
//
// # Fields of a reply and of a registration, all text in one JSON object
//
//	name       the name
//	addr       the account's Jami Id: 40 hex digits, 0x before them is allowed
//	publickey  base64 of the account's public key, PEM; a NUL may end it
//	signature  base64 of RSA PKCS#1 v1.5 with SHA-512 over the name in lower case
//	owner      the account's Ethereum address, 40 hex digits; only in a registration
//	success    true, in the reply to a registration
//
// A name is 3 to 32 of a-z, 0-9, - and _; capital letters are the small ones.
// NAME@HOST is a name at another server.
//
// # What is checked
//
// Of a reply that has both publickey and signature: the key's id is addr, and
// the signature is over the name that was asked for. A reply without them is
// taken as it is, as stock Jami does, and its record says that it is not verified.
package names
