package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/secret"
	"github.com/parley-jami/parley/services/identity/account"
)

// sealed encrypts a secret to the identity process.
func sealed(t *testing.T, c *bus.Conn, command string, x contract.Secret) *contract.Sealed {
	t.Helper()
	st, err := bus.Call(t.Context(), c, contract.IdentityGet, &contract.None{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	b, err := secret.Seal(st.SealKey, command, text)
	if err != nil {
		t.Fatal(err)
	}
	return &contract.Sealed{Cipher: b}
}

func TestArchiveOverTheBus(t *testing.T) {
	srv := bustest.Start(t)
	env := start(t, srv, readyKeys)
	cli := srv.Conn("cli")
	acc := waitState(t, cli, stateReady).Account
	cli.SetAccount(acc.ID)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // passwords are slow, and slower with others
	defer cancel()
	key := bytes.Repeat([]byte{7}, 32)
	export, password := contract.ArchiveExport.Name, contract.ArchivePassword.Name
	got, err := bus.Call(ctx, cli, contract.ArchiveExport, sealed(t, cli, export, contract.Secret{Reply: key, New: []byte("pw")}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := jami.Open(key, got.Cipher)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := jami.ParseArchive(b, []byte("pw")); err != nil || a.ID().String() != acc.ID {
		t.Errorf("exported %v, %v", a, err)
	}
	for name, q := range map[string]*contract.Sealed{
		"nothing":         {},
		"not encrypted":   {Cipher: bytes.Repeat([]byte("x"), 600)},
		"for another":     sealed(t, cli, password, contract.Secret{Reply: key}),
		"no key":          sealed(t, cli, export, contract.Secret{}),
		"a short key":     sealed(t, cli, export, contract.Secret{Reply: key[:16]}),
		"a long password": sealed(t, cli, export, contract.Secret{Reply: key, New: make([]byte, 1025)}),
		"longer than any": {Cipher: make([]byte, 720_000)},
	} {
		if _, err := bus.Call(ctx, cli, contract.ArchiveExport, q); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}

	after, err := bus.Call(ctx, cli, contract.ArchivePassword, sealed(t, cli, password, contract.Secret{New: []byte("one")}))
	if err != nil || after.Archive != "password" {
		t.Fatalf("%+v, %v", after, err)
	}
	if _, err := bus.Call(ctx, cli, contract.ArchivePassword, sealed(t, cli, password, contract.Secret{Password: []byte("no")})); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("a wrong password: %v", err)
	}
	if st := waitState(t, cli, stateReady); st.Account != *after {
		t.Errorf("state %+v, answered %+v", st.Account, after)
	}
	if left := len(mustGlob(t, filepath.Join(env.Config.Data, "identity", "*", "archive.gz"))); left != 1 {
		t.Errorf("%d archives", left)
	}
}

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestPasswordFile: with it the archive opens from the start; with another one in it
// the account works and tells.
func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pw")
	stock, err := os.ReadFile(filepath.Join("..", "..", "internal", "jami", "testdata", "archive_password_contacts_crl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	srv := bustest.Start(t)
	env := srv.Env("identity")
	if _, err := Import(env.Config, stock, []byte("s3cret pw"), account.Alone); err != nil {
		t.Fatal(err)
	}
	for pw, want := range map[string]string{"s3cret pw": "password", "another": "locked"} {
		if err := os.WriteFile(file, []byte(pw+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(want, func(t *testing.T) {
			start(t, srv, readyKeys, func(s *Service) { s.env.Config.Identity.PasswordFile = file })
			st := waitState(t, srv.Conn("cli"), stateReady)
			if st.Account.Archive != want || strings.Contains(st.Message, file) != (want == "locked") {
				t.Errorf("%+v", st)
			}
		})
	}
}
