package relay

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/turn/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	credentials "github.com/parley-jami/parley/internal/turn"
)

const realm = "example.org"

var secret = []byte("a secret for tests")

// The timers are those of pion's client, whose Close leaves the allocation.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/pion/turn/v5/internal/client.(*PeriodicTimer).Start.func1"))
}

// rig is a server on loopback.
type rig struct {
	t    testing.TB
	srv  *Server
	cfg  Config
	addr string // UDP and TCP
	tls  string
	logs *observer.ObservedLogs
	stop func()
}

// The tests of this package share the machine's ports with those of others.
var testPorts = Ports{30000, 31999}

func start(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(l.Addr().String())))
	if err != nil {
		t.Fatal(err)
	}
	log := zap.New(core)
	users, err := NewUsers(secret, "", log)
	if err != nil {
		t.Fatal(err)
	}
	lo4, lo6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	peers, err := NewPeers([]string{"127.0.0.0/8", "::1"}, nil, testPorts, Ports{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{UDP: []*net.UDPConn{u}, TCP: []net.Listener{l}, ConnsEach: 100, ConnsAll: 1000, Realm: realm, Users: users,
		Addresses: []Address{{lo4, lo4}, {lo6, lo6}}, Ports: testPorts, Peers: peers,
		Quotas:    Quotas{User: 10, Address: 20, All: 20, Lifetime: time.Hour},
		Bandwidth: 1 << 20, Strangers: Strangers{1000, 1000, 10000, 10000, time.Second}, Log: log, Metrics: m}
	if change != nil {
		change(&cfg)
	}
	r := &rig{t: t, cfg: cfg, addr: l.Addr().String(), logs: logs}
	if len(cfg.TLS) > 0 {
		r.tls = cfg.TLS[0].Addr().String()
	}
	if r.srv, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.srv.Run(ctx) }()
	ended := false
	r.stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// client is one of pion's; by is "udp", "tcp" or "tls".
func (r *rig) client(by, username, password string) *turn.Client {
	r.t.Helper()
	return r.clientOf(by, username, password, turn.RequestedAddressFamilyIPv4)
}

func (r *rig) clientOf(by, username, password string, family turn.RequestedAddressFamily) *turn.Client {
	r.t.Helper()
	var conn net.PacketConn
	addr := r.addr
	switch by {
	case "udp":
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			r.t.Fatal(err)
		}
		conn = c
	case "tcp", "tls":
		var c net.Conn
		var err error
		if by == "tls" {
			addr = r.tls
			c, err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		} else {
			c, err = net.Dial("tcp", addr)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		conn = turn.NewSTUNConn(c)
	}
	c, err := turn.NewClient(&turn.ClientConfig{STUNServerAddr: addr, TURNServerAddr: addr, Conn: conn, Username: username, Password: password, Realm: realm,
		RTO: 100 * time.Millisecond, RequestedAddressFamily: family})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := c.Listen(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		c.Close()
		conn.Close()
	})
	return c
}

// friend is a client with a right credential.
func (r *rig) friend(by, who string) *turn.Client {
	c := credentials.Issue(secret, who, time.Hour, time.Now())
	return r.client(by, c.Username, c.Password)
}

// echo sends back what comes to a UDP socket.
func echo(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c.(*net.UDPConn)
}

// ping sends through the relay to a peer and waits for the same back.
func ping(t testing.TB, relay net.PacketConn, peer net.Addr, text string) {
	t.Helper()
	b := make([]byte, 2000)
	for range 20 {
		if _, err := relay.WriteTo([]byte(text), peer); err != nil {
			t.Fatal(err)
		}
		if err := relay.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, from, err := relay.ReadFrom(b)
		if err == nil {
			if string(b[:n]) != text || from.String() != peer.String() {
				t.Fatalf("%q from %s", b[:n], from)
			}
			return
		}
	}
	t.Fatal("no echo through the relay")
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func (r *rig) refused(why string) int {
	return int(testutil.ToFloat64(r.cfg.Metrics.refusedBy[why]))
}

func (r *rig) ignored(why string) int {
	return int(testutil.ToFloat64(r.cfg.Metrics.ignoredBy[why]))
}
