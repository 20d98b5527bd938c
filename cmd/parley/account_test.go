package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/supervise"
	"github.com/parley-jami/parley/internal/trust"
)

// stockPassword is of archive_password_contacts_crl.gz, which jamid 13.7.0 made.
const (
	stockPassword = "s3cret pw"
	stockAccount  = "4f891b21a87d5e3c41f96563e358a295aba4e960"
)

func stockArchive(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "internal", "jami", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func passwordFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ends runs a command line and expects its exit code and words.
func ends(t *testing.T, env []string, stdin string, code int, words string, args ...string) result {
	t.Helper()
	r := parley(env, stdin, args...)
	if r.code != code || !strings.Contains(r.out+r.err, words) {
		t.Errorf("%v: %+v, want code %d and %q", args, r, code, words)
	}
	return r
}

func archives(t *testing.T, n *node) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	pw, wrong := passwordFile(t, "pass word"), passwordFile(t, "wrong")
	ends(t, n.env, "", exitOK, "no password", "account", "export", file("plain.gz"))
	ends(t, n.env, "", exitRefused, "--force", "account", "export", file("plain.gz"))
	ends(t, n.env, "", exitOK, "", "account", "export", file("plain.gz"), "--force")
	ends(t, n.env, "", exitOK, `"encrypted": true`, "account", "export", file("pw.gz"), "--password-file", pw, "--json")
	ends(t, n.env, "", exitError, "/nowhere", "account", "export", "/nowhere/a.gz")
	var shown contract.Account
	if err := json.Unmarshal([]byte(parley(n.env, "", "account", "show", "--json").out), &shown); err != nil {
		t.Fatal(err)
	}
	for name, pw := range map[string]string{"plain.gz": "", "pw.gz": "pass word"} {
		b, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		a, err := jami.ParseArchive(b, []byte(pw))
		if err != nil || a.ID().String() != shown.ID {
			t.Errorf("%s: %v", name, err)
		}
		if st, err := os.Stat(file(name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, st.Mode(), err)
		}
	}

	r := ends(t, n.env, "", exitOK, "BEGIN CERTIFICATE", "account", "show", "--certificates")
	if c, err := new(trust.Rules).Parse([]byte(r.out)); err != nil || c.DeviceID.String() != shown.DeviceID || len(c.Authorities) != 1 {
		t.Errorf("%v, %v", c, err)
	}

	ends(t, n.env, "", exitUsage, "--remove", "account", "password")
	ends(t, n.env, "pass word\n", exitOK, `"archive": "password"`, "account", "password", "--password-file", "-", "--json")
	ends(t, n.env, "", exitRefused, "wrong or missing", "account", "export", file("b.gz"), "--archive-password-file", wrong)
	if _, err := os.Stat(file("b.gz")); err == nil {
		t.Error("a refused export left a file")
	}
	ends(t, n.env, "", exitOK, "without a password", "account", "password", "--remove", "--archive-password-file", pw)

	ends(t, n.env, "", exitOK, "files", "account", "backup", file("backup.tar.gz"))
	ends(t, n.env, "", exitRefused, "--force", "account", "backup", file("backup.tar.gz"))
	ends(t, n.env, "", exitOK, "parley-identity-", "account", "backup", dir)
	if found, err := filepath.Glob(filepath.Join(dir, "parley-identity-*", "*", "ring_device.key")); err != nil || len(found) != 1 {
		t.Errorf("in the directory: %v, %v", found, err)
	}
	names := tarNames(t, file("backup.tar.gz"))
	if !strings.Contains(names, "/ring_device.key") || !strings.Contains(names, "/archive.gz") {
		t.Errorf("backup has %s", names)
	}
	ends(t, n.env, "", exitRefused, "a node runs", "account", "import", file("plain.gz"), "--replace")

	// What one node exported, another imports.
	data := t.TempDir()
	other := []string{"PARLEY_DATA=" + data}
	r = ends(t, other, "", exitOK, shown.ID, "account", "import", file("pw.gz"), "--password-file", pw, "--json")
	var made contract.Account
	if err := json.Unmarshal([]byte(r.out), &made); err != nil || made.ID != shown.ID || made.DeviceID == shown.DeviceID || made.Alias != shown.Alias {
		t.Errorf("imported %+v of %+v, %v", made, shown, err)
	}

	who := strings.Repeat("ab", 20)
	ends(t, n.env, "", exitOK, "no contacts", "account", "contacts")
	ends(t, n.env, "", exitOK, "blocked", "account", "contact", "block", "jami:"+who)
	ends(t, n.env, "", exitNotFound, "no contact", "account", "contact", "remove", who)
	ends(t, n.env, "", exitOK, `"active": true`, "account", "contact", "add", who, "--json")
	ends(t, n.env, "", exitUsage, "40 hex", "account", "contact", "add", "x")

	// And can be shut out.
	ends(t, n.env, "", exitOK, "Saal", "account", "device", "rename", "Saal")
	ends(t, n.env, "", exitOK, "this one", "account", "devices")
	ends(t, n.env, "", exitRefused, "device of this node", "account", "device", "revoke", shown.DeviceID)
	ends(t, n.env, "", exitNotFound, "--certificate", "account", "device", "revoke", made.DeviceID)
	found, err := filepath.Glob(filepath.Join(data, "identity", "*", "ring_device.crt"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	ends(t, n.env, "", exitOK, `"revoked": true`, "account", "device", "revoke", made.DeviceShort, "--certificate", found[0], "--json")
	ends(t, n.env, "", exitOK, "revoked", "account", "devices")
	// Its own archive doesn't know; one that is exported now does.
	ends(t, n.env, "", exitOK, "", "account", "export", file("crl.gz"))
	b, err := os.ReadFile(file("crl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := jami.ParseArchive(b, nil); err != nil || a.CRL == nil {
		t.Errorf("no revocation list in the archive, %v", err)
	}
}

func tarNames(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var names strings.Builder
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		names.WriteString("/" + h.Name + "\n")
	}
}

func TestImportWithoutANode(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	t.Parallel()
	data := t.TempDir()
	env := []string{"PARLEY_DATA=" + data}
	pw := passwordFile(t, stockPassword)
	withPassword := stockArchive(t, "archive_password_contacts_crl.gz")
	ends(t, env, "", exitNotFound, "no account", "account", "backup", t.TempDir())
	ends(t, env, "", exitRefused, "wrong or missing", "account", "import", withPassword)
	ends(t, env, "no\n", exitRefused, "wrong or missing", "account", "import", withPassword, "--password-file", "-")
	ends(t, env, "", exitError, "/nowhere", "account", "import", "/nowhere/a.gz")
	ends(t, env, "", exitOK, stockAccount, "account", "import", withPassword, "--password-file", pw)
	ends(t, env, "", exitRefused, "--replace", "account", "import", stockArchive(t, "archive_plain.gz"))
	r := ends(t, env, "", exitOK, "replaced-", "account", "import", stockArchive(t, "archive_plain.gz"), "--replace", "--json")
	var made struct {
		ID       string
		Replaced []string
	}
	if err := json.Unmarshal([]byte(r.out), &made); err != nil || len(made.ID) != 40 || made.ID == stockAccount || len(made.Replaced) != 1 {
		t.Errorf("%+v, %v", made, err)
	}

	lock, err := supervise.Lock(context.Background(), data)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ends(t, env, "", exitRefused, "another node", "account", "import", withPassword, "--password-file", pw, "--replace")
}
