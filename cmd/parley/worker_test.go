package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

func TestWhetherAnotherWorkerTakesAnybody(t *testing.T) {
	at := func(name string, change func(*shownWorker)) shownWorker {
		w := shownWorker{Worker: contract.Worker{WorkerBeat: contract.WorkerBeat{Worker: name}, Alive: true}}
		if change != nil {
			change(&w)
		}
		return w
	}
	now := time.Now()
	for what, tt := range map[string]struct {
		other []shownWorker
		want  bool
	}{
		"it is alone":   {nil, false},
		"another":       {[]shownWorker{at("b", nil)}, true},
		"drained":       {[]shownWorker{at("b", func(w *shownWorker) { w.Drain = true })}, false},
		"gone":          {[]shownWorker{at("b", func(w *shownWorker) { w.Alive = false })}, false},
		"other version": {[]shownWorker{at("b", func(w *shownWorker) { w.Other = true })}, false},
		"revoked":       {[]shownWorker{at("b", func(w *shownWorker) { w.Revoked = &now })}, false},
		"stands by":     {[]shownWorker{at("b", func(w *shownWorker) { w.Service = "conference" })}, false},
		"one of two":    {[]shownWorker{at("b", func(w *shownWorker) { w.Drain = true }), at("c", nil)}, true},
	} {
		if got := takesAnybody(&shownWorkers{Workers: append(tt.other, at("a", nil))}, "a"); got != tt.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// A drain that is interrupted says that the worker stays drained.
func TestInterruptedDrainSaysWhatStays(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := &app{err: new(bytes.Buffer)}
	_, err := a.drained(ctx, nil, &contract.Worker{WorkerBeat: contract.WorkerBeat{Worker: "hall2", Legs: 3}, Alive: true})
	if err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupted: hall2 stays drained") || !strings.Contains(err.Error(), "--undo") {
		t.Errorf("%v", err)
	}
}

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
	said := add("hall2").out
	steps := []string{"set bus.listen", "start the node again", "parley worker revoke hall2", "rm " + filepath.Join(dir, "hall2"), "this command once more"}
	at := -1
	for _, step := range steps {
		next := strings.Index(said, step)
		if next <= at {
			t.Errorf("for another machine %q is not said in its place: %s", step, said)
		}
		at = next
	}
	ends(t, n.env, "", exitRefused, "`parley worker revoke hall2`", "worker", "add", "hall2", "--out", filepath.Join(dir, "again"))
	if said := add("spare", "--conference").out; !strings.Contains(said, "bus.cluster_listen") {
		t.Errorf("who stands by for a bus that is no cluster is not told so: %s", said)
	}
	if said := ends(t, n.env, "", exitOK, "spare", "worker", "list").out; !regexp.MustCompile(`(?m)^spare +conference +not seen`).MatchString(said) {
		t.Errorf("who stands by was never here: %s", said)
	}
	ends(t, n.env, "", exitNotFound, "worker list", "worker", "drain", "hall3")
	ends(t, n.env, "", exitNotFound, "has not been here yet", "worker", "drain", "hall2")
	ends(t, n.env, "", exitRefused, "stands by", "worker", "drain", "spare")
	elsewhere := filepath.Join(t.TempDir(), "none")
	ends(t, n.env, "", exitUnavailable, "answers what runs on "+n.data, "ready", "--data", elsewhere)
	ends(t, n.env, "", exitOK, "ready", "ready", "--data", elsewhere, "--admin.listen", n.cfg.Admin.Listen)
	ends(t, append(n.env[:len(n.env):len(n.env)], "PARLEY_DATA="+elsewhere), "", exitOK, "ready", "ready") // of a service that has a directory of its own
	own := n.cfg.Media.Worker
	ends(t, n.env, "", exitOK, "nobody is left", "worker", "drain", own)
	ends(t, n.env, "", exitOK, "no other worker takes participants", "worker", "drain", own)
	if r := ends(t, n.env, "", exitUnavailable, "worker", "sim", "--speakers", "1", "--seconds", "1"); r.out != "" || !strings.Contains(r.err, "Speaker 1") {
		t.Errorf("nobody could join, and sim said %+v", r)
	}
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

// What fails because of an interrupt is one.
func TestInterruptedBench(t *testing.T) {
	failed := contract.ErrTimeout.With("node.processes: no answer")
	ctx, cancel := context.WithCancel(t.Context())
	if err := measured(ctx, nil, failed); err != error(failed) {
		t.Errorf("%v", err)
	}
	cancel()
	if err := measured(ctx, nil, failed); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := measured(ctx, nil, nil); err != nil {
		t.Errorf("a run that was ended early and is told of: %v", err)
	}
}

func TestBenchInARoomWithAPIN(t *testing.T) {
	n := newTrial(t).settled(t).up(t)
	n.joinable(t)
	ends(t, n.env, "", exitOK, "", "room", "create", "secret", "--generate-pin")
	ends(t, n.env, "", exitUsage, "has a PIN", "bench", "mix", "--room", "secret", "--listeners", "2", "--seconds", "1")
}

// On a worker's machine it is said what runs there, and where to ask.
func TestStatusOfAWorkersMachine(t *testing.T) {
	n := newTrial(t).settled(t).up(t)
	n.joinable(t)
	path := filepath.Join(t.TempDir(), "hall2.creds")
	ends(t, n.env, "", exitOK, "", "worker", "add", "hall2", "--out", path)
	w := newTrial(t)
	j := w.start(t, "join", "--creds", path)
	var r result
	n.until(t, "the worker says what it is", func() bool {
		r = parley(w.env, "", "status")
		return !strings.Contains(r.err, "no node is running")
	})
	if r.code != exitUnavailable || !strings.Contains(r.err, "worker hall2 of the node at nats://"+n.cfg.Bus.Listen) {
		t.Errorf("%+v", r)
	}
	j.joinable(t)
	if err := j.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := j.wait(t); code != exitOK {
		t.Errorf("the worker ended with %d", code)
	}
	ends(t, w.env, "", exitUnavailable, "no node is running", "status")
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
