package jams

import (
	"context"
	"crypto"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	client "github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/names/namestest"
)

// remote is a key in another process, which may fail or hang.
type remote struct {
	crypto.Signer
	signed atomic.Int32
	fail   atomic.Pointer[error]
	hang   atomic.Pointer[chan struct{}]
}

func (r *remote) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	r.signed.Add(1)
	if c := r.hang.Load(); c != nil {
		<-*c
	}
	if err := r.fail.Load(); err != nil {
		return nil, *err
	}
	return r.Signer.Sign(rand, digest, opts)
}

// restart ends the server and starts it again at the same address, which ends all
// tokens and connections.
func restart(t *testing.T, s *server, data string) *server {
	t.Helper()
	end(t, s)
	return launchAt(t, data, strings.TrimPrefix(s.url, "https://"), testBits, nil)
}

// A device's session as a node has it: one for its whole life.
func TestSessionOverItsLife(t *testing.T) {
	data := t.TempDir()
	addUsers(t, data, "alice", "bob")
	s := start(t, data)
	ctx := t.Context()
	keys := namestest.Accounts(t, 4)
	c := ask(t, s.url, s.roots)
	enrol := func(user string, i int) *client.Enrolment {
		t.Helper()
		e, err := c.Enrol(ctx, user, "secret", "device", keys[i])
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e, e2, b := enrol("alice", 0), enrol("alice", 1), enrol("bob", 2)
	if _, err := c.AsDevice(keys[3], e.Chain); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("another's key: %v", err)
	}
	key := &remote{Signer: keys[0]}
	d := asDevice(t, c, key, e)
	ok := func(what string) {
		t.Helper()
		if list, err := d.Devices(ctx); err != nil || len(list) != 2 {
			t.Errorf("%s: %v, %v", what, list, err)
		}
	}
	fails := func(what string, want error) {
		t.Helper()
		if _, err := d.Devices(ctx); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}

	ok("the first request logs in")
	ok("the second has a token")
	if n := key.signed.Load(); n != 1 {
		t.Errorf("%d signatures", n)
	}
	other := jami.HashKey("contact")
	if all, err := d.Merge(ctx, client.Contacts{other: {Added: 5}}); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := asDevice(t, c, keys[1], e2).Merge(ctx, client.Contacts{other: {Added: 5, Removed: 9}}); err != nil || all[other].Removed != 9 {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := d.Contacts(ctx); err != nil || all[other].Removed != 9 || all[other].Added != 5 {
		t.Errorf("%v, %v", all, err)
	}

	s = restart(t, s, data)
	ok("after a restart of the server, which knows no token")

	// The key's process is dead; then it hangs; then it is back. The server is well.
	gone := errors.New("identity does not answer")
	key.fail.Store(&gone)
	s = restart(t, s, data)
	fails("no signature", client.ErrSigner)
	fails("no signature", gone)
	key.fail.Store(nil)
	block := make(chan struct{})
	key.hang.Store(&block)
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	waiting := make(chan error, 2)
	for range 2 { // one logs in, the other waits for the token
		go func() { _, err := d.Devices(short); waiting <- err }()
	}
	for range 2 {
		if err := <-waiting; !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a signature that does not come: %v", err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	key.hang.Store(nil)
	close(block)
	ok("the key is back")

	// A user who is disabled may come back.
	path := filepath.Join(data, "jams", fileUsers)
	users, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	until := func(what string, fn func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !fn(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	rewrite(strings.Replace(string(users), "displayName: ALICE", "displayName: ALICE\n      disabled: true", 1))
	until("a disabled user goes on", func() bool { _, err := d.Devices(ctx); return errors.Is(err, client.ErrBadCredentials) })
	rewrite(string(users) + "\n")
	until("an enabled user does not come back", func() bool { _, err := d.Devices(ctx); return err == nil })

	// Unreachable is not revoked.
	end(t, s)
	fails("the server is down", client.ErrUnavailable)
	s = launchAt(t, data, strings.TrimPrefix(s.url, "https://"), testBits, nil)
	ok("it is up again")

	op := client.NewOperator(client.OperatorSocket(s.dir))
	defer op.Close()
	if err := op.RevokeDevice(ctx, "alice", e.Chain.DeviceID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		fails("the device is revoked", client.ErrRevoked)
	}
	if list, err := asDevice(t, c, keys[1], e2).Devices(ctx); err != nil || len(list) != 1 {
		t.Errorf("the other device: %v, %v", list, err)
	}
	if err := op.RevokeAccount(ctx, "bob"); err != nil {
		t.Fatal(err)
	}
	if err := asDevice(t, c, keys[2], b).Login(ctx); !errors.Is(err, client.ErrRevoked) {
		t.Errorf("the account is revoked: %v", err)
	}
	// A stranger isn't told more than that it is none.
	stranger := enrolledElsewhere(t)
	if err := asDevice(t, c, stranger.key, stranger.e).Login(ctx); !errors.Is(err, client.ErrBadCredentials) {
		t.Errorf("a stranger: %v", err)
	}
}

type elsewhere struct {
	key crypto.Signer
	e   *client.Enrolment
}

// enrolledElsewhere is a device of another server.
func enrolledElsewhere(t *testing.T) elsewhere {
	t.Helper()
	data := t.TempDir()
	addUsers(t, data, "alice")
	s := start(t, data)
	key := namestest.Accounts(t, 4)[3]
	e, err := ask(t, s.url, s.roots).Enrol(t.Context(), "alice", "secret", "device", key)
	if err != nil {
		t.Fatal(err)
	}
	return elsewhere{key, e}
}
