package leg

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/services/media/resume"
	"github.com/parley-jami/parley/services/media/trunk"
)

// node is a host on loopback with its sockets apart, so that a second process can
// inherit them.
type node struct {
	*Host
	t    testing.TB
	dir  string
	cert tls.Certificate
	// what other workers know
	trunk   *trunk.Key
	browser *net.UDPConn

	dup func() (browser *net.UDPConn, rtp, rtcp [Pairs]*net.UDPConn)

	mu     sync.Mutex
	events []string
}

func listen(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// again returns a second descriptor of the same socket, as a child inherits it.
func again(t testing.TB, c *net.UDPConn) *net.UDPConn {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*net.UDPConn)
}

func testCertificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), cert: testCertificate(t)}
	n.browser = listen(t)
	var rtp, rtcp [Pairs]*net.UDPConn
	for i := range Pairs {
		rtp[i], rtcp[i] = listen(t), listen(t)
	}
	t.Cleanup(func() {
		n.browser.Close()
		for i := range Pairs {
			rtp[i].Close()
			rtcp[i].Close()
		}
	})
	n.dup = func() (b *net.UDPConn, r, c [Pairs]*net.UDPConn) {
		for i := range Pairs {
			r[i], c[i] = again(t, rtp[i]), again(t, rtcp[i])
		}
		return again(t, n.browser), r, c
	}
	n.start()
	t.Cleanup(func() { n.Host.Close() })
	return n
}

// start makes the process that takes over what is in the directory.
func (n *node) start() {
	n.t.Helper()
	table, fresh, err := resume.OpenTable(filepath.Join(n.dir, "counters"), time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	files, err := resume.OpenFiles(filepath.Join(n.dir, "legs"))
	if err != nil {
		n.t.Fatal(err)
	}
	if fresh {
		if err := files.Clear(); err != nil {
			n.t.Fatal(err)
		}
	}
	log := zap.NewNop()
	if _, fuzz := n.t.(*testing.F); !fuzz { // a fuzz target must not log through it
		log = zaptest.NewLogger(n.t)
	}
	if n.trunk, err = trunk.NewKey(n.dir, "s"); err != nil {
		n.t.Fatal(err)
	}
	cfg := Config{Loudest: 4, Certificate: n.cert, Trunk: n.trunk, Table: table, Files: files, Log: log}
	cfg.Browser, cfg.RTP, cfg.RTCP = n.dup()
	note := func(format string, args ...any) {
		n.mu.Lock()
		n.events = append(n.events, fmt.Sprintf(format, args...))
		n.mu.Unlock()
	}
	cfg.Events = Events{
		Change: func(id, _, state, reason string) { note("%s %s%s", id, state, reason) },
		Digit:  func(id, _, digit string, ms int) { note("%s digit %s %d", id, digit, ms) },
		Voice:  func(id, _ string, speaking bool, _ int) { note("%s voice %t", id, speaking) },
	}
	if n.Host, err = New(cfg); err != nil {
		n.t.Fatal(err)
	}
	if err := n.Start(); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) saw(event string) func() bool {
	return func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, e := range n.events {
			if e == event {
				return true
			}
		}
		return false
	}
}

// eventually polls a condition until it holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
		<-tick.C
	}
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// TestLateness: a process whose ticks are missed for seconds takes no more legs, until they are not for longer.
func TestLateness(t *testing.T) {
	var x lateness
	var at int64
	var done, missed uint64
	late := false
	step := func(what string, seconds int, share float64, legs int, want bool) {
		t.Helper()
		for range seconds {
			at += lateWindow
			m := uint64(100 * share)
			done, missed = done+100-m, missed+m
			late = x.judge(at, done, missed, legs, late)
		}
		if late != want {
			t.Fatalf("%s: late %t", what, late)
		}
	}
	step("calm", 20, 0.01, 1000, false)
	step("few legs", 20, 0.9, fewLegs, false)
	step("two seconds", 2, 0.5, 1000, false)
	step("a good one between", 1, 0.1, 1000, false)
	step("three seconds", 3, 0.5, 1000, true)
	step("not calm for long", calmFor-1, 0, 1000, true)
	step("not calm", 1, 0.1, 1000, true)
	step("calm", calmFor, 0, 1000, false)
}
