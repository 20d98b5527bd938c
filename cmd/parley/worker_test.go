package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/parley-jami/parley/bus/bustest"
)

// What is said of workers that never came, were revoked or stand by.
func TestWorkersThatAreNotThere(t *testing.T) {
	tr := newTrial(t).settled(t)
	tr.env = append(tr.env, "PARLEY_ROOMS_LEASE=true")
	n := tr.up(t)
	n.joinable(t)
	n.until(t, "its own worker beats", func() bool {
		var l shownWorkers
		return n.answer(t, &l, "worker", "list") && len(l.Workers) == 1 && l.Workers[0].Alive
	})
	dir := t.TempDir()
	add := func(name string, more ...string) result {
		return ends(t, n.env, "", exitOK, "parley join --creds", append([]string{"worker", "add", name, "--out", filepath.Join(dir, name)}, more...)...)
	}
	add("hall2")
	if said := add("spare", "--conference").out; !strings.Contains(said, "bus.cluster_listen") {
		t.Errorf("who stands by for a bus that is no cluster is not told so: %s", said)
	}
	if said := ends(t, n.env, "", exitOK, "spare", "worker", "list").out; !regexp.MustCompile(`(?m)^spare +conference +not seen`).MatchString(said) {
		t.Errorf("who stands by was never here: %s", said)
	}
	ends(t, n.env, "", exitNotFound, "worker list", "worker", "drain", "hall3")
	ends(t, n.env, "", exitNotFound, "has not been here yet", "worker", "drain", "hall2")
	ends(t, n.env, "", exitRefused, "stands by", "worker", "drain", "spare")
	ends(t, n.env, "", exitOK, "nobody is left", "worker", "drain", n.cfg.Media.Worker)
	ends(t, n.env, "", exitOK, "takes participants again", "worker", "drain", n.cfg.Media.Worker, "--undo")
	ends(t, n.env, "", exitOK, "has not been here", "worker", "revoke", "hall2")
	ends(t, n.env, "", exitOK, "is shut out since", "worker", "revoke", "hall2")
	ends(t, n.env, "", exitRefused, "was revoked", "worker", "drain", "hall2")
	for line := range strings.Lines(ends(t, n.env, "", exitOK, "hall2", "worker", "list").out) {
		if strings.HasPrefix(line, "hall2") && strings.Contains(line, "MiB") {
			t.Errorf("of a worker that is not there is said %s", line)
		}
	}
}

// Who would stand by for a conference that holds no lease would have the rooms at once, beside it.
func TestNobodyStandsByWithoutALease(t *testing.T) {
	tr := newTrial(t).settled(t)
	tr.env = append(tr.env, "PARLEY_ROOMS_LEASE=true")
	n := tr.up(t)
	n.joinable(t)
	creds := filepath.Join(t.TempDir(), "spare.creds")
	ends(t, n.env, "", exitOK, "", "worker", "add", "spare", "--conference", "--out", creds)
	n.cmd.Process.Signal(syscall.SIGTERM) // an error: it has ended, as it should
	n.wait(t)

	tr.env = tr.env[:len(tr.env)-1]
	n = tr.up(t)
	n.joinable(t)
	ends(t, n.env, "", exitRefused, "rooms.lease", "worker", "add", "spare2", "--conference", "--out", "-")
	ends(t, nil, "", exitRefused, "rooms.lease", "join", "--creds", creds, "--data", t.TempDir(), "--admin.listen", "")
	var l shownWorkers
	if !n.answer(t, &l, "worker", "list") || l.Rooms != "" {
		t.Errorf("%+v", l)
	}
}

// A worker says that nobody is where the bus should be, and tries on.
func TestJoinWhereNobodyIs(t *testing.T) {
	n := newTrial(t).settled(t).up(t)
	n.joinable(t)
	dir := t.TempDir()
	creds := filepath.Join(dir, "hall2.creds")
	ends(t, n.env, "", exitOK, "", "worker", "add", "hall2", "--out", creds)
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "nats://" + at.Addr().String()
	at.Close()
	var media string
	bustest.MediaPorts(t, func(base int) bool {
		media = net.JoinHostPort("127.0.0.1", strconv.Itoa(base))
		return true
	})
	cmd := exec.Command("/proc/self/exe", "join", nobody, "--creds", creds, "--data", filepath.Join(dir, "w"), "--admin.listen", "", "--media.listen", media)
	cmd.Env = append(os.Environ(), envPlay+"=1", "GORACE=atexit_sleep_ms=0")
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM) // an error: it has ended already, which the test has said
		cmd.Wait()
	}()
	n.until(t, "it says so", func() bool {
		raw, err := os.ReadFile(said.Name())
		return err == nil && strings.Contains(string(raw), "the node does not answer") && strings.Contains(string(raw), "connection refused")
	})
}

func TestBenchInARoomWithAPIN(t *testing.T) {
	n := newTrial(t).settled(t).up(t)
	n.joinable(t)
	ends(t, n.env, "", exitOK, "", "room", "create", "secret", "--generate-pin")
	ends(t, n.env, "", exitUsage, "has a PIN", "bench", "mix", "--room", "secret", "--listeners", "2", "--seconds", "1")
}

// A file of credentials that was cut short names itself, and what makes another.
func TestCutCredentials(t *testing.T) {
	n := newTrial(t).settled(t).up(t)
	n.joinable(t)
	path := filepath.Join(t.TempDir(), "hall2.creds")
	ends(t, n.env, "", exitOK, "", "worker", "add", "hall2", "--out", path)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(raw)-1; at += 97 {
		if err := os.WriteFile(path, raw[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		r := parley(nil, "", "join", "--creds", path, "--data", t.TempDir(), "--media.listen", "bad")
		if r.code != exitUsage || !strings.Contains(r.err, path) || !strings.Contains(r.err, "parley worker add") {
			t.Errorf("cut after %d of %d bytes: %+v", at, len(raw), r)
		}
	}
}

// Its help shows the settings of a worker, and all can be given.
func TestHelpOfJoin(t *testing.T) {
	r := parley(nil, "", "join", "--help")
	for _, flag := range []string{"--creds", "--media.listen", "--http.listen", "--sip.listen"} {
		if !strings.Contains(r.out, flag) {
			t.Errorf("%s is not shown", flag)
		}
	}
	for _, flag := range []string{"--identity.", "--dht.", "--jams."} {
		if strings.Contains(r.out, flag) {
			t.Errorf("%s is shown", flag)
		}
	}
	if r := parley(nil, "", "join", "--dht.overlay=opendht"); !strings.Contains(r.err, "--creds") {
		t.Errorf("a setting that is not shown cannot be given: %s", r.err)
	}
}
