package jams

import (
	"crypto"
	"crypto/rsa"

	"github.com/parley-jami/parley/internal/jami"
)

// MaxCSR bounds a request for a certificate in bytes of PEM.
const MaxCSR = jami.MaxRequest

// NewCSR makes a device's request as stock Jami does.
func NewCSR(device crypto.Signer) ([]byte, error) {
	text, err := jami.NewDeviceRequest(device)
	if err != nil {
		return nil, ErrInvalid.Because(err)
	}
	return text, nil
}

// ParseCSR is [jami.ParseRequest] with an error for the client.
func ParseCSR(text []byte) (*rsa.PublicKey, error) {
	pub, err := jami.ParseRequest(text)
	if err != nil {
		return nil, ErrRefused.With("%v", err)
	}
	return pub, nil
}
