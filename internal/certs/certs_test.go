package certs

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func leaf(t *testing.T, c *tls.Config) []byte {
	t.Helper()
	cert, err := c.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return cert.Certificate[0]
}

func TestOwnIsMadeOnceForItsHosts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	first, err := Own(dir, []string{"localhost", "127.0.0.1", "::1", ""})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Own(dir, []string{"other"})
	if err != nil || !bytes.Equal(leaf(t, first), leaf(t, again)) {
		t.Fatalf("made anew (%v)", err)
	}
	cert, err := first.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"localhost", "127.0.0.1", "::1"} {
		if err := cert.Leaf.VerifyHostname(h); err != nil {
			t.Error(err)
		}
	}
	st, err := os.Stat(filepath.Join(dir, "self.pem"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
}

func TestOwnRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "self.pem"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Own(dir, nil); err == nil {
		t.Fatal("a damaged file was taken or overwritten")
	}
}

func TestGivenFollowsARenewal(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.pem")
	if err := create(path, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	r := &reloader{certFile: path, keyFile: path}
	now := time.Now()
	first, err := r.get(now)
	if err != nil {
		t.Fatal(err)
	}
	if err := create(path, []string{"b"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, now, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if c, _ := r.get(now.Add(time.Second)); c != first {
		t.Error("looked again too soon")
	}
	second, err := r.get(now.Add(2 * recheck))
	if err != nil || second == first {
		t.Fatalf("the renewed certificate was not taken (%v)", err)
	}
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, now, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if c, err := r.get(now.Add(4 * recheck)); err != nil || c != second {
		t.Fatalf("a half-written file: %v, want the old certificate", err)
	}
	if _, err := Given(filepath.Join(dir, "none"), path); err == nil {
		t.Error("missing file taken")
	}
}
