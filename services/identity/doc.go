// Package identity is the process that holds the account: its keys,
// certificates, settings and the list of bots.
//
// Promises: the bytes of a private key leave this process neither over the bus
// nor in a log; others have digests signed and cipher texts opened, each caller
// only what [policy] names. An account directory is never changed but by
// AccountSet, and a damaged one is never overwritten: the process stays up, not
// ready, and IdentityGet says what is wrong.
//
// Sub-packages: account (the directory in Jami's format), bots (the list of
// bots). Neither knows the bus.
package identity
