package opendht

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
)

// nodeEnv has the test binary be one node, of these options as JSON, until it is killed.
const nodeEnv = "PARLEY_OPENDHT_TEST_NODE"

// processOptions are what a node in a process of its own is told.
type processOptions struct {
	Listen    string
	Key       string // file; made when it is not there
	State     string
	Bootstrap []string
}

func TestMain(m *testing.M) {
	if s := os.Getenv(nodeEnv); s != "" {
		if err := runNode(s); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// runNode says where it is, and then when it knows its first node.
func runNode(options string) error {
	var p processOptions
	if err := json.Unmarshal([]byte(options), &p); err != nil {
		return err
	}
	k, err := NodeKey(p.Key)
	if err != nil {
		return err
	}
	n, err := New(Options{Key: k, Listen: p.Listen, Bootstrap: p.Bootstrap, State: p.State, Log: zap.NewNop()})
	if err != nil {
		return err
	}
	fmt.Println(n.Node().Addresses[0])
	for n.Node().Peers == 0 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("joined")
	select {}
}

// process is a node in a process of its own.
type process struct {
	cmd  *exec.Cmd
	out  *bufio.Scanner
	Addr string
}

func startProcess(t testing.TB, o processOptions) *process {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), nodeEnv+"="+string(b))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.out = bufio.NewScanner(out)
	p.Addr = p.line(t)
	return p
}

func (p *process) line(t testing.TB) string {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the process ended: %v", p.out.Err())
	}
	return p.out.Text()
}

// kill is kill -9.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may be gone
	_ = p.cmd.Wait()         // "killed" is no error here
}

// TestKilled: a process that is killed, and starts again without a bootstrap node, is back
// in the network within a second, from its start as a process on.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	first := startProcess(t, processOptions{Listen: "127.0.0.1:0", Key: filepath.Join(dir, "first.pem")})
	for i := range 4 {
		startProcess(t, processOptions{Listen: "127.0.0.1:0", Key: filepath.Join(dir, fmt.Sprint(i)), Bootstrap: []string{first.Addr}})
	}
	o := processOptions{Listen: "127.0.0.1:0", Key: filepath.Join(dir, "x.pem"), State: filepath.Join(dir, "nodes.json")}
	p := startProcess(t, processOptions{Listen: o.Listen, Key: o.Key, State: o.State, Bootstrap: []string{first.Addr}})
	p.line(t)
	wait(t, func() bool { s, err := loadState(o.State); return err == nil && len(s) > 0 })
	var took []time.Duration
	for range 10 {
		p.kill()
		began := time.Now()
		p = startProcess(t, o)
		if s := p.line(t); s != "joined" {
			t.Fatal(s)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("back in %s, median of 10; at most %s (load %s)", took[5], took[9], load())
	if took[5] > time.Second {
		t.Errorf("back after %s", took[5])
	}
}

// load is what the machine does beside a measure.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil || len(b) < 14 {
		return "unknown"
	}
	return fmt.Sprintf("%s on %d cores", b[:14], runtime.NumCPU())
}
