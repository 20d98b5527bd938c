package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// server runs `parley run NAME` with a trial's settings and more.
func (tr *trial) server(t *testing.T, name string, env ...string) {
	t.Helper()
	var log strings.Builder
	cmd := exec.Command("/proc/self/exe", "run", name)
	cmd.Env = append(append(append(os.Environ(), tr.env...), envPlay+"=1", "GORACE=atexit_sleep_ms=0"), env...)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // killed
		if t.Failed() {
			t.Logf("%s said:\n%s", name, log.String())
		}
	})
	for end := time.Now().Add(time.Minute); parley(tr.env, "", "ready").code != exitOK; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is not ready", name)
		}
	}
}

// A node is a device of an account that an organisation hands out and ends, and has names
// for accounts of its own.
func TestAccountServerAndNames(t *testing.T) {
	if testing.Short() {
		t.Skip("whole nodes run in TestContactsBetweenNodes, too")
	}
	t.Parallel()
	js := newTrial(t)
	dir := filepath.Join(js.data, "jams")
	pw, wrong := passwordFile(t, "alice's password"), passwordFile(t, "wrong")
	ends(t, js.env, "alice's password\n", exitOK, "", "jams", "user", "add", "alice", "--display-name", "Alice A")
	js.server(t, "jams", "PARLEY_JAMS_LISTEN="+js.cfg.HTTP.TLSListen)
	roots, err := filepath.Glob(filepath.Join(dir, "tls", "self.pem"))
	if err != nil || len(roots) != 1 {
		t.Fatal(roots, err)
	}
	ns := newTrial(t)
	ns.server(t, "names", "PARLEY_NAMES_LISTEN="+ns.cfg.HTTP.Listen)

	n := newTrial(t).up(t, "--identity.create=false")
	n.accountless(t)
	url := "https://" + js.cfg.HTTP.TLSListen
	enrol := func(pw string, more ...string) []string {
		return append([]string{"account", "enrol", url, "--user", "alice", "--password-file", pw}, more...)
	}
	ends(t, n.env, "", exitUsage, "--user", "account", "enrol", url)
	ends(t, n.env, "", exitUnavailable, "certificate", enrol(pw)...)
	ends(t, n.env, "", exitRefused, "", enrol(wrong, "--server-ca", roots[0])...)
	acc := answer[contract.Account](t, n.env, enrol(pw, "--server-ca", roots[0])...)
	if acc.Archive != "server" || acc.Server != url || acc.Alias != "Alice A" {
		t.Errorf("%+v", acc)
	}
	n.joinable(t)
	if list := ends(t, js.env, "", exitOK, acc.ID, "jams", "user", "list"); !strings.Contains(list.out, acc.DeviceID) {
		t.Errorf("the server lists %s", list.out)
	}
	for _, args := range [][]string{{"account", "export", filepath.Join(t.TempDir(), "a.gz")}, {"account", "password", "--password-file", pw},
		{"account", "link"}, {"names", "register", "alice", "--server", "http://" + ns.cfg.HTTP.Listen}} {
		ends(t, n.env, "", exitRefused, "account server", args...)
	}

	own := answer[contract.Account](t, n.env, "account", "create", "--alias", "Own")
	register := func(name string) []string {
		return []string{"names", "register", name, "--account", "Own", "--server", "http://" + ns.cfg.HTTP.Listen}
	}
	ends(t, n.env, "", exitUsage, "", register("a b")...)
	if got := answer[contract.Account](t, n.env, register("Saal-1")...); got.ID != own.ID || got.Name != "saal-1" {
		t.Errorf("%+v", got)
	}
	ends(t, nil, "", exitOK, own.ID, "names", "lookup", "SAAL-1", "--server", "http://"+ns.cfg.HTTP.Listen)
	ends(t, n.env, "", exitOK, "saal-1", register("saal-1")...) // again
	ends(t, n.env, "", exitRefused, "", register("saal-2")...)  // an account has one
	ends(t, n.env, "", exitOK, "saal-1", "account", "show", "--account", own.ID)

	// The server has the contacts for all devices, and the last word over each.
	friend := strings.Repeat("cd", 20)
	ends(t, n.env, "", exitOK, "", "account", "contact", "add", friend)
	n.until(t, "the server has it", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "accounts.db"))
		return err == nil && strings.Contains(string(b), friend)
	})
	other := newTrial(t).up(t, "--identity.create=false")
	other.accountless(t)
	second := answer[contract.Account](t, other.env, enrol(pw, "--server-ca", roots[0])...)
	if second.ID != acc.ID || second.DeviceID == acc.DeviceID {
		t.Errorf("%+v, the first is %+v", second, acc)
	}
	ends(t, other.env, "", exitOK, "", "account", "contact", "add", strings.Repeat("ef", 20)) // has it speak to the server
	other.until(t, "the other device has the contact", func() bool {
		return strings.Contains(parley(other.env, "", "account", "contacts").out, friend)
	})
	ends(t, js.env, "", exitOK, "", "jams", "device", "revoke", "alice", acc.DeviceID)
	ends(t, n.env, "", exitOK, "", "account", "contact", "remove", friend) // has it speak to the server
	n.until(t, "it says that the server ended the device", func() bool {
		return strings.Contains(parley(n.env, "", "account", "show").err, "account server")
	})
	n.until(t, "it is not ready", func() bool { return parley(n.env, "", "ready").code == exitUnavailable })
	ends(t, other.env, "", exitOK, "", "ready")
}
