// Package names is a name server of Jami's kind: it says which account a name
// stands for. It is a process of its own, `parley run names`, that no node needs
// and that needs no bus.
//
// A name belongs to the account that signed it first, and an account has one
// name; both for good, since whoever looked a name up remembers the account.
//
// Sub-packages: store (the file), api (HTTP).
package names
