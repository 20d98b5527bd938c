package jami

import (
	"bytes"
	"testing"
	"time"
)

// One archive of 256 has a salt that begins with a brace.
func TestEncryptedArchiveThatBeginsWithABrace(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	password := []byte("pw")
	salt := append([]byte{'{'}, bytes.Repeat([]byte{7}, 15)...)
	a, _ := testArchive(t, time.Now())
	plain, err := a.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := Seal(StretchKey(password, salt), plain)
	if err != nil {
		t.Fatal(err)
	}
	file := append(salt, sealed...)
	if !Encrypted(file) {
		t.Error("taken for text")
	}
	if _, err := ParseArchive(file, password); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]bool{"{}": false, ` {"a": "b"}` + "\n": false, "{": true, "": true, "{\xff}": true} {
		if got := Encrypted([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
