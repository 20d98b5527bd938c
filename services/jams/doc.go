// Package jams is a server that hands out the Jami accounts of an organisation and
// revokes them (dht-and-identity §5.3). It is a process of its own, `parley run
// jams`, that no node needs and that needs no bus.
//
// An account is made when its user first logs in: its key stays here, its
// certificate is issued by the organisation's authority, and devices get theirs for
// the key that each made for itself. Who is a user is said by a file or by LDAP.
//
// Sub-packages: ca (the authority), store (the file), users (who may log in), api
// (HTTP).
package jams
