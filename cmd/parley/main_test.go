package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/services/identity/account"
)

// envPlay makes the test binary be parley; `up` starts it again as its children.
const envPlay = "PARLEYTEST_PLAY"

func TestMain(m *testing.M) {
	if os.Getenv(envPlay) != "" {
		main()
	}
	os.Exit(m.Run())
}

// result is how one command line ended.
type result struct {
	code     int
	out, err string
}

// parley runs one command line inside the test.
func parley(env []string, stdin string, args ...string) result {
	var out, errs bytes.Buffer
	a := &app{in: strings.NewReader(stdin), out: &out, err: &errs, env: env}
	code := a.main(context.Background(), args)
	return result{code, out.String(), errs.String()}
}

// trial is a data directory with ports of its own.
type trial struct {
	env  []string // the configuration
	cfg  *config.Config
	data string
}

func newTrial(t *testing.T) *trial {
	t.Helper()
	data, err := os.MkdirTemp("", "ply") // short: it holds Unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	tr := &trial{data: data}
	at := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	load := func(env ...string) {
		var err error
		if tr.cfg, err = config.Load(config.Sources{Env: append(tr.env, env...)}); err != nil {
			t.Fatal(err)
		}
	}
	var media string
	bustest.MediaPorts(t, func(base int) bool {
		media = "PARLEY_MEDIA_LISTEN=" + at(base)
		load(media)
		specs, err := sockets.MediaSpecs(tr.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return sockets.Probe(specs) == nil
	})
	bustest.Ports(t, func(base int) bool {
		tr.env = []string{"PARLEY_DATA=" + data, "PARLEY_BUS_LISTEN=" + at(base), "PARLEY_HTTP_LISTEN=" + at(base+1), "PARLEY_HTTP_TLS_LISTEN=" + at(base+2),
			"PARLEY_SIP_LISTEN=" + at(base+3), "PARLEY_SIP_TLS_LISTEN=" + at(base+4), "PARLEY_DHT_LISTEN=" + at(base+5), "PARLEY_ADMIN_LISTEN=" + at(base+6), "PARLEY_JAMI_LISTEN=" + at(base+7), media}
		load()
		return sockets.Probe(append(sockets.ConnectSpecs(tr.cfg), sockets.ProbeSpecs(tr.cfg)...)) == nil
	})
	return tr
}

// settled puts an account into the data directory whose keys take a moment, where those that a
// node makes take seconds.
func (tr *trial) settled(t *testing.T) *trial {
	t.Helper()
	var keys account.Keys
	for _, k := range []**rsa.PrivateKey{&keys.CA, &keys.Account, &keys.Device} {
		var err error
		if *k, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	store := account.Store{Root: filepath.Join(tr.data, "identity")}
	if err := os.MkdirAll(store.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Create(&keys, account.Settings{Alias: "Parley", Rendezvous: true}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return tr
}

// node is a running `parley up`.
type node struct {
	*trial
	cmd      *exec.Cmd
	out, err *os.File
	done     chan struct{} // closed when it has ended
}

// up starts a node and stops it at the end of the test.
func (tr *trial) up(t *testing.T, args ...string) *node {
	t.Helper()
	return tr.start(t, append([]string{"up"}, args...)...)
}

// start starts a command line that runs on, and stops it at the end of the test.
func (tr *trial) start(t *testing.T, args ...string) *node {
	t.Helper()
	n := &node{trial: tr, cmd: exec.Command("/proc/self/exe", args...), done: make(chan struct{})}
	n.cmd.Env = append(append(os.Environ(), tr.env...), envPlay+"=1", "GORACE=atexit_sleep_ms=0")
	dir := t.TempDir()
	for name, f := range map[string]**os.File{"out": &n.out, "err": &n.err} {
		var err error
		if *f, err = os.Create(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.err
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		n.cmd.Wait() // the tests look at ProcessState
		close(n.done)
	}()
	t.Cleanup(func() {
		n.cmd.Process.Kill() // an error: it has ended, as it should
		<-n.done
		if t.Failed() {
			t.Logf("the node said:\n%s", n.said())
		}
		n.out.Close()
		n.err.Close()
	})
	return n
}

// said returns what the node printed.
func (n *node) said() string {
	out, err := os.ReadFile(n.out.Name())
	if err != nil {
		return err.Error()
	}
	errs, err := os.ReadFile(n.err.Name())
	if err != nil {
		return err.Error()
	}
	return string(out) + string(errs)
}

// wait returns the exit code, or fails when the node does not end.
func (n *node) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-n.done:
		return n.cmd.ProcessState.ExitCode()
	case <-time.After(15 * time.Second):
		n.cmd.Process.Signal(syscall.SIGQUIT)
		t.Fatal("the node does not end")
		return 0
	}
}

// status is one answer of `status --json`.
func (n *node) status(t *testing.T) (status, result) {
	t.Helper()
	r := parley(n.env, "", "status", "--json")
	var st status
	if r.out != "" {
		if err := json.Unmarshal([]byte(r.out), &st); err != nil {
			t.Fatalf("%v in %s", err, r.out)
		}
	}
	return st, r
}

func (st *status) pid(name string) int {
	for _, p := range st.Processes {
		if p.Name == name {
			return p.PID
		}
	}
	return 0
}

// eventually polls cond until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second) // RSA keys on a busy machine
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		<-tick.C
	}
}
