// Package identity is the process that holds the account: its keys,
// certificates, settings and the list of bots.
//
// Promises: the bytes of a private key leave this process neither over the bus
// nor in a log; others have digests signed and cipher texts opened, each caller
// only what [policy] names. A password, and the archive with the account's key,
// are on the bus only encrypted to this process or to who asked. A damaged account
// directory is never overwritten: the process stays up, not ready, and IdentityGet
// says what is wrong.
//
// Sub-packages: account (the directory in Jami's format), bots (the list of
// bots). Neither knows the bus.
package identity
