package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/prometheus/client_golang/prometheus/testutil"

	credentials "github.com/parley-jami/parley/internal/turn"
)

// The flood: of many requests without a credential few are answered, and what is sent
// back is bounded, so that nobody can be flooded by way of us.
func TestFloodWithoutCredential(t *testing.T) {
	r := start(t, func(c *Config) {
		c.Strangers = Strangers{PerSec: 20, Burst: 100, AllPerSec: 2000, AllBurst: 4000, Patience: time.Second}
	})
	c := r.raw()
	began := time.Now()
	sent := 0
	for range 5000 {
		m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), udpTransport)
		c.send(m.Raw)
		sent += len(m.Raw)
	}
	answers, bytes := 0, 0
	for m := c.read(500 * time.Millisecond); m != nil; m = c.read(500 * time.Millisecond) {
		answers++
		bytes += len(m.Raw)
	}
	if most := 100 + int(20*time.Since(began).Seconds()) + 1; answers < 50 || answers > most {
		t.Errorf("%d answers to 5000 requests, at most %d were expected", answers, most)
	}
	if bytes >= sent {
		t.Errorf("%d bytes came back for %d", bytes, sent)
	}
	if r.ignored(ignoredFlood) == 0 {
		t.Error("not counted")
	}
	t.Logf("%d requests of %d bytes, %d answers of %d bytes", 5000, sent/5000, answers, bytes/max(answers, 1))
	if r.srv.Allocations() != 0 {
		t.Error("something was allocated")
	}
}

// Those who have an allocation are served while strangers flood.
func TestServesDuringFlood(t *testing.T) {
	r := start(t, func(c *Config) {
		c.Strangers = Strangers{PerSec: 20, Burst: 100, AllPerSec: 2000, AllBurst: 4000, Patience: time.Second}
	})
	peer := echo(t, "127.0.0.1:0")
	conn, err := r.friend("udp", "alice").Allocate()
	if err != nil {
		t.Fatal(err)
	}
	ping(t, conn, peer.LocalAddr(), "before")
	stop, done := make(chan struct{}), make(chan struct{})
	flood := r.raw()
	go func() {
		defer close(done)
		m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), udpTransport)
		for {
			select {
			case <-stop:
				return
			default:
				for range 50 {
					flood.conn.Write(m.Raw) // a full buffer is no failure
				}
				time.Sleep(time.Millisecond)
			}
		}
	}()
	for range 50 {
		ping(t, conn, peer.LocalAddr(), "during")
	}
	close(stop)
	<-done
}

func TestForbiddenPeers(t *testing.T) {
	r := start(t, func(c *Config) {
		var err error
		// One port of loopback, as for a node on this machine.
		if c.Peers, err = NewPeers([]string{"127.0.0.1:9999"}, nil, testPorts, Ports{}); err != nil {
			t.Fatal(err)
		}
	})
	secretService, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer secretService.Close()
	c := r.raw()
	alice := credentials.Issue(secret, "alice", time.Hour, time.Now())
	if code := c.ask(alice, stun.MethodAllocate, udpTransport); code != 0 {
		t.Fatal(code)
	}
	for _, peer := range []string{"10.0.0.1:80", "192.168.1.1:80", "169.254.169.254:80", "127.0.0.2:80", "0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "100.64.0.1:80"} {
		if code := c.ask(alice, stun.MethodCreatePermission, peerAttr(peer)); code != 403 {
			t.Errorf("permission for %s: %d", peer, code)
		}
		if code := c.ask(alice, stun.MethodChannelBind, peerAttr(peer), channelAttr(0x4001)); code == 0 {
			t.Errorf("channel to %s", peer)
		}
	}
	// The address may be allowed and the port not: a channel is bound, and its data goes
	// nowhere.
	at := secretService.LocalAddr().String()
	if code := c.ask(alice, stun.MethodChannelBind, peerAttr(at), channelAttr(0x4002)); code != 0 {
		t.Fatal(code)
	}
	data := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 0x4002), 4)
	for range 10 {
		c.send(append(data, "boo!"...))
	}
	m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), peerAttr(at), attr{stun.AttrData, []byte("boo!")})
	c.send(m.Raw)
	eventually(t, "not counted", func() bool { return testutil.ToFloat64(r.cfg.Metrics.forbidden) >= 11 })
	if err := secretService.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, from, err := secretService.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes came from %s", n, from)
	}
	// A channel that nobody bound.
	c.send(append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 0x4abc), 4), "boo!"...))
	if code := c.ask(alice, stun.MethodRefresh); code != 0 {
		t.Errorf("the allocation is broken: %d", code)
	}

	// TCP relays (RFC 6062) keep the same rules.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := r.friend("tcp", "bob").AllocateTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if conn, err := a.Dial("tcp", l.Addr().String()); err == nil {
		conn.Close()
		t.Error("connected to a port of this machine that is not allowed")
	}
}

func TestMalformed(t *testing.T) {
	r := start(t, nil)
	c := r.raw()
	alice := credentials.Issue(secret, "alice", time.Hour, time.Now())
	if code := c.ask(alice, stun.MethodAllocate, udpTransport); code != 0 {
		t.Fatal(code)
	}
	good := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), udpTransport).Raw
	stranger := r.raw()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		b := append([]byte{}, good...)
		switch i % 4 {
		case 0:
			b = b[:rnd.IntN(len(b))]
		case 1:
			for range 1 + rnd.IntN(6) {
				b[rnd.IntN(len(b))] = byte(rnd.Uint32())
			}
		case 2:
			b[20+rnd.IntN(len(b)-20)] ^= byte(1 + rnd.IntN(255)) // attributes alone
		case 3:
			b = make([]byte, rnd.IntN(1400))
			for j := range b {
				b[j] = byte(rnd.Uint32())
			}
		}
		if i%2 == 0 {
			stranger.send(b)
		} else {
			c.send(b)
		}
	}
	for c.read(200*time.Millisecond) != nil { // answers to what was not too malformed
	}
	eventually(t, "the allocation is broken", func() bool { return c.ask(alice, stun.MethodRefresh) == 0 })
	if r.ignored(ignoredMalformed) == 0 {
		t.Error("not counted")
	}
}

func TestStreamGarbage(t *testing.T) {
	r := start(t, nil)
	for _, b := range [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
		{0, 1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42},
		append([]byte{0x40, 0, 0xff, 0xff}, make([]byte, 100_000)...),
		make([]byte, 100_000),
	} {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Write(b) // an error: it was closed in between
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 100)); err == nil || isTimeout(err) {
			t.Errorf("%d bytes in answer to %.10q, %v", n, b, err)
		}
		c.Close()
	}
}

// A stranger's connection ends although requests come.
func TestStrangersBytes(t *testing.T) {
	r := start(t, nil)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), udpTransport)
	go func() {
		for range 2000 {
			if _, err := c.Write(m.Raw); err != nil {
				return
			}
		}
	}()
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b, total := make([]byte, 4096), 0
	for {
		n, err := c.Read(b)
		total += n
		if err != nil {
			if isTimeout(err) {
				t.Error("it is not closed")
			}
			break
		}
	}
	if answers := total / 80; answers > strangerBytes/len(m.Raw) {
		t.Errorf("%d bytes of answers", total)
	}
}

func TestPeers(t *testing.T) {
	p, err := NewPeers([]string{"10.1.0.0/16", "192.0.2.7:5000", "fd00::1"}, []netip.Addr{netip.MustParseAddr("198.51.100.9")}, Ports{50000, 50010}, Ports{24000, 24257})
	if err != nil {
		t.Fatal(err)
	}
	p.interfaces = func() ([]net.Addr, error) {
		_, a, _ := net.ParseCIDR("192.168.7.0/24")
		a.IP = net.IPv4(192, 168, 7, 7)
		lo := &net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(8, 32)}
		return []net.Addr{a, lo}, nil
	}
	for _, c := range []struct {
		to       string
		ip       bool
		udp, tcp bool
	}{
		{"203.0.113.5:80", true, true, true},
		{"[2a00::1]:80", true, true, true},
		{"203.0.113.5:0", true, false, false},
		{"10.1.2.3:80", true, true, true},
		{"10.2.2.3:80", false, false, false},
		{"192.0.2.7:5000", true, true, true},
		{"[fd00::1]:80", true, true, true},
		{"[fd00::2]:80", false, false, false},
		{"192.168.7.7:24000", true, true, false}, // the node's audio on this machine
		{"192.168.7.7:24257", true, true, false},
		{"192.168.7.7:24258", true, false, false},
		{"192.168.7.7:22", true, false, false},
		{"192.168.7.7:50000", true, true, true}, // another allocation
		{"198.51.100.9:22", true, false, false},
		{"198.51.100.9:24000", true, true, false},
		{"192.168.7.8:24000", false, false, false},
		{"127.0.0.1:24000", false, false, false},
		{"127.0.0.1:50000", false, false, false},
		{"[::1]:50000", false, false, false},
		{"[::ffff:127.0.0.1]:80", false, false, false},
		{"[::ffff:10.0.0.1]:80", false, false, false},
		{"[::127.0.0.1]:80", false, false, false},
		{"[64:ff9b::7f00:1]:80", false, false, false},
		{"[2002:7f00:1::]:80", false, false, false},
		{"[2001:0:53aa::1]:80", false, false, false},
		{"[fe80::1%1]:80", false, false, false},
		{"[fec0::1]:80", false, false, false},
		{"[ff02::1]:80", false, false, false},
		{"169.254.169.254:80", false, false, false},
		{"100.100.100.200:80", false, false, false},
		{"0.0.0.0:80", false, false, false},
		{"[::]:80", false, false, false},
		{"224.0.0.251:5353", false, false, false},
		{"255.255.255.255:9", false, false, false},
		{"172.31.255.255:9", false, false, false},
	} {
		at := netip.MustParseAddrPort(c.to)
		if ip, udp, tcp := p.Address(at.Addr()), p.Port(at, true), p.Port(at, false); ip != c.ip || udp != c.udp || tcp != c.tcp {
			t.Errorf("%s: address %t, UDP %t, TCP %t", c.to, ip, udp, tcp)
		}
	}
	if p.Address(netip.Addr{}) || p.Port(netip.AddrPort{}, true) {
		t.Error("no address at all")
	}
	for _, bad := range []string{"", "x", "10.0.0.0/33", "host:80", "1.2.3.4:99999"} {
		if _, err := NewPeers([]string{bad}, nil, Ports{}, Ports{}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), udpTransport).Raw)
	f.Add(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication), peerAttr("192.0.2.1:9"), attr{stun.AttrData, []byte("x")}).Raw)
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw)
	f.Add([]byte{0x40, 1, 0, 4, 1, 2, 3, 4})
	f.Add([]byte{0x40, 1, 0, 5, 1, 2, 3, 4})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		k := classify(b)
		m := &stun.Message{Raw: append([]byte{}, b...)}
		// What pion would answer is never passed for something that needs no limit. It does not
		// look at the first two bits, which ChannelData has otherwise.
		if err := m.Decode(); err == nil && b[0]>>6 == 0 && len(b) == 20+int(m.Length) && m.Type.Class == stun.ClassRequest && k != kindRequest && k != kindNone {
			t.Fatalf("a request is taken for %d", k)
		}
		if k == kindRequest && !stun.IsMessage(b) {
			t.Fatal("no message is taken for a request")
		}
	})
}

func FuzzUsers(f *testing.F) {
	f.Add([]byte("ring:ring\n# x\n\na:b:c\r\n"))
	f.Add([]byte(":\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := parseUsers(text)
		if err != nil && users != nil {
			t.Fatal("users in spite of an error")
		}
		for name, p := range users {
			if name == "" || p == "" {
				t.Fatalf("%q:%q", name, p)
			}
		}
	})
}
