package secret

import (
	"bytes"
	"errors"
	"testing"
)

func TestSeal(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	clear := []byte("s3cret")
	b, err := Seal(key.Public(), "archive.export", clear)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, clear) {
		t.Error("in the clear")
	}
	if got, err := key.Open("archive.export", b); err != nil || !bytes.Equal(got, clear) {
		t.Errorf("opened %q, %v", got, err)
	}
	if _, err := key.Open("archive.password", b); !errors.Is(err, ErrSealed) {
		t.Errorf("for another purpose: %v", err)
	}
	other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open("archive.export", b); !errors.Is(err, ErrSealed) {
		t.Errorf("with another key: %v", err)
	}
	for n := range b {
		if _, err := key.Open("archive.export", b[:n]); !errors.Is(err, ErrSealed) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
		bad := bytes.Clone(b)
		bad[n] ^= 1
		if _, err := key.Open("archive.export", bad); !errors.Is(err, ErrSealed) {
			t.Errorf("byte %d flipped: %v", n, err)
		}
	}
	for _, pub := range [][]byte{nil, make([]byte, 31), make([]byte, 33)} {
		if _, err := Seal(pub, "x", clear); err == nil {
			t.Errorf("sealed to %d bytes", len(pub))
		}
	}
}
