// Package users says who may have an account: people in a file with hashes of their
// passwords, or in a directory that LDAP reaches.
package users

import (
	"context"
	"errors"
)

// User is somebody who may have an account.
type User struct {
	Name        string // as [jams.UserName] returns it
	DisplayName string
	Email       string
}

// What a source says when it does not say yes.
var (
	// ErrCredentials is the same for no such user, a wrong password and a user that
	// is disabled, and takes as long.
	ErrCredentials = errors.New("user or password is wrong")
	ErrUnavailable = errors.New("the users can't be asked")
	ErrBusy        = errors.New("too many passwords at once")
)

// Source is where users come from. Its methods are safe for concurrent use.
type Source interface {
	// Authenticate returns the user whose password this is.
	Authenticate(ctx context.Context, name, password string) (User, error)
	// Active reports whether devices of this user may go on. A source that can't
	// tell says yes: it is the revocation that ends an account for good.
	Active(name string) bool
}
