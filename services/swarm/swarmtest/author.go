// Package swarmtest makes accounts for the tests of conversations.
package swarmtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // a Jami Id is a SHA-1 of a public key
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// Identity is an account with one device, and their keys.
type Identity struct {
	repo.Author
	Account, DeviceKey *rsa.PrivateKey
}

// New makes an account as Jami does, with keys of 2048 bits for speed.
func New(tb testing.TB) *Identity {
	tb.Helper()
	return WithBits(tb, 2048)
}

// WithBits makes an account whose keys have so many bits; Jami's have 4096.
func WithBits(tb testing.TB, bits int) *Identity {
	tb.Helper()
	ca, acc, dev := key(tb, bits), key(tb, bits), key(tb, bits)
	caName, accName := name(tb, "Jami CA", ca), name(tb, "", acc)
	caPEM := cert(tb, caName, caName, ca, ca, true)
	accPEM := cert(tb, accName, caName, acc, ca, true)
	devPEM := cert(tb, name(tb, "Jami device", dev), accName, dev, acc, false)
	_, device := ids(tb, dev)
	uri, _ := ids(tb, acc)
	return &Identity{Account: acc, DeviceKey: dev, Author: repo.Author{Name: "Parley", URI: uri, Device: device,
		AccountPEM: append(accPEM, caPEM...), DevicePEM: devPEM, Signer: dev}}
}

// RenewDevice gives the device key a new certificate.
func (id *Identity) RenewDevice(tb testing.TB) {
	tb.Helper()
	id.DevicePEM = cert(tb, name(tb, "Jami device", id.DeviceKey), name(tb, "", id.Account), id.DeviceKey, id.Account, false)
}

// NewDevice gives the account another device in the place of the one before.
func (id *Identity) NewDevice(tb testing.TB) {
	tb.Helper()
	id.DeviceKey = key(tb, id.DeviceKey.N.BitLen())
	_, id.Device = ids(tb, id.DeviceKey)
	id.Signer = id.DeviceKey
	id.RenewDevice(tb)
}

// Revoke is a list of the account's that names the device's certificate, as of at.
func (id *Identity) Revoke(tb testing.TB, at time.Time) *trust.Revocations {
	tb.Helper()
	certs, err := trust.Certificates(append(append([]byte(nil), id.DevicePEM...), id.AccountPEM...))
	if err != nil {
		tb.Fatal(err)
	}
	issuer := *certs[1]
	issuer.SubjectKeyId = []byte{1} // the library wants one
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: at, NextUpdate: certs[1].NotAfter,
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: certs[0].SerialNumber, RevocationTime: at}}}, &issuer, id.Account)
	if err != nil {
		tb.Fatal(err)
	}
	r := new(trust.Revocations)
	if _, err := r.Add(der, certs[1]); err != nil {
		tb.Fatal(err)
	}
	return r
}

func key(tb testing.TB, bits int) *rsa.PrivateKey {
	tb.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func ids(tb testing.TB, k *rsa.PrivateKey) (short, long string) {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		tb.Fatal(err)
	}
	s, l := sha1.Sum(der), sha256.Sum256(der)
	return hex.EncodeToString(s[:]), hex.EncodeToString(l[:])
}

func name(tb testing.TB, cn string, k *rsa.PrivateKey) pkix.Name {
	tb.Helper()
	id, _ := ids(tb, k)
	return pkix.Name{CommonName: cn, ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: id}}}
}

func cert(tb testing.TB, subject, issuer pkix.Name, k, by *rsa.PrivateKey, ca bool) []byte {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: ca, BasicConstraintsValid: ca, SignatureAlgorithm: x509.SHA384WithRSA}
	if ca {
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	der, err := x509.CreateCertificate(rand.Reader, t, &x509.Certificate{Subject: issuer}, &k.PublicKey, by)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
