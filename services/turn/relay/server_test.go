package relay

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/certs"
	credentials "github.com/parley-jami/parley/internal/turn"
)

func TestRelays(t *testing.T) {
	tlsConf, err := certs.Own(filepath.Join(t.TempDir(), "tls"), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.TLS, c.TLSConfig = []net.Listener{l}, tlsConf
	})
	peer := echo(t, "127.0.0.1:0")
	for _, by := range []string{"udp", "tcp", "tls"} {
		t.Run(by, func(t *testing.T) {
			c := r.friend(by, "alice")
			conn, err := c.Allocate()
			if err != nil {
				t.Fatal(err)
			}
			at := addrPort(conn.LocalAddr())
			if !testPorts.has(at.Port()) || at.Addr().String() != "127.0.0.1" {
				t.Errorf("relay %s", at)
			}
			for _, text := range []string{"first", "then by channel", strings.Repeat("x", 1200)} {
				ping(t, conn, peer.LocalAddr(), text)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			eventually(t, "the allocation stays", func() bool { return r.srv.Allocations() == 0 })
		})
	}
	begins, ends := r.logs.FilterMessage("allocation begins").Len(), r.logs.FilterMessage("allocation ends").All()
	if begins != 3 || len(ends) != 3 {
		t.Fatalf("%d lines of a beginning, %d of an end", begins, len(ends))
	}
	m := ends[0].ContextMap()
	if m["user"] != "alice" || m["transport"] != "udp" || m["bytes_from_client"].(uint64) < 1200 || m["bytes_to_client"].(uint64) < 1200 {
		t.Errorf("%v", m)
	}
}

func TestIPv6(t *testing.T) {
	r := start(t, nil)
	peer := echo(t, "[::1]:0")
	// A client of IPv4 asks for a relay of IPv6, to reach a peer that has nothing else.
	cred := credentials.Issue(secret, "alice", time.Hour, time.Now())
	conn, err := r.clientOf("udp", cred.Username, cred.Password, turn.RequestedAddressFamilyIPv6).Allocate()
	if err != nil {
		t.Fatal(err)
	}
	if a := addrPort(conn.LocalAddr()); !a.Addr().Is6() {
		t.Fatalf("relay %s", a)
	}
	ping(t, conn, peer.LocalAddr(), "hello")
}

func TestTCPRelay(t *testing.T) {
	r := start(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	alice := r.friend("tcp", "alice")
	a, err := alice.AllocateTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()

	t.Run("to a peer", func(t *testing.T) {
		got := make(chan net.Conn, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		mine, err := a.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer mine.Close()
		far := <-got
		defer far.Close()
		if far.RemoteAddr().String() != a.Addr().String() {
			t.Errorf("the peer sees %s, not the relay %s", far.RemoteAddr(), a.Addr())
		}
		both(t, mine, far)
	})
	t.Run("from a peer", func(t *testing.T) {
		if err := alice.CreatePermission(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}); err != nil {
			t.Fatal(err)
		}
		far, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		mine, err := a.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer mine.Close()
		both(t, mine, far)
	})
	t.Run("not over UDP", func(t *testing.T) {
		if a, err := r.friend("udp", "bob").AllocateTCP(); err == nil {
			a.Close()
			t.Error("made")
		}
	})
}

// both sends half a megabyte each way, faster than the bandwidth's burst.
func both(t *testing.T, a, b net.Conn) {
	t.Helper()
	data := bytes.Repeat([]byte("0123456789abcdef"), 32<<10)
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		done := make(chan error, 1)
		go func() {
			_, err := way[0].Write(data)
			done <- err
		}()
		if err := way[1].SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		if _, err := io.ReadFull(way[1], got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Error("other bytes came")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("# apps\nring:ring\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	users, err := NewUsers(secret, file, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config) { c.Users = users })
	good := credentials.Issue(secret, "alice", time.Hour, time.Now())
	old := credentials.Issue(secret, "alice", -time.Second, time.Now())
	other := credentials.Issue([]byte("another secret"), "alice", time.Hour, time.Now())
	for _, c := range []struct {
		name, user, password string
		ok                   bool
	}{
		{"short-lived", good.Username, good.Password, true},
		{"lasting", "ring", "ring", true},
		{"expired", old.Username, old.Password, false},
		{"another secret", other.Username, other.Password, false},
		{"another's name", good.Username + "x", good.Password, false},
		{"no such user", "rung", "ring", false},
		{"wrong password", "ring", "rang", false},
		{"no form", "x:y", "z", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			was := r.refused(refusedCredential)
			conn, err := r.client("udp", c.user, c.password).Allocate()
			if (err == nil) != c.ok {
				t.Fatalf("%v", err)
			}
			if c.ok {
				conn.Close()
			} else if r.refused(refusedCredential) == was {
				t.Error("not counted")
			}
		})
	}
	if n := r.logs.FilterMessage("wrong or expired credentials").Len(); n < 1 || n > 4 {
		t.Errorf("%d log lines", n)
	}
	for _, e := range r.logs.All() {
		if s := e.Entry.Message; strings.Contains(s, good.Password) || strings.Contains(s, "rang") {
			t.Errorf("a password in the log: %s", s)
		}
	}
}

// What stands is refreshed after its credential has expired; nothing new is opened.
func TestExpiresWhileInUse(t *testing.T) {
	users, err := NewUsers(secret, "", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	cred := credentials.Issue(secret, "alice", time.Minute, now)
	for _, c := range []struct {
		after  time.Duration
		stands bool
		ok     bool
	}{{0, false, true}, {2 * time.Minute, false, false}, {2 * time.Minute, true, true}, {23 * time.Hour, true, true}, {25 * time.Hour, true, false}} {
		users.now = func() time.Time { return now.Add(c.after) }
		if _, _, ok := users.Password(cred.Username, c.stands); ok != c.ok {
			t.Errorf("%+v: %t", c, ok)
		}
	}
}

func TestUsersFile(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""}, {"a:b\n\n# x\nc:d:e\r\n", ""}, {"a\n", "line 1"}, {"a:b\n:c\n", "line 2"}, {"a:\n", "line 1"}, {"a:b\na:c\n", "line 2"},
		{strings.Repeat("a", 200) + ":b\n", "too long"},
	} {
		users, err := parseUsers([]byte(c.text))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v, %v", c.text, users, err)
		}
	}
	users, _ := parseUsers([]byte("c:d:e\n"))
	if users["c"] != "d:e" {
		t.Error(users)
	}

	file := filepath.Join(t.TempDir(), "users")
	write := func(text string, at time.Time) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	write("a:b\n", now)
	u, err := NewUsers(secret, file, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		text  string
		after time.Duration
		want  string
	}{{"a:c\n", 5 * time.Second, "c"}, {"broken\n", 10 * time.Second, "c"}, {"a:d\n", 15 * time.Second, "d"}} {
		write(step.text, now.Add(step.after))
		u.now = func() time.Time { return now.Add(step.after) }
		if _, p, _ := u.Password("a", false); p != step.want {
			t.Errorf("%q: %q", step.text, p)
		}
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := NewUsers(secret, file, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
}

func TestQuotas(t *testing.T) {
	r := start(t, func(c *Config) { c.Quotas.User, c.Quotas.Address, c.Quotas.All = 2, 100, 3 })
	var open []net.PacketConn
	for _, c := range []struct {
		who    string
		ok     bool
		reason string
	}{{"alice", true, ""}, {"alice", true, ""}, {"alice", false, refusedUser}, {"bob", true, ""}, {"carol", false, refusedAddress}} {
		conn, err := r.friend("udp", c.who).Allocate()
		if (err == nil) != c.ok {
			t.Fatalf("%s: %v", c.who, err)
		}
		if c.ok {
			open = append(open, conn)
		} else if !strings.Contains(err.Error(), "486") || r.refused(c.reason) != 1 {
			t.Errorf("%s: %v, %d", c.who, err, r.refused(c.reason))
		}
	}
	open[0].Close()
	eventually(t, "the place stays taken", func() bool { return r.srv.Allocations() == 2 })
	conn, err := r.friend("tcp", "carol").Allocate()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// A place that was reserved is given back when no port is left.
func TestNoPort(t *testing.T) {
	r := start(t, func(c *Config) { c.Ports = Ports{30990, 30990} })
	first, err := r.friend("udp", "alice").Allocate()
	if err != nil {
		t.Fatal(err)
	}
	for range 15 {
		if _, err := r.friend("tcp", "bob").Allocate(); err == nil || !strings.Contains(err.Error(), "508") {
			t.Fatal(err)
		}
	}
	first.Close()
	eventually(t, "the port stays taken", func() bool { return r.srv.Allocations() == 0 })
	conn, err := r.friend("udp", "bob").Allocate()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// Another program has a long row of the ports.
func TestPortsOfOthers(t *testing.T) {
	const first, last = 28000, 28400
	r := start(t, func(c *Config) { c.Ports = Ports{first, last} })
	free := 0
	for port := first; port < last; port++ { // all but the last one
		c, err := net.ListenPacket("udp4", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue // somebody else's, as well
		}
		free++
		defer c.Close()
	}
	if free < guesses {
		t.Skipf("%d ports were free", free)
	}
	conn, err := r.friend("udp", "alice").Allocate()
	if err != nil {
		t.Fatal(err)
	}
	if at := addrPort(conn.LocalAddr()); at.Port() != last {
		t.Errorf("relay %s", at)
	}
}

func TestLifetime(t *testing.T) {
	r := start(t, func(c *Config) { c.Quotas.Lifetime = 200 * time.Millisecond })
	if _, err := r.friend("udp", "alice").Allocate(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it does not end", func() bool { return r.srv.Allocations() == 0 })
}

func TestStopEndsAllocations(t *testing.T) {
	r := start(t, nil)
	for _, by := range []string{"udp", "tcp"} {
		if _, err := r.friend(by, "alice").Allocate(); err != nil {
			t.Fatal(err)
		}
	}
	idle, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	r.stop()
	if n := r.logs.FilterMessage("allocation ends").Len(); n != 2 {
		t.Errorf("%d ended in the log", n)
	}
	if err := idle.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a connection is left: %v", err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

func TestBinding(t *testing.T) {
	r := start(t, nil)
	for _, by := range []string{"udp", "tcp"} {
		c := r.client(by, "", "")
		at, err := c.SendBindingRequest()
		if err != nil {
			t.Fatal(by, err)
		}
		if netip.MustParseAddrPort(at.String()).Addr().String() != "127.0.0.1" {
			t.Error(at)
		}
	}
}

// Bandwidth is kept: of what comes at once only the burst goes through.
func TestBandwidth(t *testing.T) {
	r := start(t, func(c *Config) { c.Bandwidth = 10_000 })
	conn, err := r.friend("udp", "alice").Allocate()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	const size, count = 1000, 200
	for range count {
		if _, err := conn.WriteTo(make([]byte, size), peer.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	got := 0
	b := make([]byte, 2000)
	for {
		if err := peer.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := peer.ReadFrom(b); err != nil {
			break
		}
		got++
	}
	if most := burstMin/size + 10; got < 30 || got > most {
		t.Errorf("%d of %d packets came; the burst is %d", got, count, most)
	}
}

func TestRequestsOfAnother(t *testing.T) {
	r := start(t, nil)
	c := r.raw()
	alice, eve := credentials.Issue(secret, "alice", time.Hour, time.Now()), credentials.Issue(secret, "eve", time.Hour, time.Now())
	if code := c.ask(alice, stun.MethodAllocate, udpTransport); code != 0 {
		t.Fatal(code)
	}
	// The same five-tuple with another's credential may do nothing.
	for _, m := range []stun.Method{stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind} {
		if code := c.ask(eve, m, peerAttr("127.0.0.1:9"), channelAttr(0x4000)); code == 0 {
			t.Errorf("%s of what another has", m)
		}
	}
	if code := c.ask(alice, stun.MethodRefresh); code != 0 {
		t.Error(code)
	}
	if code := c.ask(alice, stun.MethodRefresh, lifetimeAttr(0)); code != 0 || r.srv.Allocations() != 0 {
		t.Error(code, r.srv.Allocations())
	}
}
