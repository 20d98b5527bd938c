package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is there is said before anything is made, and no flag is named that there is not.
func TestFilesThatAreThere(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ends(t, nil, "", exitOK, "ca.crt", "ca", "create", dir)
	if r := parley(nil, "", "ca", "create", dir); r.code != exitRefused || strings.Contains(r.err, "--force") {
		t.Errorf("an authority that is there: %+v", r)
	}
	if err := os.Remove(file("ca.key")); err != nil {
		t.Fatal(err)
	}
	if r := parley(nil, "", "ca", "create", dir); r.code != exitRefused {
		t.Errorf("its certificate is there: %+v", r)
	}
	if _, err := os.Stat(file("ca.key")); err == nil {
		t.Error("a key that is not the certificate's is left beside it")
	}
	// The node would keep the keys of a request that nobody has.
	ends(t, nil, "", exitRefused, "already", "account", "create", "--csr", file("ca.crt"), "--data", dir)
}
