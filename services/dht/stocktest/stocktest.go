// Package stocktest runs stock peers for tests: Debian's dhtnode and python3-opendht, on
// loopback.
package stocktest

import (
	"context"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// Output collects what a process says.
type Output struct {
	mu   sync.Mutex
	cond *sync.Cond
	Stop context.CancelFunc // ends the process
	PID  int
	text string
	pos  int // of what was looked for last
}

func newOutput() *Output {
	o := &Output{}
	o.cond = sync.NewCond(&o.mu)
	return o
}

func (o *Output) read(r io.Reader) {
	b := make([]byte, 64<<10)
	for {
		n, err := r.Read(b)
		o.mu.Lock()
		o.text += string(b[:n])
		o.cond.Broadcast()
		o.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Find waits for text after what was found last, and returns the groups.
func (o *Output) Find(t *testing.T, d time.Duration, pattern string) []string {
	t.Helper()
	m := o.Look(d, pattern)
	if m == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		t.Fatalf("%s does not come; since then:\n%s", pattern, o.text[o.pos:])
	}
	return m
}

// Look is Find that returns nil when nothing comes.
func (o *Output) Look(d time.Duration, pattern string) []string {
	re := regexp.MustCompile(pattern)
	end := time.Now().Add(d)
	late := time.AfterFunc(d, func() { // not before end, and not between the look at it and the wait
		o.mu.Lock()
		defer o.mu.Unlock()
		o.cond.Broadcast()
	})
	defer late.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if at := re.FindStringSubmatchIndex(o.text[o.pos:]); at != nil {
			m := re.FindStringSubmatch(o.text[o.pos:])
			o.pos += at[1]
			return m
		}
		if !time.Now().Before(end) {
			return nil
		}
		o.cond.Wait()
	}
}

// Node is one dhtnode.
type Node struct {
	*Output
	In    io.Writer
	Port  int
	KeyID string // of its identity, with "-i"
}

// FreePort returns a UDP port of loopback.
func FreePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// Run runs a program until the test ends.
func Run(t *testing.T, name string, args ...string) (io.Writer, *Output) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; install dhtnode and python3-opendht", err)
	}
	o := newOutput()
	o.Stop, o.PID = cancel, cmd.Process.Pid
	done := make(chan struct{})
	go func() { o.read(out); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return in, o
}

// Start starts a dhtnode that is ready for commands. bootstrap is "host:port" or empty.
func Start(t *testing.T, bootstrap string, args ...string) *Node {
	t.Helper()
	s := &Node{Port: FreePort(t)}
	args = append(args, "-p", strconv.Itoa(s.Port))
	if bootstrap != "" {
		args = append(args, "-b", bootstrap)
	}
	s.In, s.Output = Run(t, "dhtnode", args...)
	s.Find(t, 60*time.Second, `OpenDHT node ([0-9a-f]{40}) running`)
	if slices.Contains(args, "-i") {
		s.KeyID = s.Find(t, 60*time.Second, `Public key ID ([0-9a-f]{40})`)[1]
	}
	s.Find(t, 60*time.Second, `list of possible commands`)
	return s
}

// Do gives it a command.
func (s *Node) Do(t *testing.T, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(s.In, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
}

// Python is one node of python3-opendht.
type Python struct {
	*Output
	In    io.Writer
	KeyID string // of its identity, if it has one
}

//go:embed peer.py
var script string

// StartPython starts one that knows the node at a port of loopback. With the argument
// "identity" it has one.
func StartPython(t *testing.T, bootstrap int, args ...string) *Python {
	t.Helper()
	p := &Python{}
	p.In, p.Output = Run(t, "/usr/bin/python3", append([]string{"-c", script, strconv.Itoa(FreePort(t)), strconv.Itoa(bootstrap)}, args...)...)
	p.KeyID = p.Find(t, 60*time.Second, `"event": "up".*"key": "([0-9a-f]*)"`)[1]
	return p
}

// Event is what it says of a command.
type Event struct {
	OK     bool
	ID     string
	US     float64
	Values []struct {
		ID    string
		Owner string // key id of who signed it, after "owners"
		Data  []byte
	}
}

// Do gives it a command, "put", "get", "owners" (get of values that are signed), "listen" or "cancel", and waits for its answer.
func (p *Python) Do(t *testing.T, op string, key overlay.Key, data []byte) Event {
	t.Helper()
	b, err := json.Marshal(map[string]any{"op": op, "key": hex.EncodeToString(key[:]), "data": data})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.In.Write(append(b, '\n')); err != nil {
		t.Fatal(err)
	}
	line := p.Find(t, 60*time.Second, `(?m)^(\{"event": "`+op+`".*)\n`)[1]
	var e Event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	return e
}
