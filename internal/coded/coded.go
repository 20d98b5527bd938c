// Package coded is the error of a client that a user or a program has to tell apart
// by a stable word.
package coded

import "fmt"

// Code is the stable word of an [Error].
type Code string

// Error is why a request had no result. A package has one value for each of its codes,
// with which [errors.Is] compares.
type Error struct {
	Of     string // the package, which is part of the message
	Code   Code
	Detail string
	Cause  error
}

func (e *Error) Error() string {
	s := e.Of + ": " + string(e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target has the same code of the same package.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Of == e.Of && t.Code == e.Code
}

// With returns an error of the same code that says more.
func (e *Error) With(format string, args ...any) *Error {
	return &Error{Of: e.Of, Code: e.Code, Detail: fmt.Sprintf(format, args...)}
}

// Because returns an error of the same code with its cause.
func (e *Error) Because(cause error) *Error { return &Error{Of: e.Of, Code: e.Code, Cause: cause} }
