//go:build interop

package opendht

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// measureEnv, when set, has the measures run that take minutes (docs/dht-measures.md).
const measureEnv = "PARLEY_DHT_MEASURE"

// spread is some times as a line says them.
type spread []time.Duration

func (s spread) at(percent int) time.Duration {
	slices.Sort(s)
	return s[min(len(s)*percent/100, len(s)-1)]
}

func (s spread) String() string {
	return fmt.Sprintf("median %6d µs, p95 %6d µs", s.at(50).Microseconds(), s.at(95).Microseconds())
}

// TestLatency times puts and gets of 500 bytes, and how long until a listener is told, by
// python3-opendht and by a node of ours in turn in the same network of 42 nodes: one of
// stock nodes, and one of both by halves.
func TestLatency(t *testing.T) {
	count := 40
	if os.Getenv(measureEnv) != "" {
		count = 200
	}
	for _, x := range []struct {
		name        string
		ours, stock int
	}{{"StockNetwork", 1, 40}, {"BothHalf", 21, 20}} {
		t.Run(x.name, func(t *testing.T) { latency(t, newWorld(t, x.ours, x.stock, 1), x.name, count) })
	}
}

func latency(t *testing.T, w *world, name string, count int) {
	p, o := w.python[0], w.ours[0]
	listener := start(t, 1, func(n *Options) { n.Bootstrap = []string{fmt.Sprintf("127.0.0.1:%d", w.stock[0].port)} })
	wait(t, func() bool { return listener.Node().Peers >= 8 })
	data := make([]byte, 500)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	var times [5]spread
	for i := range count {
		theirs, mine := hashed(fmt.Sprint(name, "p", i)), hashed(fmt.Sprint(name, "o", i))
		e := p.do(t, "put", theirs, data)
		times[0] = append(times[0], time.Duration(e.US*1e3))
		v := plainValue(t, mine, data)
		began := time.Now()
		if _, err := o.Put(t.Context(), v, false); err != nil {
			t.Fatal(err)
		}
		times[1] = append(times[1], time.Since(began))
		e = p.do(t, "get", mine, nil)
		times[2] = append(times[2], time.Duration(e.US*1e3))
		began = time.Now()
		vs, err := o.Get(t.Context(), theirs)
		times[3] = append(times[3], time.Since(began))
		if err != nil || len(vs) != 1 || len(e.Values) != 1 {
			t.Fatalf("round %d: ours got %d, %v; python got %d", i, len(vs), err, len(e.Values))
		}
	}
	key, told := hashed(name+"listen"), make(chan time.Time, 1)
	_, stop, err := listener.Listen(t.Context(), key, func(overlay.Change) { told <- time.Now() })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	time.Sleep(2 * time.Second) // stock nodes say nothing of when they have a listener
	for range count {
		began := time.Now()
		if _, err := o.Put(t.Context(), plainValue(t, key, data), false); err != nil {
			t.Fatal(err)
		}
		times[4] = append(times[4], (<-told).Sub(began))
	}
	for i, what := range []string{"python put", "ours put", "python get", "ours get", "put to callback"} {
		t.Logf("%-15s %s", what, times[i])
	}
	ratio := func(a, b int, percent int) float64 {
		return float64(times[a].at(percent)) / float64(times[b].at(percent))
	}
	t.Logf("ours to python: put %.2f (p95 %.2f), get %.2f (p95 %.2f); load %s", ratio(1, 0, 50), ratio(1, 0, 95), ratio(3, 2, 50), ratio(3, 2, 95), load())
	if ratio(1, 0, 50) > 1 || ratio(3, 2, 50) > 1 {
		t.Error("slower than python3-opendht")
	}
	if d := times[4].at(50); d > 3*time.Millisecond {
		t.Errorf("told after %s", d)
	}
}

// usage is what a process takes.
type usage struct {
	cpu time.Duration
	rss int // KiB
}

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	for _, i := range []int{11, 12} { // utime and stime, in hundredths
		n, err := strconv.Atoi(f[i])
		if err != nil {
			t.Fatal(err)
		}
		u.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if u.rss, err = strconv.Atoi(strings.Fields(rest)[0]); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestResources: what an idle node takes, and one that holds 100,000 values of others,
// beside a dhtnode in the same network, over a minute.
func TestResources(t *testing.T) {
	if os.Getenv(measureEnv) == "" {
		t.Skipf("takes minutes; set %s", measureEnv)
	}
	const idle, values, size = time.Minute, 100_000, 64
	w := newWorld(t, 0, 6, 0) // fewer than 8 others: each keeps whatever it is sent
	first := fmt.Sprintf("127.0.0.1:%d", w.stock[0].port)
	p := startProcess(t, processOptions{Listen: "127.0.0.1:0", Key: filepath.Join(t.TempDir(), "key.pem"), Bootstrap: []string{first}})
	p.line(t)
	their := w.stock[5]
	pids := map[string]int{"ours": p.cmd.Process.Pid, "dhtnode": their.pid}
	addrs := map[string]netip.AddrPort{"ours": netip.MustParseAddrPort(p.Addr), "dhtnode": netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", their.port))}
	measure := func(what string) {
		before := map[string]usage{}
		for name, pid := range pids {
			before[name] = usageOf(t, pid)
		}
		time.Sleep(idle)
		for _, name := range []string{"ours", "dhtnode"} {
			u := usageOf(t, pids[name])
			t.Logf("%-12s %-8s %6.2f CPU s in %s, %7.1f MiB", what, name, (u.cpu - before[name].cpu).Seconds(), idle, float64(u.rss)/1024)
		}
		t.Logf("load %s", load())
	}
	measure("idle")
	for name, to := range addrs {
		before := usageOf(t, pids[name])
		acked, took := fill(t, to, values, size)
		u := usageOf(t, pids[name])
		t.Logf("%-8s %d values of %d bytes sent, %d answered, in %s, %.2f CPU s", name, values, size, acked, took.Round(time.Millisecond), (u.cpu - before.cpu).Seconds())
		t.Logf("%-8s has %d of 1000 that were looked at", name, sample(t, to, values))
	}
	measure("100,000")
}

// talker speaks the wire with one node, from a loopback address of its own.
type talker struct {
	t   *testing.T
	fd  int
	id  jami.ID
	buf []byte
	tid uint32
}

func newTalker(t *testing.T, to netip.AddrPort, host byte) *talker {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Close(fd); err != nil {
			t.Error(err)
		}
	})
	wait := syscall.NsecToTimeval(int64(100 * time.Millisecond))
	for _, err := range []error{
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 1, host}}),
		syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &talker{t: t, fd: fd, id: jami.HashKey(fmt.Sprint("talker", host)), buf: make([]byte, wire.MaxPacket)}
}

// ask sends a query and waits for its answer; false when there is none.
func (x *talker) ask(m wire.Message, r *wire.Message) bool {
	x.tid += 2
	m.TID, m.ID, m.Client = x.tid, x.id, true
	if _, err := syscall.Write(x.fd, m.Append(nil)); err != nil {
		x.t.Fatal(err)
	}
	for {
		n, err := syscall.Read(x.fd, x.buf)
		if err != nil {
			return false
		}
		if wire.Decode(x.buf[:n], r) != nil {
			continue
		}
		if r.TID == m.TID && (r.Kind == wire.Reply || r.Kind == wire.Error) {
			return r.Kind == wire.Reply
		}
		if r.Kind.Query() { // it wants to know whether we are there
			a := wire.Message{Kind: wire.Reply, TID: r.TID, ID: x.id, Token: []byte("t"), Has: wire.HasToken, Client: true}
			if _, err := syscall.Write(x.fd, a.Append(nil)); err != nil {
				x.t.Fatal(err)
			}
		}
	}
}

func valueKey(i int) jami.ID { return jami.HashKey(fmt.Sprint("resource", i)) }

// fill puts values under as many keys from 16 addresses, slower than the limits of one. It
// ends early when a hundred in a row are not answered.
func fill(t *testing.T, to netip.AddrPort, values, size int) (acked int, took time.Duration) {
	t.Helper()
	began := time.Now()
	var r wire.Message
	var talkers []*talker
	var tokens [][]byte
	for host := range byte(16) {
		x := newTalker(t, to, host+1)
		if !x.ask(wire.Message{Kind: wire.Find, Target: valueKey(0)}, &r) {
			t.Fatal("no token")
		}
		talkers, tokens = append(talkers, x), append(tokens, slices.Clone(r.Token))
	}
	silent := 0
	for i := range values {
		v, err := (&jami.Value{ID: uint64(i + 1), Type: 4, Data: bytes.Repeat([]byte{byte(i)}, size)}).Pack()
		if err != nil {
			t.Fatal(err)
		}
		x := i % len(talkers)
		m := wire.Message{Kind: wire.Put, Target: valueKey(i), Token: tokens[x], Has: wire.HasToken | wire.HasValues, Values: wire.NewArray(1, v)}
		silent++
		for range 3 {
			if talkers[x].ask(m, &r) {
				acked++
				silent = 0
				break
			}
		}
		if silent > 100 {
			return acked, time.Since(began)
		}
		if ahead := time.Duration(i)*time.Second/7000 - time.Since(began); ahead > time.Millisecond { // 8192/s are taken in all (§1.6)
			time.Sleep(ahead)
		}
	}
	return acked, time.Since(began)
}

// sample looks at one value in a hundred.
func sample(t *testing.T, to netip.AddrPort, values int) (found int) {
	t.Helper()
	x := newTalker(t, to, 99)
	var r wire.Message
	for i := 0; i < values; i += values / 1000 {
		if x.ask(wire.Message{Kind: wire.Get, Target: valueKey(i), Has: wire.HasQuery}, &r) && r.Values.Len() > 0 {
			found++
		}
	}
	return found
}
