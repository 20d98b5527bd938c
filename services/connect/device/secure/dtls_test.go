package secure

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"

	"github.com/parley-jami/parley/internal/pionlog"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/device/devicetest"
)

// datagrams is a path by UDP.
func datagrams(t *testing.T) (a, b net.Conn) {
	t.Helper()
	var err error
	var ends [2]*net.UDPConn
	for i := range ends {
		if ends[i], err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	return to{ends[0], ends[1].LocalAddr()}, to{ends[1], ends[0].LocalAddr()}
}

// to is a socket that sends to one address.
type to struct {
	*net.UDPConn
	peer net.Addr
}

func (c to) RemoteAddr() net.Addr        { return c.peer }
func (c to) Write(b []byte) (int, error) { return c.WriteTo(b, c.peer) }

// signer says with what the device's key was used; it is as one of which only the signatures
// are to be had.
type signer struct {
	key  *rsa.PrivateKey
	mu   *sync.Mutex
	used *[]crypto.SignerOpts
}

func (s signer) Public() crypto.PublicKey { return s.key.Public() }

func (s signer) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.mu.Lock()
	*s.used = append(*s.used, opts)
	s.mu.Unlock()
	return s.key.Sign(r, digest, opts)
}

func TestDTLSSession(t *testing.T) {
	w := devices(t)
	for name, bob := range map[string]*devicetest.Device{"the chain of the exchange": w.bob, "a newer one": w.renewed} {
		t.Run(name, func(t *testing.T) {
			a, b := datagrams(t)
			var mu sync.Mutex
			var used []crypto.SignerOpts
			var wg sync.WaitGroup
			wg.Go(func() {
				c, peer, err := DTLSServer(t.Context(), b, Own{bob.Chain, signer{bob.Key, &mu, &used}}, w.alice.Chain, judge{})
				if err != nil || peer.DeviceID != w.alice.Chain.DeviceID {
					t.Errorf("server: %v", err)
					return
				}
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Error(err)
				}
			})
			c, peer, err := DTLSClient(t.Context(), a, Own{w.alice.Chain, signer{w.alice.Key, &mu, &used}}, w.bob.Chain, judge{})
			if err != nil {
				t.Fatal(err)
			}
			if !peer.Device.Equal(bob.Chain.Device) {
				t.Error("not the chain that was shown")
			}
			if SuiteName(c) != "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" {
				t.Error(SuiteName(c))
			}
			got := make([]byte, 100)
			if n, err := c.Read(got); err != nil || string(got[:n]) != "hello" {
				t.Error(string(got[:n]), err)
			}
			wg.Wait()
			for _, o := range used {
				if o != crypto.SHA384 {
					t.Errorf("signed with %v", o)
				}
			}
			if len(used) != 2 {
				t.Errorf("signed %d times", len(used))
			}
			c.Close()
		})
	}
}

// TestDTLSRefusals: hostile handshakes, each with the reason for which we end it.
func TestDTLSRefusals(t *testing.T) {
	w := devices(t)
	revoked := &trust.Error{Reason: trust.Revoked}
	type set = []dtls.Option
	shows := func(key crypto.Signer, certs ...*x509.Certificate) dtls.Option {
		c := tls.Certificate{PrivateKey: key}
		for _, x := range certs {
			c.Certificate = append(c.Certificate, x.Raw)
		}
		return dtls.WithCertificates(c)
	}
	of := func(d *devicetest.Device) dtls.Option { return shows(d.Key, d.Chain.Certs()...) }
	const both, client, server = 3, 1, 2 // which of them we are
	for _, c := range []struct {
		name  string
		peer  set
		judge judge
		we    int
		want  error
		says  string
	}{
		{name: "another device of the account", peer: set{of(w.other)}, we: both, want: ErrOtherDevice},
		{name: "another account's device", peer: set{of(w.alice)}, we: both, want: ErrOtherDevice},
		{name: "the device with another account's chain", peer: set{of(w.moved)}, we: both, want: ErrOtherAccount},
		{name: "a chain without its authority", peer: set{shows(w.bob.Key, w.bob.Chain.Certs()[:2]...)}, we: both, want: &trust.Error{Reason: trust.MissingCA}},
		{name: "a device alone", peer: set{shows(w.bob.Key, w.bob.Chain.Device)}, we: both, want: &trust.Error{Reason: trust.NoIssuer}},
		{name: "another key than the certificate's", peer: set{shows(w.other.Key, w.bob.Chain.Certs()...)}, we: both, says: "signature"},
		{name: "a revoked device", peer: set{of(w.bob)}, judge: judge{revoked}, we: both, want: revoked},
		{name: "no certificate", peer: set{}, we: server, says: "client"},
		{name: "AES-CBC alone", peer: set{of(w.bob), dtls.WithCipherSuites(dtls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA)}, we: both, says: "cipher|InsufficientSecurity"},
		{name: "ChaCha20 alone", peer: set{of(w.bob), dtls.WithCipherSuites(dtls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)}, we: both, says: "cipher|InsufficientSecurity"},
		{name: "a key that both know in place of certificates", peer: set{dtls.WithPSK(func([]byte) ([]byte, error) { return []byte{1, 2, 3, 4}, nil }),
			dtls.WithPSKIdentityHint([]byte("x")), dtls.WithCipherSuites(dtls.TLS_PSK_WITH_AES_128_GCM_SHA256)}, we: both, says: "cipher|InsufficientSecurity"},
		{name: "no extended master secret", peer: set{of(w.bob), dtls.WithExtendedMasterSecret(dtls.DisableExtendedMasterSecret)}, we: both, says: "xtended"},
		{name: "signatures with SHA-256 alone", peer: set{of(w.bob), dtls.WithSignatureSchemes(tls.PKCS1WithSHA256)}, we: server, says: "InsufficientSecurity"},
	} {
		for _, we := range []int{client, server} {
			if c.we&we == 0 {
				continue
			}
			t.Run(c.name+map[int]string{client: ", we are the client", server: ", we are the server"}[we], func(t *testing.T) {
				a, b := datagrams(t)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				opts := append(set{dtls.WithInsecureSkipVerify(true), dtls.WithLoggerFactory(pionlog.Quiet), dtls.WithFlightInterval(100 * time.Millisecond), dtls.WithSignatureSchemes(dtlsSigns...)}, c.peer...)
				var wg sync.WaitGroup
				wg.Go(func() {
					var x *dtls.Conn
					var err error
					if we == server {
						var o []dtls.ClientOption
						for _, y := range opts {
							o = append(o, y)
						}
						x, err = dtls.ClientWithOptions(dtlsnet.PacketConnFromConn(b), b.RemoteAddr(), o...)
					} else {
						o := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
						for _, y := range opts {
							o = append(o, y)
						}
						x, err = dtls.ServerWithOptions(dtlsnet.PacketConnFromConn(b), b.RemoteAddr(), o...)
					}
					if err != nil {
						t.Error(err)
						return
					}
					defer x.Close()
					_ = x.HandshakeContext(ctx)
					<-ctx.Done()
				})
				handshake := DTLSServer
				if we == client {
					handshake = DTLSClient
				}
				_, _, err := handshake(ctx, a, own(w.alice), w.bob.Chain, c.judge)
				switch {
				case err == nil:
					t.Error("a session")
				case c.want != nil && !errors.Is(err, c.want), !errors.Is(err, ErrDTLS), !regexp.MustCompile(c.says).MatchString(err.Error()):
					t.Errorf("%v, want %v%s", err, c.want, c.says)
				case errors.Is(err, context.DeadlineExceeded):
					t.Errorf("only when time was up: %v", err)
				default:
					t.Log(err)
				}
				cancel()
				wg.Wait()
			})
		}
	}
}

func TestDTLSPatience(t *testing.T) {
	w := devices(t)
	a, _ := datagrams(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := DTLSServer(ctx, a, own(w.alice), w.bob.Chain, judge{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the path stays: %v", err)
	}
}
