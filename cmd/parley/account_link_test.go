package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// answer runs a command line that has to succeed, and reads what it answers.
func answer[A any](t *testing.T, env []string, args ...string) (a A) {
	t.Helper()
	r := parley(env, "", append(args, "--json")...)
	if r.code != exitOK {
		t.Fatalf("%v: %+v", args, r)
	}
	if err := json.Unmarshal([]byte(r.out), &a); err != nil {
		t.Fatalf("%v: %v in %s", args, err, r.out)
	}
	return a
}

// overlayAddress is where a node's overlay is reached.
func (n *node) overlayAddress(t *testing.T) string {
	t.Helper()
	log := n.said()
	for field := range strings.FieldsFuncSeq(log, func(r rune) bool { return strings.ContainsRune(`" ,[]`, r) }) {
		if strings.HasPrefix(field, "/ip4/127.0.0.1/tcp/") && strings.Contains(field, "/p2p/") {
			return field
		}
	}
	t.Fatalf("no overlay address in %s", log)
	return ""
}

// A node without an account joins the account of another one by a PIN over the overlay,
// and is a device of it then.
func TestLinkByPIN(t *testing.T) {
	if testing.Short() {
		t.Skip("whole nodes run in TestContactsBetweenNodes, too")
	}
	t.Parallel()
	first := newTrial(t).settled(t).up(t)
	first.joinable(t)
	mine := answer[contract.Account](t, first.env, "account", "set", "--alias", "Große Runde")
	answer[contract.Contact](t, first.env, "account", "contact", "add", strings.Repeat("ab", 20))

	second := newTrial(t).up(t, "--identity.create=false", "--dht.bootstrap="+first.overlayAddress(t))
	second.accountless(t)
	ends(t, second.env, "", exitOK, "no account", "account", "list")
	ends(t, second.env, "", exitUnavailable, "no account", "room", "list")

	pw := passwordFile(t, "only for this")
	pin := answer[struct{ PIN string }](t, first.env, "account", "link", "--password-file", pw).PIN
	if len(pin) != 8 {
		t.Fatalf("PIN %q", pin)
	}
	ends(t, second.env, "", exitUsage, "PIN", "account", "join", "short")
	ends(t, second.env, "", exitNotFound, "ten minutes", "account", "join", pin)
	ends(t, second.env, "", exitNotFound, "ten minutes", "account", "join", "AAAAAAAA", "--password-file", pw)
	joined := answer[contract.Account](t, second.env, "account", "join", strings.ToLower(pin), "--password-file", pw)
	if joined.ID != mine.ID || joined.DeviceID == mine.DeviceID || joined.Alias != mine.Alias || joined.Archive != "password" {
		t.Errorf("joined %+v of %+v", joined, mine)
	}
	second.joinable(t)
	if l := answer[contract.Contacts](t, second.env, "account", "contacts"); len(l.Contacts) != 1 {
		t.Errorf("contacts %+v", l)
	}
	ends(t, second.env, "", exitRefused, "already", "account", "join", pin, "--password-file", pw)

	out := parley(first.env, "", "account", "link")
	if out.code != exitOK || !strings.Contains(out.err, "without a password") {
		t.Errorf("%+v", out)
	}
	if strings.Contains(first.said()+second.said(), pin) || strings.Contains(first.said(), strings.ToLower(pin)) {
		t.Error("the PIN is in a log")
	}
}

// An account is certified by an authority that the operator brings: at once, or elsewhere.
func TestAccountsOfAnAuthority(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	t.Parallel()
	n := newTrial(t).up(t, "--identity.create=false")
	n.accountless(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	pw := passwordFile(t, "of the authority")
	ends(t, nil, "", exitOK, "ca.crt", "ca", "create", dir, "--password-file", pw)
	ends(t, nil, "", exitRefused, "already", "ca", "create", dir)
	ca := file("ca.crt") + "," + file("ca.key")
	openssl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("openssl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v %s", args, err, out)
		}
		return string(out)
	}

	ends(t, n.env, "", exitUsage, "CERT,KEY", "account", "create", "--ca", file("ca.crt"))
	ends(t, n.env, "", exitError, "", "account", "create", "--ca", ca)
	first := answer[contract.Account](t, n.env, "account", "create", "--alias", "Org", "--ca", ca, "--ca-password-file", pw)
	n.joinable(t)

	ends(t, n.env, "", exitOK, file("a.csr"), "account", "create", "--alias", "Elsewhere", "--csr", file("a.csr"))
	openssl("req", "-in", file("a.csr"), "-verify", "-noout")
	if l := answer[struct{ Accounts []contract.Account }](t, n.env, "account", "list"); len(l.Accounts) != 1 {
		t.Errorf("an account before its certificate: %+v", l)
	}
	ends(t, nil, "", exitOK, file("a.pem"), "ca", "sign", file("a.csr"), "--ca", ca, "--ca-password-file", pw, "--out", file("a.pem"))
	ends(t, n.env, "", exitUsage, "missing_ca", "account", "create", "--certificate", file("ca.crt"))
	second := answer[contract.Account](t, n.env, "account", "create", "--certificate", file("a.pem"))
	ends(t, n.env, "", exitNotFound, "no request", "account", "create", "--certificate", file("a.pem"))

	for _, acc := range []contract.Account{first, second} {
		r := ends(t, n.env, "", exitOK, "BEGIN", "account", "show", "--certificates", "--account", acc.ID)
		chain, err := new(trust.Rules).Parse([]byte(r.out))
		if err != nil || chain.JamiID.String() != acc.ID {
			t.Fatalf("%v, %v", chain, err)
		}
		if err := os.WriteFile(file("dev.pem"), jami.MarshalChain(chain.Device), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file("acc.pem"), jami.MarshalChain(chain.Account), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := openssl("verify", "-CAfile", file("ca.crt"), "-untrusted", file("acc.pem"), file("dev.pem")); !strings.Contains(out, "OK") {
			t.Error(out)
		}
	}
	// The authority ends an account.
	ends(t, nil, "", exitOK, "revoked", "ca", "revoke", file("ca.crl"), file("acc.pem"), "--ca", ca, "--ca-password-file", pw)
	ends(t, nil, "", exitRefused, "", "ca", "revoke", file("ca.crl"), file("dev.pem"), "--ca", ca, "--ca-password-file", pw)
	openssl("crl", "-inform", "DER", "-in", file("ca.crl"), "-CAfile", file("ca.crt"), "-noout")
	ends(t, n.env, "", exitUsage, "no authority", "account", "crl", file("ca.crt"))
	ended := answer[contract.Account](t, n.env, "account", "crl", file("ca.crl"), "--account", second.ID)
	if !strings.Contains(ended.Note, "revoked it") {
		t.Errorf("%+v", ended)
	}
	ends(t, n.env, "", exitRefused, "revoked", "room", "create", "late", "--account", second.ID)
	ends(t, n.env, "", exitOK, "", "ready") // the main account goes on
}

// accountless waits until the node says that it has no account, and takes commands.
func (n *node) accountless(t *testing.T) {
	t.Helper()
	n.until(t, "it waits for an account", func() bool {
		return strings.Contains(n.said(), "account create, import or join") && parley(n.env, "", "account", "list").code == exitOK
	})
}

// joinable waits until the node has an account and answers.
func (n *node) joinable(t *testing.T) {
	t.Helper()
	n.until(t, "it is joinable", func() bool { return parley(n.env, "", "ready").code == exitOK })
}

func (n *node) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
