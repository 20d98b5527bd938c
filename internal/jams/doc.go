// Package jams is the REST interface by which Jami accounts are handed out and
// managed by a server of an organisation (dht-and-identity §5.3): the words that
// both sides use, and the client.
//
// # Requests
//
//	POST   /api/auth/device                 Basic, a CSR: a device of the user's account
//	POST   /api/login                       Basic: scope USER; TLS client certificate: scope DEVICE
//	POST   /api/auth/contacts               Bearer: merges contacts, returns all
//	GET    /api/auth/contacts               Bearer: returns all
//	GET    /api/auth/devices                Bearer: devices of the account
//	GET    /api/auth/directory/search       Bearer, ?queryString=: people
//	DELETE /api/auth/device/ID              Bearer of scope USER: revokes a device
//
// The client believes nothing: the chain is checked by internal/trust, receipt and
// announcement by internal/jami, and the certificate has to be of the key that the
// request was signed with.
package jams
