package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-jami/parley/internal/config"
)

// An account server's users as an operator writes them.
func TestJAMSUsers(t *testing.T) {
	data := t.TempDir()
	run := func(in string, code int, words string, args ...string) {
		t.Helper()
		r := parley(nil, in, append(append([]string{"jams"}, args...), "--data", data)...)
		if r.code != code || !strings.Contains(r.out+r.err, words) {
			t.Errorf("%v: %+v", args, r)
		}
	}
	run("long enough\n", exitOK, "", "user", "add", "Alice", "--display-name", "Alice A")
	run("long enough\n", exitRefused, "already", "user", "add", "alice")
	run("short\n", exitUsage, "8 to", "user", "add", "bob")
	run("long enough\n", exitUsage, "a-z", "user", "add", "../bob")
	run("another one\n", exitOK, "", "user", "passwd", "alice")
	run("another one\n", exitNotFound, "no such user", "user", "passwd", "carol")
	run("", exitUnavailable, "no account server", "user", "list")
	run("", exitUnavailable, "no account server", "device", "revoke", "alice", strings.Repeat("0", 64))
	run("", exitUsage, "64 hex digits", "device", "revoke", "alice", "00")
	path := filepath.Join(data, "jams", "users.yaml")
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "$argon2id$") || strings.Contains(string(text), "another") {
		t.Errorf("%s, %v", text, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// The storage key is for the account server alone.
func TestStorageKeyIsNotHandedDown(t *testing.T) {
	t.Setenv(config.EnvStorageKey, "s3cret words")
	for _, kv := range childEnv(new(config.Config)) {
		if strings.Contains(kv, "s3cret") {
			t.Error(kv)
		}
	}
	r := parley([]string{config.EnvStorageKey + "=s3cret words"}, "", "config", "check", "--data", t.TempDir())
	if r.code != exitOK || strings.Contains(r.out+r.err, "s3cret") {
		t.Errorf("%+v", r)
	}
}
