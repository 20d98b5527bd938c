package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/device/devicetest"
)

// judge refuses what refuse says.
type judge struct{ refuse error }

func (j judge) Check(certs []*x509.Certificate) (*trust.Chain, error) {
	c, err := new(trust.Rules).Check(certs)
	return c, errors.Join(err, j.refuse)
}

func (j judge) Allowed(*trust.Chain) error { return j.refuse }

type world struct{ alice, bob, other, renewed, moved *devicetest.Device }

func devices(t *testing.T) *world {
	t.Helper()
	a, b := devicetest.NewAccount(t), devicetest.NewAccount(t)
	w := &world{alice: a.Device(t), bob: b.Device(t), other: b.Device(t)}
	w.renewed, w.moved = b.Certify(t, w.bob.Key), a.Certify(t, w.bob.Key)
	return w
}

func own(d *devicetest.Device) Own { return Own{d.Chain, d.Key} }

func pipe(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestSession(t *testing.T) {
	w := devices(t)
	for name, bob := range map[string]*devicetest.Device{"the chain of the exchange": w.bob, "a newer one": w.renewed} {
		t.Run(name, func(t *testing.T) {
			a, b := pipe(t)
			var wg sync.WaitGroup
			wg.Go(func() {
				c, peer, err := Server(t.Context(), b, own(bob), w.alice.Chain, judge{})
				if err != nil || peer.DeviceID != w.alice.Chain.DeviceID {
					t.Errorf("server: %v", err)
					return
				}
				st := c.ConnectionState()
				if st.Version != tls.VersionTLS13 || len(st.PeerCertificates) != 3 || st.CurveID != tls.X25519 {
					t.Errorf("%+v", st)
				}
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Error(err)
				}
			})
			c, peer, err := Client(t.Context(), a, own(w.alice), w.bob.Chain, judge{})
			if err != nil {
				t.Fatal(err)
			}
			if !peer.Device.Equal(bob.Chain.Device) {
				t.Error("not the chain that was shown")
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, []byte("hello")) {
				t.Error(string(got), err)
			}
			wg.Wait()
		})
	}
}

// TestRefusals: hostile handshakes, each with the reason for which we end it.
func TestRefusals(t *testing.T) {
	w := devices(t)
	revoked := &trust.Error{Reason: trust.Revoked}
	conf := func(d *devicetest.Device, change func(*tls.Config)) *tls.Config {
		c := base(&verifier{})
		c.VerifyConnection, c.InsecureSkipVerify = nil, true
		c.Certificates = []tls.Certificate{*certificate(own(d))}
		c.ClientAuth = tls.RequireAnyClientCert
		if change != nil {
			change(c)
		}
		return c
	}
	cut := func(n int) func(*tls.Config) {
		return func(c *tls.Config) { c.Certificates[0].Certificate = c.Certificates[0].Certificate[:n] }
	}
	raw := func(b []byte) func(net.Conn) {
		return func(c net.Conn) { _, _ = c.Write(b); _, _ = io.Copy(io.Discard, c) }
	}
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, c := range []struct {
		name   string
		peer   *tls.Config    // what the other side does
		raw    func(net.Conn) // or this
		judge  judge
		client bool // we are the client alone; else both are tried
		server bool // we are the server alone
		want   error
	}{
		{name: "another device of the account", peer: conf(w.other, nil), want: ErrOtherDevice},
		{name: "another account's device", peer: conf(w.alice, nil), want: ErrOtherDevice},
		{name: "the device with another account's chain", peer: conf(w.moved, nil), want: ErrOtherAccount},
		{name: "a chain without its authority", peer: conf(w.bob, cut(2)), want: &trust.Error{Reason: trust.MissingCA}},
		{name: "a device alone", peer: conf(w.bob, cut(1)), want: &trust.Error{Reason: trust.NoIssuer}},
		{name: "a chain in another order", peer: conf(w.bob, func(c *tls.Config) {
			x := c.Certificates[0].Certificate
			c.Certificates[0].Certificate = [][]byte{x[0], x[2], x[1]}
		}), want: &trust.Error{Reason: trust.OutOfOrder}},
		{name: "the device's certificate with another key", peer: conf(w.bob, func(c *tls.Config) { c.Certificates[0].PrivateKey = w.other.Key }), want: errors.New("invalid signature")},
		{name: "revoked", peer: conf(w.bob, nil), judge: judge{revoked}, want: revoked},
		{name: "no certificate", peer: conf(w.bob, func(c *tls.Config) { c.Certificates = nil }), server: true, want: errors.New("didn't provide a certificate")},
		{name: "TLS 1.2 offered", peer: conf(w.bob, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), server: true, want: ErrVersion},
		{name: "TLS 1.2 alone", peer: conf(w.bob, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), client: true, want: errors.New("protocol version")},
		{name: "P-256 alone", peer: conf(w.bob, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }), server: true, want: ErrGroup},
		{name: "P-256 chosen", peer: conf(w.bob, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }), client: true, want: errors.New("handshake failure")},
		{name: "anonymous suites of TLS 1.2", raw: raw(anonymousHello), server: true, want: ErrVersion},
		{name: "TLS 1.3 without its suites", raw: raw(suitelessHello), server: true, want: ErrSuite},
		{name: "garbage", raw: raw(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100)), want: errors.New("does not look like a TLS handshake")},
		{name: "a record without end", raw: raw(append([]byte{22, 3, 3, 0xff, 0xff}, make([]byte, 70000)...)), want: errors.New("oversized record")},
		{name: "a handshake message without end", raw: raw(endless), want: errors.New("handshake message of length")},
		{name: "silence", raw: silent, want: context.DeadlineExceeded},
		{name: "slow", raw: slow, want: context.DeadlineExceeded},
		{name: "hanging up", raw: hangUp, want: io.EOF},
		{name: "an alert", raw: raw([]byte{21, 3, 3, 0, 2, 2, 40}), want: errors.New("handshake failure")},
	} {
		for _, client := range []bool{true, false} {
			if c.client && !client || c.server && client {
				continue
			}
			t.Run(c.name+map[bool]string{true: ", we are the client", false: ", we are the server"}[client], func(t *testing.T) {
				ours, theirs := pipe(t)
				limit := 10 * time.Second
				if errors.Is(c.want, context.DeadlineExceeded) {
					limit = 300 * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				var wg sync.WaitGroup
				wg.Go(func() {
					defer theirs.Close()
					if c.raw != nil {
						c.raw(theirs)
						return
					}
					x := tls.Client(theirs, c.peer)
					if client {
						x = tls.Server(theirs, c.peer)
					}
					if x.HandshakeContext(ctx) == nil {
						_, _ = io.Copy(io.Discard, x)
					}
				})
				make := Server
				if client {
					make = Client
				}
				_, _, err := make(ctx, ours, own(w.alice), w.bob.Chain, c.judge)
				if !errors.Is(err, ErrHandshake) || !is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				if err := ours.SetDeadline(time.Now()); err == nil {
					t.Error("the connection is left open")
				}
				wg.Wait()
			})
		}
	}
}

// is compares by identity, or, with errors that crypto/tls does not export, by their words.
func is(err, want error) bool {
	if _, ok := errors.AsType[*trust.Error](want); ok {
		var got *trust.Error
		return errors.As(err, &got) && got.Reason == want.(*trust.Error).Reason
	}
	return err != nil && (errors.Is(err, want) || strings.Contains(err.Error(), want.Error()))
}

func hangUp(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok && t.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, c)
	}
}

func slow(c net.Conn) {
	for _, x := range anonymousHello {
		if _, err := c.Write([]byte{x}); err != nil {
			return
		}
		if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return
		}
		if _, err := c.Read(make([]byte, 4096)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// hello is a ClientHello with those suites and extensions.
func hello(suites, extensions []byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0)
	body = append(body, 0, byte(len(suites)))
	body = append(body, suites...)
	body = append(body, 1, 0, 0, byte(len(extensions)))
	body = append(body, extensions...)
	msg := append([]byte{1, 0, 0, byte(len(body))}, body...)
	return append([]byte{22, 3, 1, 0, byte(len(msg))}, msg...)
}

var (
	anonymousHello = hello([]byte{0, 0xa7, 0, 0x6d, 0xc0, 0x19}, nil)
	suitelessHello = hello([]byte{0xc0, 0x2c}, []byte{0, 43, 0, 3, 2, 3, 4, 0, 10, 0, 4, 0, 2, 0, 29})
	endless        = append([]byte{22, 3, 1, 0, 8, 2, 0xff, 0xff, 0xff}, make([]byte, 4)...)
)
