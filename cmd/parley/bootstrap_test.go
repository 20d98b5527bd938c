package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// isolated is the network of these tests.
const isolated = 4242

// boot is a `parley run dht --bootstrap`.
type boot struct {
	env         []string
	addr, admin string
	cmd         *exec.Cmd
	said        *bytes.Buffer
	done        chan struct{}
}

func newBoot(t *testing.T) *boot {
	t.Helper()
	b := &boot{}
	bustest.Ports(t, func(base int) bool {
		b.addr, b.admin = fmt.Sprintf("127.0.0.1:%d", base), fmt.Sprintf("127.0.0.1:%d", base+1)
		return true
	})
	_, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	b.env = []string{"PARLEY_DATA=" + t.TempDir(), "PARLEY_DHT_OPENDHT_LISTEN=:" + port, "PARLEY_ADMIN_LISTEN=" + b.admin, "PARLEY_DHT_NETWORK=" + strconv.Itoa(isolated)}
	return b
}

// start starts it and waits until it is ready.
func (b *boot) start(t *testing.T) {
	t.Helper()
	b.said, b.done = new(bytes.Buffer), make(chan struct{})
	b.cmd = exec.Command("/proc/self/exe", "run", "dht", "--bootstrap")
	b.cmd.Env = append(append(os.Environ(), b.env...), envPlay+"=1", "GORACE=atexit_sleep_ms=0")
	b.cmd.Stderr = b.said
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, done := b.cmd, b.done
	go func() {
		cmd.Wait() // the tests look at ProcessState
		close(done)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() // an error: it has ended, as it should
		<-done
	})
	eventually(t, "ready", func() bool { return parley(b.env, "", "ready").code == exitOK })
}

func (b *boot) end(t *testing.T, sig os.Signal) int {
	t.Helper()
	if err := b.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	<-b.done
	return b.cmd.ProcessState.ExitCode()
}

// metric returns the value of a metric, by its name and some of its labels.
func (b *boot) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	r, err := http.Get("http://" + b.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	all, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		ok := strings.HasPrefix(line, name+"{") || strings.HasPrefix(line, name+" ")
		for _, l := range labels {
			ok = ok && strings.Contains(line, l)
		}
		if ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}

func (b *boot) good(t *testing.T) float64 {
	return b.metric(t, "parley_dht_nodes", `family="ipv4"`, `state="good"`)
}

// rss is the memory of the process in bytes.
func (b *boot) rss(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatal("no VmRSS")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

func (b *boot) cpu(t *testing.T) float64 { return b.metric(t, "process_cpu_seconds_total") }

// member is a node of ours that starts from a bootstrap node.
func member(t *testing.T, from ...string) *opendht.Node {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	n, err := opendht.New(opendht.Options{Key: k, Listen: "127.0.0.1:0", Bootstrap: from, Network: isolated, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestBootstrapNode(t *testing.T) {
	b := newBoot(t)
	b.start(t)
	one, other := member(t, b.addr), member(t, b.addr)
	want := 2
	if path, err := exec.LookPath("dhtnode"); err != nil {
		t.Log("without dhtnode: no stock node takes part")
	} else {
		stock := exec.Command(path, "-n", strconv.Itoa(isolated), "-b", b.addr, "-p", "0", "-s")
		if err := stock.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			stock.Process.Kill() // an error: it has ended
			stock.Wait()
		})
		want++
	}
	eventually(t, "all find each other through it", func() bool {
		return one.Node().Peers >= want && other.Node().Peers >= want && int(b.good(t)) >= want
	})
	key := overlay.Key(jami.HashKey("through it"))
	if st, err := one.Put(t.Context(), overlay.Value{Key: key, Data: []byte("hello")}, true); err != nil || st.Peers < want {
		t.Errorf("%+v, %v", st, err)
	}
	if vs, err := other.Get(t.Context(), key); err != nil || len(vs) != 1 || string(vs[0].Data) != "hello" {
		t.Errorf("%v, %v", vs, err)
	}
	// A node of another network is nobody to it.
	if r := parley(append(b.env, "PARLEY_DHT_NETWORK=4294967296"), "", "config", "check"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}

	saved := filepath.Join(strings.TrimPrefix(b.env[0], "PARLEY_DATA="), "dht", "opendht-nodes.json")
	eventually(t, "it saves whom it knows", func() bool {
		text, err := os.ReadFile(saved)
		return err == nil && strings.Count(string(text), "@") >= want
	})
	if r := parley(append(b.env, "PARLEY_ADMIN_LISTEN=127.0.0.1:0", "PARLEY_DHT_OPENDHT_LISTEN=127.0.0.1:0"), "", "run", "dht", "--bootstrap"); r.code != exitRefused || !strings.Contains(r.err, "another node uses") {
		t.Errorf("a second one with the same key: %+v", r)
	}
	b.end(t, syscall.SIGKILL)
	if b.metricsUp() {
		t.Fatal("it still runs")
	}
	b.start(t) // no bootstrap node of its own: what it saved is all that it has
	ready := time.Now()
	eventually(t, "it is back", func() bool { return int(b.good(t)) >= want })
	took := time.Since(ready)
	t.Logf("back after %s with %d nodes, %.1f MiB", took, want, float64(b.rss(t))/(1<<20))
	if took > time.Second {
		t.Errorf("back after %s", took)
	}
	late := member(t, b.addr)
	eventually(t, "a new node finds the others", func() bool { return late.Node().Peers >= want })
	if code := b.end(t, syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, b.said)
	}
}

func (b *boot) metricsUp() bool {
	c, err := net.Dial("tcp", b.admin)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Junk and questions without end harm nobody else: it answers, its memory stays small, and
// it sends no more than the stranger's due.
func TestBootstrapNodeIsFlooded(t *testing.T) {
	b := newBoot(t)
	b.start(t)
	friend := member(t, b.addr)
	eventually(t, "met", func() bool { return b.good(t) == 1 })
	idle, cpu := b.rss(t), b.cpu(t)

	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(b.addr))
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 66)}, to) // a host of its own
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	back := make(chan int, 1)
	go func() {
		p, sum := make([]byte, 64<<10), 0
		for {
			n, err := c.Read(p)
			if err != nil {
				back <- sum
				return
			}
			sum += n
		}
	}()
	const packets = 200_000
	sent, junk := 0, make([]byte, 400)
	if _, err := rand.Read(junk); err != nil {
		t.Fatal(err)
	}
	slowest := time.Duration(0)
	began := time.Now()
	for i := range packets {
		p := junk[:20+i%380]
		if i%2 == 0 { // who it claims to be is another one each time
			m := wire.Message{Kind: wire.Find, TID: uint32(i), Network: isolated, Has: wire.HasTarget}
			copy(m.ID[:], fmt.Sprintf("%020d", i))
			m.Target = m.ID
			p = m.Append(nil)
		}
		if _, err := c.Write(p); err != nil {
			continue // ENOBUFS: the machine is busy enough
		}
		sent += len(p)
		if i%20_000 == 19_999 {
			ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
			pong, err := friend.Ping(ctx, b.addr)
			cancel()
			if err != nil {
				t.Error(err)
			}
			slowest = max(slowest, pong.Time)
		}
	}
	took := time.Since(began)
	spent := b.cpu(t) - cpu
	if err := c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	got := <-back
	dropped := b.metric(t, "parley_dht_packets_dropped_total", `reason="malformed"`) + b.metric(t, "parley_dht_packets_dropped_total", `reason="rate"`)
	after := b.rss(t)
	t.Logf("%d packets, %d KiB in %s; %d KiB came back; %.0f dropped; %.2f s of CPU, %.1f to %.1f MiB, a ping took %s at most",
		packets, sent>>10, took.Round(time.Millisecond), got>>10, dropped, spent, float64(idle)/(1<<20), float64(after)/(1<<20), slowest)
	if got > 4*sent || dropped < packets/20 {
		t.Errorf("%d bytes came back for %d, %.0f packets were dropped", got, sent, dropped)
	}
	if grown := after - idle; grown > 96<<20 {
		t.Errorf("it grew by %d MiB", grown>>20)
	}
	if vs, err := friend.Ping(t.Context(), b.addr); err != nil {
		t.Errorf("%+v, %v", vs, err)
	}
	if code := b.end(t, syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, b.said)
	}
}
