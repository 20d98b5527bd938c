//go:build interop

package interop

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// rig is a private network of stock Jami daemons, made by rig/rig.sh or another
// that PARLEY_RIG names. It needs root.
// The namespace rpsut has the address rigSUT and is for what is tested.
type rig struct {
	t      *testing.T
	script string
	state  string
	ns     string // empty: rpsut
}

const rigSUT = "10.77.0.200"

// startRig starts daemons. One rig runs on a machine at a time.
func startRig(t *testing.T, peers int) *rig {
	t.Helper()
	dir := os.Getenv("PARLEY_RIG")
	if dir == "" {
		dir = "rig"
	}
	script, err := filepath.Abs(filepath.Join(dir, "rig.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(script); err != nil {
		t.Fatalf("no rig of stock daemons (set PARLEY_RIG): %v", err)
	}
	lockRig(t)
	state, err := os.MkdirTemp("", "rig") // short: it holds Unix sockets
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, script: script, state: state}
	for _, tool := range []string{"/usr/libexec/jamid", "dhtnode", "pactl", "ip", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			r.run("install")
			break
		}
	}
	out, err := exec.Command("ip", "netns", "list").CombinedOutput()
	if err != nil {
		t.Fatalf("ip netns: %v\n%s", err, out)
	}
	if strings.Contains(string(out), "rphub") {
		t.Fatal("a rig is running already; stop it with rig.sh down")
	}
	t.Cleanup(func() { r.run("down") })
	r.run("up", fmt.Sprint(peers))
	return r
}

// startRigInside starts a rig, changes it where prepare says how, and runs the test again in the
// namespace of what is tested: there, inside is true.
func startRigInside(t *testing.T, peers int, prepare ...func(*rig)) (r *rig, inside bool) {
	t.Helper()
	if state := os.Getenv("PARLEY_RIG_INSIDE"); state != "" {
		script, err := filepath.Abs(filepath.Join("rig", "rig.sh"))
		if err != nil {
			t.Fatal(err)
		}
		return &rig{t: t, script: script, state: state}, true
	}
	r = startRig(t, peers)
	for _, change := range prepare {
		change(r)
	}
	cmd := r.sut(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "10m")
	cmd.Env = append(os.Environ(), "PARLEY_RIG_INSIDE="+r.state)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") { // this test tells of its end itself
			fmt.Print(line)
		}
	}
	if err != nil {
		t.Fatalf("inside: %v", err)
	}
	return r, false
}

// lockRig waits until no other rig runs in these namespaces; PARLEY_RIG_LOCK is the lock of some apart from the machine's.
func lockRig(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(cmp.Or(os.Getenv("PARLEY_RIG_LOCK"), filepath.Join(os.TempDir(), "rig.lock")), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for limit := time.Now().Add(10 * time.Minute); ; time.Sleep(time.Second) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(limit) {
			t.Fatalf("rig.lock: %v", err)
		}
	}
}

func (r *rig) run(args ...string) {
	r.t.Helper()
	cmd := exec.Command(r.script, args...)
	cmd.Env = append(os.Environ(), "RIG_STATE="+r.state)
	// Daemons hold a pipe open; a file does not keep Wait from returning.
	out, err := os.CreateTemp(r.t.TempDir(), "rig")
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		r.t.Fatalf("rig.sh %v: %v\n%s", args, err, said)
	}
}

// sut is a command in the namespace of what is tested.
func (r *rig) sut(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", cmp.Or(r.ns, "rpsut")}, args...)...)
}

// rigPeer is one stock daemon's API.
type rigPeer struct {
	t    *testing.T
	i    int
	conn net.Conn
	in   *bufio.Reader
}

// rigEvent is a signal of the daemon.
type rigEvent struct {
	at   int
	name string
	args []json.RawMessage
}

func (r *rig) peer(i int) *rigPeer {
	r.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(r.state, fmt.Sprintf("p%d", i), "sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	p := &rigPeer{t: r.t, i: i, conn: conn, in: bufio.NewReader(conn)}
	// A tone that goes on is noise to what takes noise away.
	p.call(nil, "configuration.setNoiseSuppressState", "off")
	p.call(nil, "configuration.setAgcState", false)
	return p
}

// call calls a method, e.g. configuration.getAccountList, and decodes what it returns.
func (p *rigPeer) call(res any, method string, args ...any) {
	p.t.Helper()
	if args == nil {
		args = []any{}
	}
	req, err := json.Marshal(map[string]any{"id": 1, "m": method, "a": args})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.conn.Write(append(req, '\n')); err != nil {
		p.t.Fatal(err)
	}
	line, err := p.in.ReadBytes('\n')
	if err != nil {
		p.t.Fatalf("peer %d: %s: %v", p.i, method, err)
	}
	var a struct {
		R json.RawMessage `json:"r"`
		E string          `json:"e"`
	}
	if err := json.Unmarshal(line, &a); err != nil {
		p.t.Fatal(err)
	}
	if a.E != "" {
		p.t.Fatalf("peer %d: %s: %s", p.i, method, a.E)
	}
	if res == nil {
		return
	}
	if err := json.Unmarshal(a.R, res); err != nil {
		p.t.Fatalf("peer %d: %s: %v in %s", p.i, method, err, a.R)
	}
}

// events returns the signals from a number on.
func (p *rigPeer) events(from int) []rigEvent {
	p.t.Helper()
	var raw [][]json.RawMessage
	p.call(&raw, "events", from)
	out := make([]rigEvent, len(raw))
	for i, e := range raw {
		err := errors.Join(json.Unmarshal(e[0], &out[i].at), json.Unmarshal(e[2], &out[i].name), json.Unmarshal(e[3], &out[i].args))
		if err != nil {
			p.t.Fatal(err)
		}
	}
	return out
}

// mark is the number of the next signal.
func (p *rigPeer) mark() int { return len(p.events(0)) }

// wait returns the arguments of the first signal from a mark on whose first ones are
// those given.
func (p *rigPeer) wait(from int, limit time.Duration, signal string, first ...string) []json.RawMessage {
	p.t.Helper()
	var seen []string
	for began := time.Now(); time.Since(began) < limit; time.Sleep(again(began)) {
		for _, e := range p.events(from) {
			from = e.at + 1
			ok := e.name == signal && len(e.args) >= len(first)
			for i := 0; ok && i < len(first); i++ {
				var s string
				ok = json.Unmarshal(e.args[i], &s) == nil && s == first[i]
			}
			if ok {
				return e.args
			}
			if e.name == signal {
				seen = append(seen, fmt.Sprintf("%s", e.args))
			}
		}
	}
	p.t.Fatalf("peer %d: no %s %v within %v; came %v", p.i, signal, first, limit, seen)
	return nil
}

// account makes an account that uses nothing outside the rig, and returns the
// daemon's id of it and the Jami Id.
func (p *rigPeer) account(alias string, extra map[string]string) (acc, id string) {
	p.t.Helper()
	var d map[string]string
	p.call(&d, "configuration.getAccountTemplate", "RING")
	for k, v := range map[string]string{
		"Account.type": "RING", "Account.alias": alias, "Account.displayName": alias,
		"Account.hostname": "10.77.0.254:4222", "Account.proxyEnabled": "false", "Account.dhtProxyListEnabled": "false",
		"TURN.enable": "false", "STUN.enable": "false", "Account.upnpEnabled": "false",
		"Account.peerDiscovery": "false", "Account.accountDiscovery": "false", "Account.accountPublish": "false",
	} {
		d[k] = v
	}
	for k, v := range extra {
		d[k] = v
	}
	from := p.mark()
	p.call(&acc, "configuration.addAccount", d)
	p.wait(from, time.Minute, "registrationStateChanged", acc, "REGISTERED")
	p.call(&d, "configuration.getAccountDetails", acc)
	id = strings.TrimPrefix(strings.TrimPrefix(d["Account.username"], "ring:"), "jami:")
	return acc, id
}
