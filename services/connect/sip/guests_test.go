package sip

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// gatekeeper lets in whom trust lets in, but for what is barred by its device's id.
type gatekeeper struct {
	mu      sync.Mutex
	barred  map[jami.LongID]trust.Reason
	watches map[*func(error)]*trust.Chain
}

func newGatekeeper() *gatekeeper {
	return &gatekeeper{barred: map[jami.LongID]trust.Reason{}, watches: map[*func(error)]*trust.Chain{}}
}

func (g *gatekeeper) Check(certs []*x509.Certificate) (*trust.Chain, error) {
	c, err := new(trust.Rules).Check(certs)
	if err != nil {
		return nil, err
	}
	return c, g.Allowed(c)
}

func (g *gatekeeper) Allowed(c *trust.Chain) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.allowedLocked(c)
}

func (g *gatekeeper) allowedLocked(c *trust.Chain) error {
	if why, is := g.barred[c.DeviceID]; is {
		return &trust.Error{Reason: why}
	}
	return nil
}

func (g *gatekeeper) Watch(c *trust.Chain, fn func(error)) (func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.allowedLocked(c); err != nil {
		return nil, err
	}
	g.watches[&fn] = c
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.watches, &fn)
	}, nil
}

func (g *gatekeeper) bar(id jami.LongID, why trust.Reason) {
	g.mu.Lock()
	g.barred[id] = why
	var fns []*func(error)
	for fn, c := range g.watches {
		if c.DeviceID == id {
			delete(g.watches, fn)
			fns = append(fns, fn)
		}
	}
	g.mu.Unlock()
	for _, fn := range fns {
		(*fn)(&trust.Error{Reason: why})
	}
}

func (g *gatekeeper) watching() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.watches)
}

// jamiAccount makes devices.
type jamiAccount struct {
	key, ca          *rsa.PrivateKey
	cert, caCert     *x509.Certificate
	devKey, otherKey *rsa.PrivateKey
}

var testAccount = sync.OnceValue(func() *jamiAccount {
	a := new(jamiAccount)
	var err error
	for _, k := range []**rsa.PrivateKey{&a.key, &a.ca, &a.devKey, &a.otherKey} {
		if *k, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	at := time.Now().Add(-time.Hour)
	if a.caCert, err = jami.NewCA(a.ca, at); err == nil {
		a.cert, err = jami.NewAccount(&a.key.PublicKey, a.caCert, a.ca, at)
	}
	if err != nil {
		panic(err)
	}
	return a
})

func (a *jamiAccount) id() string {
	id, _ := jami.CertIDs(a.cert)
	return id.String()
}

// device is what a client of it shows.
func (a *jamiAccount) device(t *testing.T, key *rsa.PrivateKey, at time.Time) tls.Certificate {
	t.Helper()
	c, err := jami.NewDevice(&key.PublicKey, a.cert, a.key, at)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{c.Raw, a.cert.Raw, a.caCert.Raw}, PrivateKey: key}
}

// factory is a phone's certificate of its maker.
func factory(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "0004F2AABBCC", Organization: []string{"Phones"}},
		NotBefore: time.Now().AddDate(-9, 0, 0), NotAfter: time.Now().AddDate(-1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// startTLS runs a server over TLS alone.
func startTLS(t *testing.T, r Rooms, dir string, peers Peers) (s *Server, addr string, logs *observer.ObservedLogs, kill func()) {
	t.Helper()
	own := factory(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.InfoLevel)
	s, err = New(Config{TLS: l, TLSConf: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}}, Dir: dir, Version: "test",
		Rooms: r, Peers: peers, Code: code, Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, l.Addr().String(), logs, stop
}

func dialTLS(t *testing.T, addr string, conf *tls.Config) (*tls.Conn, error) {
	t.Helper()
	conf.InsecureSkipVerify = true //nolint:gosec // the node's own certificate
	c, err := tls.Dial("tcp", addr, conf)
	if err == nil {
		t.Cleanup(func() { c.Close() })
		err = c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return c, err
}

// ask sends a request and returns the answer, or why there is none: with TLS 1.3 a
// client learns of the server's refusal when it reads.
func ask(c net.Conn, method, call string) (string, error) { return askAt(c, "sip", method, call) }

func askAt(c net.Conn, scheme, method, call string) (string, error) {
	body := ""
	if method == "INVITE" {
		body = offer
	}
	_, err := fmt.Fprintf(c, "%s %s:main@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TLS %s;branch=z9hG4bK-%s-%s;rport\r\nFrom: <sip:ada@127.0.0.1>;tag=ft\r\n"+
		"To: <sip:main@127.0.0.1>\r\nCall-ID: %s\r\nCSeq: 1 %s\r\nContact: <sips:ada@%s>\r\nMax-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
		method, scheme, c.LocalAddr(), call, method, call, method, c.LocalAddr(), len(body), body)
	if err != nil {
		return "", err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if m := string(buf[:n]); err != nil || !strings.HasPrefix(m, "SIP/2.0 1") {
			return m, err
		}
	}
}

// Who shows what, and who it then is in the room.
func TestClientCertificates(t *testing.T) {
	a, now := testAccount(), time.Now()
	good := a.device(t, a.devKey, now.Add(-time.Minute))
	alone, swapped, forged := good, good, good
	alone.Certificate = good.Certificate[:1]
	swapped.Certificate = [][]byte{good.Certificate[0], good.Certificate[2], good.Certificate[1]}
	forged.Certificate = append([][]byte{append([]byte(nil), good.Certificate[0]...)}, good.Certificate[1:]...)
	forged.Certificate[0][len(forged.Certificate[0])-1] ^= 1
	stolen := good
	stolen.PrivateKey = a.otherKey // the chain is public, the key is not
	barred := a.device(t, a.otherKey, now.Add(-time.Minute))
	_, barredID := jami.CertIDs(leaf(t, barred))
	for _, tt := range []struct {
		name string
		show []tls.Certificate
		bar  trust.Reason
		who  string // in the room
		why  string // in the log; empty: let in
	}{
		{name: "none"},
		{name: "a factory's", show: []tls.Certificate{factory(t)}},
		{name: "a device", show: []tls.Certificate{good}, who: a.id()},
		{name: "revoked", show: []tls.Certificate{barred}, bar: trust.Revoked, why: "revoked"},
		{name: "banned", show: []tls.Certificate{barred}, bar: "banned", why: "banned"},
		{name: "expired", show: []tls.Certificate{a.device(t, a.devKey, now.AddDate(-30, 0, 0))}, why: "expired"},
		{name: "not yet valid", show: []tls.Certificate{a.device(t, a.devKey, now.AddDate(1, 0, 0))}, why: "not_yet_valid"},
		{name: "the device alone", show: []tls.Certificate{alone}, why: "no_issuer"},
		{name: "out of order", show: []tls.Certificate{swapped}, why: "out_of_order"},
		{name: "forged", show: []tls.Certificate{forged}, why: "bad_signature"},
		{name: "without its key", show: []tls.Certificate{stolen}, why: "-"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s, %s", tt.name, tls.VersionName(version)), func(t *testing.T) {
				r, peers := newRooms(), newGatekeeper()
				if tt.bar != "" {
					peers.barred[barredID] = tt.bar
				}
				s, addr, logs, _ := startTLS(t, r, t.TempDir(), peers)
				c, err := dialTLS(t, addr, &tls.Config{Certificates: tt.show, MaxVersion: version})
				var m string
				if err == nil {
					m, err = ask(c, "INVITE", "1")
				}
				if tt.why != "" {
					if err == nil || len(s.IDs()) != 0 {
						t.Fatalf("let in: %q", m)
					}
					if errors.Is(err, context.DeadlineExceeded) {
						t.Fatal("left waiting")
					}
					refused := logs.FilterMessage("client refused").All()
					if tt.why != "-" && (len(refused) != 1 || refused[0].ContextMap()["reason"] != tt.why) {
						t.Errorf("logged %v, want %s", logs.All(), tt.why)
					}
					eventually(t, "nothing is watched", func() bool { return peers.watching() == 0 })
					return
				}
				if err != nil || !strings.HasPrefix(m, "SIP/2.0 200") {
					t.Fatalf("%q, %v", m, err)
				}
				call := r.call(<-r.inChan)
				if call.JamiID != tt.who {
					t.Errorf("in the room as %q, want %q", call.JamiID, tt.who)
				}
				if by := call.Signalled; by.Over != "tls" || by.TLS != tls.VersionName(version) || by.Suite == "" || by.Local != addr {
					t.Errorf("signalled by %+v", by)
				}
			})
		}
	}
}

func leaf(t *testing.T, c tls.Certificate) *x509.Certificate {
	t.Helper()
	x, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

// A phone gets the scheme that it called: some know no sips.
func TestContactScheme(t *testing.T) {
	_, addr, _, _ := startTLS(t, newRooms(), t.TempDir(), nil)
	for scheme, want := range map[string]string{"sip": "<sip:main@127.0.0.1:", "sips": "<sips:main@127.0.0.1:"} {
		c, err := dialTLS(t, addr, &tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := askAt(c, scheme, "INVITE", scheme)
		if got := header(m, "Contact"); err != nil || !strings.HasPrefix(got, want) || strings.Contains(got, "tls") == (scheme == "sips") {
			t.Errorf("%s: Contact %q, %v", scheme, got, err)
		}
	}
}

// A device that is barred during its calls is out of the room, gets a BYE and loses its
// connections; others stay. It can't come back.
func TestShutOut(t *testing.T) {
	a := testAccount()
	mine := a.device(t, a.devKey, time.Now().Add(-time.Minute))
	other := a.device(t, a.otherKey, time.Now().Add(-time.Minute))
	_, id := jami.CertIDs(leaf(t, mine))
	for _, silent := range []bool{false, true} { // does the phone answer the BYE
		t.Run(fmt.Sprintf("silent=%v", silent), func(t *testing.T) {
			r, peers := newRooms(), newGatekeeper()
			s, addr, logs, _ := startTLS(t, r, t.TempDir(), peers)
			conf := &tls.Config{Certificates: []tls.Certificate{mine}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
			call := func(conf *tls.Config, name string) (*tls.Conn, string) {
				c, err := dialTLS(t, addr, conf)
				if err != nil {
					t.Fatal(err)
				}
				if m, err := ask(c, "INVITE", name); err != nil || !strings.HasPrefix(m, "SIP/2.0 200") {
					t.Fatalf("%q, %v", m, err)
				}
				return c, <-r.inChan
			}
			c, in := call(conf, "mine")
			_, otherIn := call(&tls.Config{Certificates: []tls.Certificate{other}}, "other")
			_, strangerIn := call(&tls.Config{}, "stranger")
			idle, err := dialTLS(t, addr, conf)
			if err == nil {
				_, err = ask(idle, "OPTIONS", "idle")
			}
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			peers.bar(id, trust.Revoked)
			if left := <-r.left; left != in+" revoked" {
				t.Errorf("left: %s", left)
			}
			buf := make([]byte, 64<<10)
			n, err := c.Read(buf)
			bye := string(buf[:n])
			if err != nil || !strings.HasPrefix(bye, "BYE ") || !strings.Contains(bye, "revoked") {
				t.Errorf("%q, %v", bye, err)
			} else if !silent {
				fmt.Fprintf(c, "SIP/2.0 200 OK\r\nVia: %s\r\nFrom: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %s\r\nContent-Length: 0\r\n\r\n",
					header(bye, "Via"), header(bye, "From"), header(bye, "To"), header(bye, "Call-ID"), header(bye, "CSeq"))
			}
			for _, c := range []*tls.Conn{c, idle} {
				if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("not closed: %v", err)
				}
			}
			took := time.Since(began)
			t.Logf("closed after %s", took)
			if took > time.Second {
				t.Error("that is more than a second")
			}
			if !s.Has(otherIn) || !s.Has(strangerIn) || s.Has(in) {
				t.Error("others are out, or it is in")
			}
			again, err := dialTLS(t, addr, conf)
			if err == nil {
				_, err = ask(again, "OPTIONS", "again")
			}
			if err == nil {
				t.Error("it is let in again")
			}
			if n := logs.FilterMessage("client refused").Len(); n != 1 {
				t.Errorf("%d refusals", n)
			}
			if n := logs.FilterMessage("device shut out").Len(); n != 1 {
				t.Errorf("%d were shut out", n)
			}
		})
	}
}

// Barred while the room is being asked: the call does not come about.
func TestBarredDuringSetUp(t *testing.T) {
	a := testAccount()
	mine := a.device(t, a.devKey, time.Now().Add(-time.Minute))
	_, id := jami.CertIDs(leaf(t, mine))
	r, peers := newRooms(), newGatekeeper()
	r.inChan = make(chan string) // the room's answer waits until this is read
	s, addr, _, _ := startTLS(t, r, t.TempDir(), peers)
	c, err := dialTLS(t, addr, &tls.Config{Certificates: []tls.Certificate{mine}})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	go func() {
		m, _ := ask(c, "INVITE", "1") //nolint:errcheck // closed, or refused
		answered <- m
	}()
	eventually(t, "it is in the room", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.in) == 1
	})
	peers.bar(id, trust.Revoked)
	in := <-r.inChan
	if left := <-r.left; left != in+" revoked" {
		t.Errorf("left: %s", left)
	}
	if m := <-answered; strings.HasPrefix(m, "SIP/2.0 200") {
		t.Error("the call is answered")
	}
	eventually(t, "no call", func() bool { return len(s.IDs()) == 0 && peers.watching() == 0 })
}

// A call whose connect process died is still its device's in the next one.
func TestGuestsOutliveTheProcess(t *testing.T) {
	a := testAccount()
	mine := a.device(t, a.devKey, time.Now().Add(-time.Minute))
	_, id := jami.CertIDs(leaf(t, mine))
	for _, when := range []string{"before the start", "after it"} {
		t.Run("barred "+when, func(t *testing.T) {
			dir, r, peers := t.TempDir(), newRooms(), newGatekeeper()
			s, addr, _, _ := startTLS(t, r, dir, peers)
			c, err := dialTLS(t, addr, &tls.Config{Certificates: []tls.Certificate{mine}})
			if err != nil {
				t.Fatal(err)
			}
			if m, err := ask(c, "INVITE", "1"); err != nil || !strings.HasPrefix(m, "SIP/2.0 200") {
				t.Fatalf("%q, %v", m, err)
			}
			in := <-r.inChan
			next, nextPeers := newRooms(), newGatekeeper() // as after a kill: the files are there, and nobody said BYE
			if when == "before the start" {
				nextPeers.barred[id] = trust.Revoked
			}
			s2, _, _, _ := startTLS(t, next, dir, nextPeers)
			if when == "after it" {
				eventually(t, "the call is watched", func() bool { return nextPeers.watching() == 1 })
				if !s2.Has(in) {
					t.Fatal("the call is gone")
				}
				nextPeers.bar(id, trust.Revoked)
			}
			if left := <-next.left; left != in+" revoked" {
				t.Errorf("left: %s", left)
			}
			_ = s
		})
	}
}
