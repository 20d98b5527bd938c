package supervise

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/sockets"
)

func TestKilledChildComesBackAndOthersStay(t *testing.T) {
	dir := tempDir(t)
	s := newFake(dir, devNull(t), nil, 0, "one-ok", "two-ok")
	stop, _ := start(t, s)
	waitJoinable(t, s)
	before := s.Processes()

	if err := syscall.Kill(before[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new process", func() bool {
		p := s.Processes()[0]
		return p.PID != 0 && p.PID != before[0].PID
	})
	waitJoinable(t, s)
	after := s.Processes()
	if after[0].Restarts != 1 || after[1].Restarts != 0 || after[1].PID != before[1].PID {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A held socket keeps what arrives while its child is away.
func TestHeldSocketOutlivesItsChild(t *testing.T) {
	probe, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := probe.LocalAddr().String()
	probe.Close()
	set, err := sockets.Open([]sockets.Spec{{Name: sockets.Media0, Network: "udp", Addr: addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	s := newFake(tempDir(t), devNull(t), nil, 0, "one-ok")
	s.children[0].Sockets = set
	start(t, s)
	waitJoinable(t, s)
	if err := syscall.Kill(s.Processes()[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := net.ListenPacket("udp", addr); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the port is free: %v", err)
	}
	eventually(t, "a restart", func() bool { return s.Processes()[0].Restarts == 1 })
}

func TestCrashLoopBacksOffAndStops(t *testing.T) {
	s := newFake(tempDir(t), devNull(t), nil, 0, "one-crash")
	began := time.Now()
	stop, _ := start(t, s)
	eventually(t, "three restarts", func() bool { return s.Processes()[0].Restarts >= 3 })
	// 0, 100 and 200 ms, each at most 20 % shorter.
	if took := time.Since(began); took < 240*time.Millisecond {
		t.Errorf("three restarts in %s: no back-off", took)
	}
	if s.Joinable() {
		t.Error("joinable with a process that is down")
	}
	if err := stop(); err != nil {
		t.Errorf("stop while waiting for a restart: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	within := func(d, want time.Duration) bool {
		return d >= want*8/10 && d <= min(want*12/10, backoffMax)
	}
	var b backoff
	if d := b.next(0); d != 0 {
		t.Errorf("first restart waits %s", d)
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		if d := b.next(0); !within(d, want*time.Millisecond) {
			t.Errorf("wait %d: %s, want about %s", i, d, want*time.Millisecond)
		}
	}
	for range 1000 {
		if d := b.next(0); d > backoffMax {
			t.Fatalf("wait %s", d)
		}
	}
	if d := b.next(backoffReset); d != 0 {
		t.Errorf("after a long run it waits %s", d)
	}
}

func TestStopGoesInWaves(t *testing.T) {
	dir := tempDir(t)
	s := newFake(dir, devNull(t), nil, 1, "first-ok", "second-ok", "third-ok", "fourth-ok")
	stop, _ := start(t, s)
	waitJoinable(t, s)
	began := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("stop took %s", took)
	}
	text, err := os.ReadFile(filepath.Join(dir, "ended"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(text)); strings.Join(got, " ") != "first-ok second-ok third-ok fourth-ok" {
		t.Errorf("ended in order %v", got)
	}
}

func TestStubbornChildIsKilledInTimeAndNamed(t *testing.T) {
	s := newFake(tempDir(t), devNull(t), nil, 1, "one-stubborn", "two-stubborn", "three-stubborn", "four-stubborn")
	stop, _ := start(t, s)
	waitJoinable(t, s)
	began := time.Now()
	err := stop()
	if took := time.Since(began); took > 8*time.Second { // 4.6 s where the machine does nothing else
		t.Errorf("stop took %s", took)
	}
	for _, name := range []string{"one-stubborn", "four-stubborn"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v does not name %s", err, name)
		}
	}
}

func TestSecondSignalKills(t *testing.T) {
	s := newFake(tempDir(t), devNull(t), nil, 0, "one-stubborn", "two-stubborn")
	stop, kill := start(t, s)
	waitJoinable(t, s)
	close(kill)
	began := time.Now()
	if err := stop(); err == nil {
		t.Error("no word of the kill")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestUnreadyChildIsNotJoinable(t *testing.T) {
	s := newFake(tempDir(t), devNull(t), nil, 0, "one-ok", "two-unready")
	start(t, s)
	eventually(t, "one is ready", func() bool { return s.Processes()[0].Ready })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.WaitJoinable(ctx); !errors.Is(err, context.Canceled) || s.Joinable() {
		t.Errorf("joinable: %v", err)
	}
}

// A supervisor that is killed takes its children with it, and the data lock is
// free only when they have ended.
func TestKilledSupervisor(t *testing.T) {
	dir := tempDir(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envRole+"=supervisor", envDir+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	eventually(t, "the child of the other supervisor", func() bool {
		for _, task := range glob("/proc/" + itoa(cmd.Process.Pid) + "/task/*/children") {
			if text, err := os.ReadFile(task); err == nil && len(strings.Fields(string(text))) > 0 {
				child = atoi(strings.Fields(string(text))[0])
			}
		}
		_, serr := os.Stat(filepath.Join(dir, "orphan-ok.sock"))
		return child != 0 && serr == nil
	})
	if _, err := Lock(context.Background(), dir); err == nil || !strings.Contains(err.Error(), itoa(cmd.Process.Pid)) {
		t.Errorf("a second node: %v, want an error with pid %d", err, cmd.Process.Pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // its status is the kill
	lock, err := Lock(context.Background(), dir)
	if err != nil {
		t.Fatalf("the lock is not free after the end of all: %v", err)
	}
	defer lock.Close()
	eventually(t, "the orphan's end", func() bool { st := processState(child); return st == "" || st == "Z" })
}
