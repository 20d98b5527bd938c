package identity

import (
	"crypto/sha256"
	"sync"

	"github.com/parley-jami/parley/bus/contract"
)

// partSize bounds the part of a sealed archive in one answer, in bytes: a message of the bus
// holds 1 MiB, and JSON makes four bytes of three.
const partSize = 640 << 10

// export is the archive that is being fetched in parts, sealed for who asked. There is one
// at a time. The zero value is ready.
type export struct {
	mu   sync.Mutex
	of   [sha256.Size]byte // hash of the key that it is sealed with
	rest []byte            // nil: none
	from int               // where in the whole rest begins
}

// first takes a sealed archive and answers with its first part.
func (e *export) first(key, sealed []byte) *contract.Sealed {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.of, e.rest, e.from = sha256.Sum256(key), sealed, 0
	return e.partLocked()
}

// next answers with the part that begins at from.
func (e *export) next(key []byte, from int) (*contract.Sealed, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rest == nil || e.of != sha256.Sum256(key) || from != e.from {
		return nil, contract.ErrGone.With("another export began meanwhile; export again")
	}
	return e.partLocked(), nil
}

func (e *export) partLocked() *contract.Sealed {
	part := e.rest[:min(len(e.rest), partSize)]
	e.rest, e.from = e.rest[len(part):], e.from+len(part)
	more := len(e.rest) > 0
	if !more {
		e.rest = nil
	}
	return &contract.Sealed{Cipher: part, More: more}
}
