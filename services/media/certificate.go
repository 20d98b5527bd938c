package media

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"
)

// The DTLS certificate signs itself; its fingerprint in the SDP proves it. It is
// kept in a file because browsers hold its fingerprint: a process that takes over
// must answer a renegotiation with the same one.
const (
	certificateLife  = 90 * 24 * time.Hour
	certificateRenew = 30 * 24 * time.Hour // what must be left at a start of the process
)

// loadCertificate reads the certificate, or makes one when there is none, when it
// does not parse or when it ends soon.
func loadCertificate(path string, now time.Time) (tls.Certificate, error) {
	if raw, err := os.ReadFile(path); err == nil {
		c, err := tls.X509KeyPair(raw, raw)
		if err == nil && c.Leaf != nil && now.Add(certificateRenew).Before(c.Leaf.NotAfter) {
			return c, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return tls.Certificate{}, fmt.Errorf("DTLS certificate: %w", err)
	}
	raw, err := makeCertificate(now)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("DTLS certificate: %w", err)
	}
	c, err := tls.X509KeyPair(raw, raw)
	if err != nil {
		return c, fmt.Errorf("DTLS certificate: %w", err)
	}
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return c, nil // a full disk: this process can work with it all the same
	}
	if err := os.Rename(path+".new", path); err != nil {
		return c, fmt.Errorf("DTLS certificate: %w", err)
	}
	return c, nil
}

func makeCertificate(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "parley"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk})...), nil
}
