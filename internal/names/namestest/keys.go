// Package namestest makes accounts for tests of names. Each account can have one
// name, so that tests need many; making an RSA key takes long, so that these
// share their primes. They are worth nothing.
package namestest

import (
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"sync"
	"testing"
)

const exponent = 65537

// Pool makes accounts of one key size.
type Pool struct {
	Bits int

	mu     sync.Mutex
	primes []*big.Int
	keys   []*rsa.PrivateKey
}

var small = &Pool{Bits: 2048}

// Accounts returns n different accounts with the smallest keys that are taken.
func Accounts(t testing.TB, n int) []*rsa.PrivateKey { return small.Accounts(t, n) }

// Accounts returns n different accounts, the same ones each time.
func (p *Pool) Accounts(t testing.TB, n int) []*rsa.PrivateKey {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.keys) < n {
		q, err := rand.Prime(rand.Reader, p.Bits/2)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range p.primes {
			if k := key(other, q); k != nil && k.N.BitLen() == p.Bits {
				p.keys = append(p.keys, k)
			}
		}
		p.primes = append(p.primes, q)
	}
	return p.keys[:n]
}

func key(p, q *big.Int) *rsa.PrivateKey {
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(big.NewInt(exponent), phi)
	if d == nil || p.Cmp(q) == 0 {
		return nil
	}
	k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: exponent}, D: d, Primes: []*big.Int{p, q}}
	k.Precompute()
	return k
}
