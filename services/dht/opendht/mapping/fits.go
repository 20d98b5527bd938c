package mapping

import (
	"errors"
	"fmt"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// typeMessage is the type of a DhtMessage (§1.7).
const typeMessage = 1

// ErrUnfit: nodes refuse the value, for it is not what its type is for.
var ErrUnfit = errors.New("that is not what values of its type hold")

// Fits reports whether nodes would take clear data of a type under a key (§1.7); the error
// is an [ErrUnfit] that says what they take.
func Fits(key jami.ID, typ uint16, data []byte) error {
	switch {
	case typ == typeMessage && !messageHasService(data):
		return fmt.Errorf("%w: type 1 takes a message, which is MessagePack of an array that begins with the name of a service; for data of another form use type 0", ErrUnfit)
	case typ == TypeCertificate && !CertificateOf(key, data):
		return fmt.Errorf("%w: type 8 takes a certificate, as PEM, under the id of its own key; for other data, or under another key, use type 0", ErrUnfit)
	}
	return nil
}

// messageHasService reports whether a DhtMessage, [service, data], names one.
func messageHasService(b []byte) bool {
	a, ok := wire.ReadArray(b)
	return ok && a.Len() >= 1 && len(a.NextBytes()) > 0
}
