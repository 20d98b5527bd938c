package embed_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/actor"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/embed"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/natscreds"
)

// clusterPatience is for elections, on a machine that is busy.
const clusterPatience = 60 * time.Second

// wire is a way from one server to another that can be cut.
type wire struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{l: l, to: to, conns: map[net.Conn]bool{}}
	w.wg.Go(w.run)
	t.Cleanup(func() {
		l.Close()
		w.set(true)
		w.wg.Wait()
	})
	return w
}

func (w *wire) run() {
	for {
		in, err := w.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to)
		w.mu.Lock()
		if err != nil || w.cut {
			w.mu.Unlock()
			in.Close()
			if err == nil {
				out.Close()
			}
			continue
		}
		w.conns[in], w.conns[out] = true, true
		w.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			w.wg.Go(func() {
				io.Copy(pair[0], pair[1]) //nolint:errcheck // it ends with either end
				in.Close()
				out.Close()
			})
		}
	}
}

// set cuts the wire, what is under way too, or mends it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.conns {
		if cut {
			c.Close()
			delete(w.conns, c)
		}
	}
}

// clusterOfThree are the node's server, number 0, and two members, joined by wires.
type clusterOfThree struct {
	t     *testing.T
	cfg   [3]*config.Config
	wires map[[2]int]*wire
	stop  [3]func()
}

func newClusterOfThree(t *testing.T) *clusterOfThree {
	t.Helper()
	c := &clusterOfThree{t: t, wires: map[[2]int]*wire{}}
	var ports [3]string
	for i := range c.cfg {
		ports[i] = fmt.Sprintf("127.0.0.1:%d", bustest.FreePort(t))
		cfg := &config.Config{Data: t.TempDir()}
		cfg.Bus = config.Bus{Listen: fmt.Sprintf("127.0.0.1:%d", bustest.FreePort(t)), ClusterListen: ports[i], ClusterAdvertise: "127.0.0.1:1", ClusterServer: fmt.Sprintf("s%d", i), Member: i > 0}
		c.cfg[i] = cfg
	}
	for i := range 3 {
		for j := range 3 {
			if i != j {
				w := newWire(t, ports[j])
				c.wires[[2]int{i, j}] = w
				c.cfg[i].Bus.ClusterRoutes = append(c.cfg[i].Bus.ClusterRoutes, w.l.Addr().String())
			}
		}
	}
	var urls []string
	for _, cfg := range c.cfg {
		urls = append(urls, "nats://"+cfg.Bus.Listen)
	}
	c.cfg[0].Bus.Public = strings.Join(urls, ",")
	c.start(0)
	for i := 1; i < 3; i++ { // as the operator does it
		raw, err := os.ReadFile(filepath.Join(c.cfg[0].Data, "bus/keys/keys.json"))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(c.cfg[i].Data, "bus/keys")
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "keys.json"), raw, 0o600)); err != nil {
			t.Fatal(err)
		}
		c.start(i)
	}
	return c
}

func (c *clusterOfThree) start(i int) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := embed.New(&host.Env{Name: "bus", Version: "test", Config: c.cfg[i], Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
	if err != nil {
		c.t.Fatal(err)
	}
	up, done := make(chan struct{}), make(chan error, 1)
	r.(*embed.Bus).Started = func(string) { close(up) }
	go func() { done <- r.Run(ctx) }()
	select {
	case <-up:
	case err := <-done:
		c.t.Fatal(err)
	}
	var once sync.Once
	c.stop[i] = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				c.t.Errorf("server %d: %v", i, err)
			}
		})
	}
	c.t.Cleanup(c.stop[i])
}

// conn connects as a process to one server, or to all of them.
func (c *clusterOfThree) conn(name string, servers ...int) *bus.Conn {
	c.t.Helper()
	var urls []string
	for _, i := range servers {
		urls = append(urls, "nats://"+c.cfg[i].Bus.Listen)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), clusterPatience)
	defer cancel()
	b, err := bus.Connect(ctx, bus.Options{URL: strings.Join(urls, ","), Creds: host.CredsFile(c.cfg[0], name), Name: name, Log: zap.NewNop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(b.Close)
	return b
}

// split cuts one server off from the others, or joins it again.
func (c *clusterOfThree) split(i int, cut bool) {
	for pair, w := range c.wires {
		if pair[0] == i || pair[1] == i {
			w.set(cut)
		}
	}
}

// until repeats fn until it succeeds and returns how long that took.
func until(t *testing.T, what string, fn func(ctx context.Context) error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := fn(ctx)
		cancel()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > clusterPatience {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestClusterOutlivesAServer: what was acknowledged is there when any one of three servers is gone, and
// writing goes on; a worker comes by another one, and who is revoked is out at all of them.
func TestClusterOutlivesAServer(t *testing.T) {
	c := newClusterOfThree(t)
	kv := c.conn("conference", 1, 2).KV(contract.BucketRooms)
	took := until(t, "first write", func(ctx context.Context) error { _, err := kv.Put(ctx, "n", []byte("0")); return err })
	fmt.Printf("cluster: three servers keep a value %v after the last of them was up\n", took.Round(time.Millisecond))

	cli := c.conn("cli", 0)
	c.conn("media", 2)
	told := make(chan struct{}, 64)
	if _, err := bus.Subscribe(c.conn("conference", 0), contract.BusConnected, func(_ context.Context, _ []string, e *contract.Connected) {
		if slices.Contains(e.Names, "media") && slices.Contains(e.Names, "cli") {
			told <- struct{}{}
		}
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
	case <-time.After(clusterPatience):
		t.Fatal("who is at a member is not there")
	}
	worker := addWorker(t, cli, "hall2")
	a, err := natscreds.ReadAccess(worker)
	if err != nil || len(a.URLs) != 3 {
		t.Fatal(a, err)
	}
	gone, err := dial(t, a.URLs[1], worker, nats.NoReconnect())
	if err != nil {
		t.Fatalf("a worker at a member: %v", err)
	}
	closed := gone.StatusChanged(nats.CLOSED)
	if _, err := bus.Call(t.Context(), cli, contract.BusRevokeWorker, &contract.WorkerName{Name: "hall2"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(clusterPatience):
		t.Fatal("a revoked worker is still at a member")
	}
	for i, url := range a.URLs {
		if _, err := dial(t, url, worker); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("server %d: %v", i, err)
		}
	}

	leader := c.leader("KV_" + contract.BucketRooms)
	var acked []string
	for i := range 50 {
		key := fmt.Sprintf("k%d", i)
		if _, err := kv.Put(t.Context(), key, []byte(key)); err == nil {
			acked = append(acked, key)
		}
	}
	c.stop[leader]()
	left := c.conn("conference", (leader+1)%3, (leader+2)%3)
	kv = left.KV(contract.BucketRooms)
	took = until(t, "write without a server", func(ctx context.Context) error { _, err := kv.Put(ctx, "n", []byte("1")); return err })
	lost := 0
	for _, key := range acked {
		if v, _, err := kv.Get(t.Context(), key); err != nil || string(v) != key {
			lost++
		}
	}
	fmt.Printf("cluster: the leader of a stream is stopped: writing goes on after %v; %d of %d acknowledged values lost\n", took.Round(time.Millisecond), lost, len(acked))
	if lost > 0 || len(acked) < 50 {
		t.Errorf("%d acknowledged, %d lost", len(acked), lost)
	}
}

// leader is the server that leads a stream.
func (c *clusterOfThree) leader(stream string) int {
	c.t.Helper()
	nc := c.conn("conference", 0).NATS()
	var leader int
	until(c.t, "leader of "+stream, func(ctx context.Context) error {
		m, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+stream, nil)
		if err != nil {
			return err
		}
		_, after, ok := strings.Cut(string(m.Data), `"leader":"s`)
		if !ok {
			return errors.New(string(m.Data))
		}
		leader = int(after[0] - '0')
		return nil
	})
	return leader
}

// TestSplitNeverHasTwo: who holds a lease at the server that is cut off has yielded before somebody at the
// others can take it, whose epoch is higher; and mended, the former is refused.
func TestSplitNeverHasTwo(t *testing.T) {
	c := newClusterOfThree(t)
	at := [2]*actorBucket{{c.conn("conference", 0).KV(contract.BucketLeases)}, {c.conn("conference", 1, 2).KV(contract.BucketLeases)}}
	spec := func(owner string) actor.LeaseSpec {
		return actor.LeaseSpec{Owner: owner, Instance: owner + "1", TTL: 4 * time.Second, Loss: actor.YieldOnLoss}
	}
	var first *actor.Lease
	until(t, "first lease", func(ctx context.Context) (err error) {
		first, err = actor.Acquire(ctx, at[0], "conference.rooms", spec("a"))
		return err
	})
	if _, err := actor.Acquire(t.Context(), at[1], "conference.rooms", spec("b")); !errors.Is(err, contract.ErrExists) {
		t.Fatalf("a second one holds it: %v", err)
	}
	cutAt := time.Now()
	c.split(0, true)
	type got struct {
		l  *actor.Lease
		at time.Time
	}
	second := make(chan got, 1)
	go func() {
		for t.Context().Err() == nil {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			l, err := actor.Acquire(ctx, at[1], "conference.rooms", spec("b"))
			cancel()
			if err == nil {
				second <- got{l, time.Now()}
				return
			}
			select {
			case <-t.Context().Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	var lostAt time.Time
	select {
	case <-first.Lost():
		lostAt = time.Now()
	case g := <-second:
		t.Fatalf("two hold it, %v after the split", g.at.Sub(cutAt))
	case <-time.After(clusterPatience):
		t.Fatal("the holder that is cut off goes on")
	}
	var b got
	select {
	case b = <-second:
	case <-time.After(clusterPatience):
		t.Fatal("nobody takes over")
	}
	fmt.Printf("cluster: split: the holder yields after %v, another one holds it after %v\n", lostAt.Sub(cutAt).Round(time.Millisecond), b.at.Sub(cutAt).Round(time.Millisecond))
	if !b.at.After(lostAt) || b.l.Epoch() <= first.Epoch() {
		t.Errorf("yielded %v, taken %v, epochs %d and %d", lostAt, b.at, first.Epoch(), b.l.Epoch())
	}
	c.split(0, false)
	took := until(t, "mended", func(ctx context.Context) error {
		_, err := actor.Acquire(ctx, at[0], "conference.rooms", spec("a"))
		if errors.Is(err, contract.ErrExists) {
			return nil
		}
		return fmt.Errorf("not refused: %w", err)
	})
	fmt.Printf("cluster: mended: the former holder is refused after %v\n", took.Round(time.Millisecond))
	if err := b.l.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

type actorBucket struct{ *bus.KV }

// addWorker is bustest's, for a cluster.
func addWorker(t *testing.T, cli *bus.Conn, name string) string {
	t.Helper()
	path, err := bustest.AddWorker(t.Context(), cli, contract.WorkerAdd{Name: name}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMemberNeedsTheKeys(t *testing.T) {
	cfg := &config.Config{Data: t.TempDir(), Bus: config.Bus{Listen: "127.0.0.1:0", ClusterListen: "127.0.0.1:0", ClusterServer: "s1", Member: true}}
	r, err := embed.New(&host.Env{Name: "bus", Config: cfg, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "keys.json") {
		t.Error(err)
	}
}

// A server whose bus/keys are another's is no server of this cluster.
func TestStrangersAreNoServers(t *testing.T) {
	c := newClusterOfThree(t)
	kv := c.conn("conference", 0).KV(contract.BucketRooms)
	until(t, "first write", func(ctx context.Context) error { _, err := kv.Put(ctx, "n", []byte("0")); return err })
	conn, err := net.Dial("tcp", c.cfg[0].Bus.ClusterListen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(clusterPatience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("CONNECT {}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(raw), "PONG") {
		t.Errorf("%q, %v", raw, err)
	}
}
