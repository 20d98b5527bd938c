package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/remotekey"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// fullKeys have the size of real ones.
var fullKeys = sync.OnceValues(func() (*account.Keys, error) { return account.MakeKeys(context.Background()) })

// BenchmarkSign compares signatures with the device's key in this process with those that
// another process has made over the bus, both by as many askers as there are cores.
// Shown together, they are the ratio.
func BenchmarkSign(b *testing.B) {
	keys, err := fullKeys()
	if err != nil {
		b.Fatal(err)
	}
	digest := sha512.Sum512([]byte("a commit"))
	sign := func(b *testing.B, key crypto.Signer) {
		b.ReportAllocs()
		b.SetParallelism(4) // askers wait for the bus too
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA512); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
	}
	b.Run("local", func(b *testing.B) { sign(b, keys.Device) })
	b.Run("remote", func(b *testing.B) {
		srv := bustest.Start(b)
		start(b, srv, func(context.Context) (*account.Keys, error) { return keys, nil })
		swarm := srv.Conn("swarm")
		swarm.SetAccount(waitState(b, swarm, stateReady).Account.ID)
		key, err := remotekey.Device(b.Context(), b.Context(), swarm, "swarm")
		if err != nil {
			b.Fatal(err)
		}
		if key.Public().(*rsa.PublicKey).N.BitLen() != jami.KeyBits {
			b.Fatal("not a key of full size")
		}
		b.ResetTimer()
		sign(b, key)
	})
}

// BenchmarkOffer is what a value costs that somebody put at an inbox: to open one that is
// not for us, and to see that it was treated.
func BenchmarkOffer(b *testing.B) {
	keys, err := fullKeys()
	if err != nil {
		b.Fatal(err)
	}
	for name, size := range map[string]int{"2KB": 2 << 10, "64KB": 64 << 10} {
		v := &jami.Value{ID: 1, Cipher: make([]byte, size)}
		if _, err := rand.Read(v.Cipher[1:]); err != nil { // below any modulus
			b.Fatal(err)
		}
		b.Run("junk/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := v.Decrypt(keys.Device); err == nil {
					b.Fatal("opened")
				}
			}
		})
		packed, err := v.Pack()
		if err != nil {
			b.Fatal(err)
		}
		acc, err := (&account.Store{Root: b.TempDir()}).Create(testKeys(), newSettings, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		store, err := acc.OpenInbox()
		if err != nil {
			b.Fatal(err)
		}
		store.Treat(sha256.Sum256(v.Cipher))
		box := &inbox{store: store}
		b.Run("treated/"+name, func(b *testing.B) {
			for b.Loop() {
				if !box.offer(contract.DHTValue{Data: packed}, false) {
					b.Fatal("not known")
				}
			}
		})
	}
}
