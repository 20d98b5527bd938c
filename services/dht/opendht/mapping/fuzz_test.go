package mapping

import (
	"crypto/rand"
	"crypto/rsa"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// FuzzRead: what strangers store never comes back as another's.
func FuzzRead(f *testing.F) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	s, err := NewSigner(k)
	if err != nil {
		f.Fatal(err)
	}
	for _, gone := range []bool{false, true} {
		v, err := s.Sign(&overlay.Value{ID: 7, Data: []byte("x")}, 3, gone)
		if err != nil {
			f.Fatal(err)
		}
		b, err := v.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := jami.ParseValue(b)
		if err != nil {
			return
		}
		got := Read(overlay.Key{1}, v, b, time.Unix(1, 0))
		if !v.Signed() && (got.Writer != "" || got.Gone) || v.Signed() && got.Writer != v.Signer().String() {
			t.Errorf("%+v", got)
		}
	})
}
