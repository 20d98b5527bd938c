package supervise

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
)

// The test binary plays the children, and the supervisor that is killed.
const (
	envRole = "SUPERVISE_TEST_ROLE"
	envDir  = "SUPERVISE_TEST_DIR"
)

func TestMain(m *testing.M) {
	role := os.Getenv(envRole)
	dir := os.Getenv(envDir)
	switch {
	case role == "":
		goleak.VerifyTestMain(m)
	case role == "supervisor":
		runFakeSupervisor(dir)
	default:
		runFakeChild(dir, os.Args[1])
	}
}

// runFakeChild lives as its name says: NAME-MODE.
func runFakeChild(dir, name string) {
	_, mode, _ := strings.Cut(name, "-")
	if mode == "crash" {
		os.Exit(3)
	}
	sock := filepath.Join(dir, name+".sock")
	os.Remove(sock) // its predecessor's
	l, err := net.Listen("unix", sock)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, syscall.SIGTERM)
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if mode == "unready" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		kind := "counter"
		if mode == "oddmetrics" {
			kind = "gauge"
		}
		fmt.Fprintf(w, "# TYPE things %s\nthings{kind=\"a\"} %d\n", kind, len(name))
	})
	go http.Serve(l, mux)
	fmt.Printf("%s is here\n", name)
	<-sigs
	for mode == "stubborn" {
		<-sigs
	}
	f, err := os.OpenFile(filepath.Join(dir, "ended"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(f, name)
		f.Close()
	}
	os.Exit(0)
}

// runFakeSupervisor holds the data lock and one child until it is killed.
func runFakeSupervisor(dir string) {
	lock, err := Lock(context.Background(), dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	s := newFake(dir, os.Stdout, lock, 0, "orphan-ok")
	if err := s.Run(context.Background(), nil); err != nil {
		fmt.Println(err)
	}
}

// newFake supervises children of the given names; the i-th stops in wave i/per,
// or all in wave 0 where per is 0.
func newFake(dir string, out *os.File, lock *os.File, per int, names ...string) *Supervisor {
	var specs []Spec
	for i, n := range names {
		wave := 0
		if per > 0 {
			wave = i / per
		}
		specs = append(specs, Spec{Name: n, Wave: wave, Needed: true, Health: filepath.Join(dir, n+".sock")})
	}
	o := Options{Specs: specs, Path: "/proc/self/exe", Args: func(n string) []string { return []string{n} },
		Env: append(os.Environ(), envRole+"=child", envDir+"="+dir,
			"GORACE=atexit_sleep_ms=0"), // else each child takes a second to end under the race detector
		Out: NewOutput(out), Log: zap.NewNop()}
	if lock != nil {
		o.Inherit = []*os.File{lock}
	}
	return New(o)
}

// start runs s for the length of the test. The returned function stops it once
// and returns what Run did.
func start(t *testing.T, s *Supervisor) (stop func() error, kill chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	kill = make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, kill) }()
	var err error
	stopped := false
	stop = func() error {
		if !stopped {
			cancel()
			err = <-done
			s.o.Out.Close()
			stopped = true
		}
		return err
	}
	t.Cleanup(func() { stop() })
	return stop, kill
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sup") // short: it holds Unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func devNull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// eventually polls cond until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-tick.C
	}
}

func waitJoinable(t *testing.T, s *Supervisor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.WaitJoinable(ctx); err != nil {
		t.Fatalf("not joinable: %v: %+v", err, s.Processes())
	}
}

func processState(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "" // gone
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}
