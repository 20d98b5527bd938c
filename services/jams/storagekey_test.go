package jams

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/names/namestest"
	"github.com/parley-jami/parley/services/jams/api"
	"github.com/parley-jami/parley/services/jams/atrest"
	"github.com/parley-jami/parley/services/jams/store"
)

// files are the two that have keys.
type files struct{ ca, accounts []byte }

func filesOf(t *testing.T, data string) (f files) {
	t.Helper()
	for name, into := range map[string]*[]byte{"ca.pem": &f.ca, fileAccounts: &f.accounts} {
		b, err := os.ReadFile(filepath.Join(data, "jams", name))
		if err != nil {
			t.Fatal(err)
		}
		*into = b
	}
	return f
}

func (f files) put(t *testing.T, data string) {
	t.Helper()
	for name, b := range map[string][]byte{"ca.pem": f.ca, fileAccounts: f.accounts} {
		if err := os.WriteFile(filepath.Join(data, "jams", name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// clear reports which of the files have a private key in clear, in whatever form.
func (f files) clear(secrets ...[]byte) (which []string) {
	for name, b := range map[string][]byte{"ca.pem": f.ca, fileAccounts: f.accounts} {
		for _, s := range secrets {
			mid := s[len(s)/2 : len(s)/2+48] // within the key's primes
			found := bytes.Contains(b, mid) || bytes.Contains(bytes.ReplaceAll(b, []byte("\n"), nil), []byte("BEGIN PRIVATE KEY"))
			for shift := range 3 { // base64 has three ways to begin
				found = found || bytes.Contains(bytes.ReplaceAll(b, []byte("\n"), nil), []byte(base64.StdEncoding.EncodeToString(mid[shift:])[:40]))
			}
			if found {
				which = append(which, name)
				break
			}
		}
	}
	return which
}

func withWords(t *testing.T, data, words string) *server {
	t.Helper()
	return launch(t, data, testBits, []byte(words))
}

// The setting appears on a server that has accounts: all keys are encrypted, and the
// accounts go on. Whatever is wrong with the storage key is said, and nothing changes.
func TestStorageKey(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	data := t.TempDir()
	addUsers(t, data, "alice", "bob")
	ctx := t.Context()
	keys := namestest.Accounts(t, 3)
	s := start(t, data)
	e, err := ask(t, s.url, s.roots).Enrol(ctx, "alice", "secret", "laptop", keys[0])
	if err != nil {
		t.Fatal(err)
	}
	end(t, s)
	plain := filesOf(t, data)
	secrets := secretsOf(t, data)
	if got := plain.clear(secrets...); len(got) != 2 {
		t.Fatalf("in clear without a storage key: %v", got)
	}

	s = withWords(t, data, "right words")
	sealed := filesOf(t, data)
	if got := sealed.clear(secrets...); len(got) != 0 {
		t.Errorf("in clear: %v", got)
	}
	if _, err := asDevice(t, ask(t, s.url, s.roots), keys[0], e).Devices(ctx); err != nil {
		t.Error(err)
	}
	c := ask(t, s.url, s.roots)
	again, err := c.Enrol(ctx, "alice", "secret", "phone", keys[1])
	if err != nil || again.Chain.JamiID != e.Chain.JamiID {
		t.Errorf("%v", err)
	}
	if _, err := c.Enrol(ctx, "bob", "secret", "desk", keys[2]); err != nil {
		t.Error(err)
	}
	if err := c.AsUser("alice", "secret").Revoke(ctx, again.Chain.DeviceID); err != nil {
		t.Error(err)
	}
	end(t, s)
	if strings.Contains(s.log.String(), "right words") {
		t.Error("the storage key is in the log")
	}
	after := filesOf(t, data)
	if got := after.clear(secrets...); len(got) != 0 {
		t.Errorf("in clear: %v", got)
	}

	for _, tt := range []struct {
		what  string
		files files
		words []byte
		want  error
	}{
		{"none", after, nil, atrest.ErrMissing},
		{"wrong", after, []byte("wrong words"), atrest.ErrWrong},
		{"none, with the accounts of before", files{after.ca, plain.accounts}, nil, atrest.ErrMissing},
		{"wrong, with the accounts of before", files{after.ca, plain.accounts}, []byte("wrong words"), atrest.ErrWrong},
		{"none, with the authority of before", files{plain.ca, after.accounts}, nil, atrest.ErrMissing},
		{"wrong, with the authority of before", files{plain.ca, after.accounts}, []byte("wrong words"), atrest.ErrWrong},
		{"right, a damaged authority", files{flipKey(t, after.ca), after.accounts}, []byte("right words"), atrest.ErrWrong},
	} {
		tt.files.put(t, data)
		svc := &Service{env: env(data, zaptest.NewLogger(t)), bits: testBits, words: tt.words}
		if err := svc.Run(ctx); !errors.Is(err, tt.want) || strings.Contains(err.Error(), "words\"") {
			t.Errorf("%s: %v", tt.what, err)
		}
		if now := filesOf(t, data); !bytes.Equal(now.ca, tt.files.ca) || !bytes.Equal(now.accounts, tt.files.accounts) {
			t.Errorf("%s: the files were changed", tt.what)
		}
	}
	// An end between the two files is made good by the next start.
	for what, f := range map[string]files{"accounts left": {after.ca, plain.accounts}, "authority left": {plain.ca, after.accounts}} {
		f.put(t, data)
		end(t, withWords(t, data, "right words"))
		if got := filesOf(t, data).clear(secrets...); len(got) != 0 {
			t.Errorf("%s: in clear: %v", what, got)
		}
	}
	if left, err := filepath.Glob(filepath.Join(data, "jams", "*.new")); err != nil || len(left) > 0 {
		t.Errorf("%q, %v", left, err)
	}
}

// A server that has a storage key from its first start writes nothing in clear.
func TestStorageKeyFromTheStart(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	data := t.TempDir()
	addUsers(t, data, "alice")
	s := withWords(t, data, "right words")
	if _, err := ask(t, s.url, s.roots).Enrol(t.Context(), "alice", "secret", "laptop", namestest.Accounts(t, 1)[0]); err != nil {
		t.Fatal(err)
	}
	end(t, s)
	if got := filesOf(t, data).clear(secretsWith(t, data, []byte("right words"))...); len(got) != 0 {
		t.Errorf("in clear: %v", got)
	}
}

func end(t *testing.T, s *server) {
	t.Helper()
	if err := s.end(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func flipKey(t *testing.T, ca []byte) []byte {
	t.Helper()
	b, rest := pem.Decode(ca)
	b.Bytes[40] ^= 1
	return append(pem.EncodeToMemory(b), rest...)
}

func secretsOf(t *testing.T, data string) [][]byte { return secretsWith(t, data, nil) }

// secretsWith returns the accounts' keys.
func secretsWith(t *testing.T, data string, words []byte) (all [][]byte) {
	t.Helper()
	s := &Service{env: env(data, zaptest.NewLogger(t)), bits: testBits, dir: filepath.Join(data, "jams"), words: words}
	authority, err := s.authority(s.env.Config)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(filepath.Join(s.dir, fileAccounts), api.KeyHash(authority.Cert), words)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, p := range st.Users() {
		u, err := st.User(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, u.Key)
	}
	return all
}

// Where the storage key comes from; the environment has it no more afterwards.
func TestStorageKeySources(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("of the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ env, file, want, err string }{
		{"", "", "", ""}, {"of the environment", "", "of the environment", ""}, {"", file, "of the file", ""},
		{"of the environment", file, "", "two storage keys"}, {"", "/nowhere/key", "", "/nowhere/key"},
	} {
		if tt.env != "" {
			t.Setenv(config.EnvStorageKey, tt.env)
		}
		e := env(t.TempDir(), zaptest.NewLogger(t))
		e.Config.JAMS.StorageKey = tt.file
		r, err := New(e)
		if (err != nil) != (tt.err != "") || err != nil && (!strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "of the")) {
			t.Errorf("%+v: %v", tt, err)
		}
		if err == nil && string(r.(*Service).words) != tt.want {
			t.Errorf("%+v: %q", tt, r.(*Service).words)
		}
		if v, ok := os.LookupEnv(config.EnvStorageKey); ok {
			t.Errorf("still in the environment: %q", v)
		}
	}
}
