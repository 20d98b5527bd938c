//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// status is what scripts rely on of `parley status --json`.
type status struct {
	Account struct {
		ID    string `json:"id"`
		Alias string `json:"alias"`
	} `json:"account"`
	Links     contract.Links     `json:"links"`
	Processes []contract.Process `json:"processes"`
	Rooms     []struct {
		Name         string `json:"name"`
		Participants []struct {
			ID        string `json:"id"`
			Name      string `json:"name"`
			Kind      string `json:"kind"`
			Role      string `json:"role"`
			Muted     bool   `json:"muted"`
			Speaking  bool   `json:"speaking"`
			Transport string `json:"transport"`
			Codec     string `json:"codec"`
		} `json:"participants"`
	} `json:"rooms"`
}

// node is a `parley up` of the built binary with ports of its own.
type node struct {
	t        *testing.T
	bin      string
	data     string
	base     int
	cmd      *exec.Cmd
	out      *lockedBuffer
	exited   chan struct{}
	err      error
	more     []string // of the environment
	busHost  string   // where the bus listens; loopback when empty
	Joinable time.Duration
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func parleyBinary(t *testing.T) string {
	t.Helper()
	bin, err := filepath.Abs("../../bin/parley")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("build the node first (make build): %v", err)
	}
	return bin
}

// freeBase finds a range of ports that nobody uses at the moment. Another process of these
// tests gets another one until the test ends: the name of an abstract socket is held.
func freeBase(t *testing.T) int {
	t.Helper()
	for i := range 25 { // 10000 to 19999: sipp has those from 20000 on, and the kernel gives those from 32768 on to outgoing connections
		base := 10000 + 400*((os.Getpid()+i)%25)
		held, err := net.Listen("unix", fmt.Sprintf("@parley-interop-%d", base))
		if err != nil {
			continue
		}
		ok := true
		for p := base; p < base+360 && ok; p++ {
			u, err := net.ListenPacket("udp", fmt.Sprintf(":%d", p))
			if err != nil {
				ok = false
				break
			}
			u.Close()
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", p))
			if err != nil {
				ok = false
				break
			}
			l.Close()
		}
		if ok {
			t.Cleanup(func() { held.Close() })
			return base
		}
		held.Close()
	}
	t.Fatal("no free range of ports")
	return 0
}

var (
	accountOnce sync.Once
	accountDir  string
)

// startNode starts a node on an account that is made once for all tests (its
// keys take seconds), and waits until it is joinable.
func startNode(t *testing.T) *node {
	t.Helper()
	return startNodeWith(t, func(*node) {})
}

// startNodeWith starts a node after change.
func startNodeWith(t *testing.T, change func(*node)) *node {
	t.Helper()
	accountOnce.Do(func() {
		dir, err := os.MkdirTemp("", "parley-interop-")
		if err != nil {
			t.Fatal(err)
		}
		accountDir = dir
		n := newNode(t, dir)
		n.start()
		t.Logf("first start: joinable after %v", n.Joinable.Round(time.Millisecond))
		n.stop()
	})
	data := t.TempDir()
	if out, err := exec.Command("cp", "-a", accountDir+"/.", data).CombinedOutput(); err != nil {
		t.Fatalf("copy of the account: %v %s", err, out)
	}
	n := newNode(t, data)
	change(n)
	n.start()
	t.Cleanup(n.stop)
	return n
}

func newNode(t *testing.T, data string) *node {
	return &node{t: t, bin: parleyBinary(t), data: data, base: freeBase(t)}
}

func (n *node) env() []string {
	p := func(off int) string { return fmt.Sprintf(":%d", n.base+off) }
	return append(append(os.Environ(), n.more...), "PARLEY_DATA="+n.data, "PARLEY_HTTP_LISTEN="+p(0), "PARLEY_HTTP_TLS_LISTEN="+p(1),
		"PARLEY_SIP_LISTEN="+p(2), "PARLEY_SIP_TLS_LISTEN="+p(3), "PARLEY_JAMI_LISTEN="+p(4), "PARLEY_MEDIA_LISTEN="+p(100),
		"PARLEY_BUS_LISTEN="+cmp.Or(n.busHost, "127.0.0.1")+p(24), "PARLEY_ADMIN_LISTEN=127.0.0.1"+p(25), "PARLEY_DHT_LISTEN=127.0.0.1"+p(26))
}

func (n *node) start() {
	n.t.Helper()
	began := time.Now()
	n.launch()
	n.wait("joinable", 60*time.Second, func() bool { return n.ready() })
	n.Joinable = time.Since(began)
}

// launch starts the node and waits for nothing.
func (n *node) launch() {
	n.t.Helper()
	n.out = new(lockedBuffer)
	n.cmd = exec.Command(n.bin, "up", "--data", n.data)
	n.cmd.Env, n.cmd.Stdout, n.cmd.Stderr = n.env(), n.out, n.out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func() { n.err = n.cmd.Wait(); close(n.exited) }()
}

// ready asks the supervisor's /readyz.
func (n *node) ready() bool {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", n.base+25), time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return false
	}
	fmt.Fprint(c, "GET /readyz HTTP/1.0\r\n\r\n")
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && strings.Contains(line, " 200 ")
}

// admin asks the supervisor's health and metrics.
func (n *node) admin(path string) (int, string) {
	n.t.Helper()
	res, err := (&http.Client{Timeout: 5 * time.Second}).Get(fmt.Sprintf("http://127.0.0.1:%d%s", n.base+25, path))
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// metric returns the sum of a metric's samples whose labels contain a text.
func (n *node) metric(name, labels string) (sum float64) {
	n.t.Helper()
	_, text := n.admin("/metrics")
	found := false
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(key, name) || len(key) > len(name) && key[len(name)] != '{' || !strings.Contains(key, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			n.t.Fatal(err)
		}
		sum, found = sum+v, true
	}
	if !found {
		n.t.Errorf("no metric %s with %s", name, labels)
	}
	return sum
}

// stop ends the node in order and fails the test when that takes 5 s or more.
func (n *node) stop() {
	select {
	case <-n.exited:
		return
	default:
	}
	began := time.Now()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Error(err)
	}
	select {
	case <-n.exited:
	case <-time.After(10 * time.Second):
		n.t.Errorf("the node did not end within 10 s of SIGTERM\n%s", n.tail())
		if err := n.cmd.Process.Kill(); err != nil {
			n.t.Error(err)
		}
		<-n.exited
	}
	if took := time.Since(began); took >= 5*time.Second || n.err != nil {
		n.t.Errorf("SIGTERM: ended after %v with %v\n%s", took, n.err, n.tail())
	}
	if n.t.Failed() {
		n.t.Logf("the node said:\n%s", n.tail())
	}
}

func (n *node) tail() string {
	s := n.out.String()
	if len(s) > 16000 {
		s = s[len(s)-16000:]
	}
	return s
}

// again is how long to wait before something is asked again that was so at first: a tenth of what was waited, as
// asking takes a process of its own and the machine is others', too.
func again(began time.Time) time.Duration {
	return min(max(time.Since(began)/10, 20*time.Millisecond), 300*time.Millisecond)
}

// wait polls until ok, and says what was missing and what the node said.
func (n *node) wait(what string, limit time.Duration, ok func() bool) {
	n.t.Helper()
	began := time.Now()
	for !ok() {
		select {
		case <-n.exited:
			n.t.Fatalf("the node ended (%v) before: %s\n%s", n.err, what, n.tail())
		case <-time.After(again(began)):
		}
		if time.Since(began) > limit {
			n.t.Fatalf("not within %v: %s\n%s", limit, what, n.tail())
		}
	}
}

// parley runs a command of the binary against this node.
func (n *node) parley(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatalf("parley %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (n *node) try(args ...string) (string, error) {
	cmd := exec.Command(n.bin, append(args, "--data", n.data)...)
	cmd.Env = n.env()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out) + stderr.String(), err
	}
	return string(out), nil
}

func (n *node) status() (s status) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.parley("status", "--json")), &s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

func (n *node) pid(process string) int {
	n.t.Helper()
	for _, p := range n.status().Processes {
		if p.Name == process {
			return p.PID
		}
	}
	n.t.Fatalf("no process %s", process)
	return 0
}

// roster returns the ids of who is in the room main, in order, or nil when the node
// does not say.
func (n *node) roster() (ids []string) {
	out, err := n.try("status", "--json")
	var s status
	if err != nil || json.Unmarshal([]byte(out), &s) != nil {
		return nil
	}
	for _, r := range s.Rooms {
		if r.Name == "main" {
			ids = []string{}
			for _, p := range r.Participants {
				ids = append(ids, p.ID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// participants returns how many are in the room main, -1 when the node does not say.
func (n *node) participants() int {
	ids := n.roster()
	if ids == nil {
		return -1
	}
	return len(ids)
}

func (n *node) joinURL() string { return fmt.Sprintf("http://localhost:%d/r/main", n.base) }
func (n *node) sipAddr() string { return fmt.Sprintf("127.0.0.1:%d", n.base+2) }

func (n *node) busURL() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.base+24) }

// processReady reports whether a process runs with another pid than before.
func processReady(statusJSON, name string, before int) bool {
	var s status
	if json.Unmarshal([]byte(statusJSON), &s) != nil {
		return false
	}
	for _, p := range s.Processes {
		if p.Name == name {
			return p.PID != 0 && p.PID != before && p.Ready
		}
	}
	return false
}
