// Package devicetest makes devices of Jami accounts for tests.
package devicetest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// Account is an account that makes devices.
type Account struct {
	Key   *rsa.PrivateKey
	Certs []*x509.Certificate // account, then its CA
}

// Device is a device with its key.
type Device struct {
	Account *Account
	Key     *rsa.PrivateKey
	Chain   *trust.Chain
}

func key(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var (
	caOnce sync.Once
	caKey  *rsa.PrivateKey
)

// NewAccount makes an account. All accounts of a process have the same authority, since keys take time.
func NewAccount(t testing.TB) *Account {
	t.Helper()
	caOnce.Do(func() { caKey = key(t) })
	now := time.Now().Add(-time.Hour)
	ca, err := jami.NewCA(caKey, now)
	if err != nil {
		t.Fatal(err)
	}
	k := key(t)
	acc, err := jami.NewAccount(&k.PublicKey, ca, caKey, now)
	if err != nil {
		t.Fatal(err)
	}
	return &Account{k, []*x509.Certificate{acc, ca}}
}

// Device makes a device of the account.
func (a *Account) Device(t testing.TB) *Device {
	t.Helper()
	return a.Certify(t, key(t))
}

// Certify makes a device with that key.
func (a *Account) Certify(t testing.TB, k *rsa.PrivateKey) *Device {
	t.Helper()
	cert, err := jami.NewDevice(&k.PublicKey, a.Certs[0], a.Key, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c, err := new(trust.Rules).Check(append([]*x509.Certificate{cert}, a.Certs...))
	if err != nil {
		t.Fatal(err)
	}
	return &Device{a, k, c}
}
