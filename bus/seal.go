package bus

import (
	"encoding/json"
	"fmt"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/secret"
)

// Seal encrypts a secret so that only the identity process whose key this is reads it,
// and for the command of that name alone. The key is the SealKey of
// [contract.IdentityState]; identity has another one after each of its starts.
func Seal(key []byte, command string, x *contract.Secret) (*contract.Sealed, error) {
	text, err := json.Marshal(x)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	b, err := secret.Seal(key, command, text)
	if err != nil {
		return nil, err
	}
	return &contract.Sealed{Cipher: b}, nil
}
