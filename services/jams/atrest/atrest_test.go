package atrest

import (
	"bytes"
	"errors"
	"testing"
)

func TestBox(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	salt := NewSalt()
	a, err := New([]byte("words"), salt)
	if err != nil {
		t.Fatal(err)
	}
	again, err := New([]byte("words"), salt)
	if err != nil {
		t.Fatal(err)
	}
	other, err := New([]byte("Words"), salt)
	if err != nil {
		t.Fatal(err)
	}
	salted, err := New([]byte("words"), NewSalt())
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("a private key")
	sealed := a.Seal("alice", key)
	if bytes.Contains(sealed, key) || bytes.Equal(sealed, a.Seal("alice", key)) {
		t.Errorf("%q", sealed)
	}
	if got, err := again.Open("alice", sealed); err != nil || !bytes.Equal(got, key) {
		t.Errorf("%q, %v", got, err)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)/2] ^= 1
	for what, try := range map[string]func() ([]byte, error){
		"other words":     func() ([]byte, error) { return other.Open("alice", sealed) },
		"another salt":    func() ([]byte, error) { return salted.Open("alice", sealed) },
		"somebody else's": func() ([]byte, error) { return a.Open("bob", sealed) },
		"a bit":           func() ([]byte, error) { return a.Open("alice", flipped) },
		"cut":             func() ([]byte, error) { return a.Open("alice", sealed[:20]) },
		"nothing":         func() ([]byte, error) { return a.Open("alice", nil) },
		"a key in clear":  func() ([]byte, error) { return a.Open("alice", key) },
	} {
		if got, err := try(); !errors.Is(err, ErrWrong) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	var none *Box
	if got, err := none.Open("alice", none.Seal("alice", key)); err != nil || !bytes.Equal(got, key) {
		t.Errorf("%q, %v", got, err)
	}
}
