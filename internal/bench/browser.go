package bench

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v2"
	"github.com/pion/dtls/v2/pkg/crypto/selfsign"
	"github.com/pion/stun"
	"github.com/pion/transport/v2/packetio"
)

// connectTime bounds ICE and DTLS of a leg; checkEvery is the pause between checks
// that are not answered.
const (
	connectTime = 20 * time.Second
	checkEvery  = 100 * time.Millisecond
)

// certificate is what all legs show: one costs as much to verify as another.
var certificate = sync.OnceValues(func() (tls.Certificate, error) { return selfsign.GenerateSelfSigned() })

// checks is the ICE of a leg (RFC 8445, the controlling side of a lite agent), and
// what its DTLS needs.
type checks struct {
	ufrag, pwd       string
	farUfrag, farPwd string
	farPrint         string // SHA-256 of the node's certificate
	to               netip.AddrPort
	stun             chan struct{} // an answer came
	dtls             *packetio.Buffer
}

func newChecks() *checks {
	c := &checks{ufrag: rand.Text()[:8], pwd: rand.Text(), stun: make(chan struct{}, 1), dtls: packetio.NewBuffer()}
	c.dtls.SetLimitCount(64)
	return c
}

// offer is the leg's part of SDP.
func (c *checks) offer() string {
	cert, err := certificate()
	if err != nil {
		return "" // connect fails with it
	}
	return fmt.Sprintf("a=mid:0\r\na=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=fingerprint:sha-256 %s\r\na=setup:active\r\n", c.ufrag, c.pwd, printOf(cert.Certificate[0]))
}

// printOf is a certificate's fingerprint (RFC 8122 §5).
func printOf(der []byte) string {
	sum := sha256.Sum256(der)
	out := make([]string, len(sum))
	for i := range sum {
		out[i] = strings.ToUpper(hex.EncodeToString(sum[i : i+1]))
	}
	return strings.Join(out, ":")
}

// answer takes a line of the node's SDP.
func (c *checks) answer(line string) {
	for prefix, to := range map[string]*string{"a=ice-ufrag:": &c.farUfrag, "a=ice-pwd:": &c.farPwd, "a=fingerprint:sha-256 ": &c.farPrint} {
		if v, ok := strings.CutPrefix(line, prefix); ok {
			*to = v
		}
	}
}

func (c *checks) complete(to netip.AddrPort) error {
	c.to = to
	if c.farUfrag == "" || c.farPwd == "" || c.farPrint == "" {
		return errors.New("the answer has no ICE credentials or no fingerprint")
	}
	return nil
}

// take gets a packet that is not RTP.
func (c *checks) take(pkt []byte) {
	switch {
	case pkt[0] < 4 && stun.IsMessage(pkt):
		select {
		case c.stun <- struct{}{}:
		default: // one is enough
		}
	case pkt[0] >= 20 && pkt[0] < 64:
		_, _ = c.dtls.Write(pkt) // what finds no place comes again
	}
}

// check is a binding request that nominates (RFC 8445 §7.2.4), also sent later to show consent.
func (c *checks) check() ([]byte, error) {
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(c.farUfrag+":"+c.ufrag),
		stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{0x6e, 0, 1, 0xff}},
		stun.RawAttribute{Type: stun.AttrICEControlling, Value: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		stun.RawAttribute{Type: stun.AttrUseCandidate}, stun.NewShortTermIntegrity(c.farPwd), stun.Fingerprint)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	return m.Raw, nil
}

// connect does ICE and DTLS. The socket must be read meanwhile.
func (l *leg) connect(ctx context.Context, s *socket, w *way) error {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if err := l.reach(ctx, s, w); err != nil {
		return err
	}
	cert, err := certificate()
	if err != nil {
		return fmt.Errorf("own certificate: %w", err)
	}
	conn := &legConn{l: l, w: w, s: s}
	c, err := dtls.ClientWithContext(ctx, conn, &dtls.Config{
		Certificates:           []tls.Certificate{cert},
		SRTPProtectionProfiles: []dtls.SRTPProtectionProfile{dtls.SRTPProtectionProfile(l.suite.profile)},
		ExtendedMasterSecret:   dtls.RequireExtendedMasterSecret,
		InsecureSkipVerify:     true, // the fingerprint proves it
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) == 0 || printOf(raw[0]) != w.ice.farPrint {
				return errors.New("the node's certificate is not the one of its answer")
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("DTLS: %w", err)
	}
	state := c.ConnectionState()
	// RFC 5764 §4.2: client key, server key, client salt, server salt.
	n := l.suite.saltLen
	m, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(keyLen+n))
	conn.mute.Store(true) // a close_notify would end the call
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("DTLS: %w", err)
	}
	keys, salts := m[:2*keyLen], m[2*keyLen:]
	return w.protect(l.suite, append(keys[:keyLen:keyLen], salts[:n]...), append(keys[keyLen:2*keyLen:2*keyLen], salts[n:]...))
}

// reach checks until the node answers.
func (l *leg) reach(ctx context.Context, s *socket, w *way) error {
	again := time.NewTicker(checkEvery)
	defer again.Stop()
	for {
		pkt, err := w.ice.check()
		if err == nil {
			err = s.write(pkt, l.addr, w.to)
		}
		if err != nil {
			return err
		}
		select {
		case <-w.ice.stun:
			return nil
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("no ICE check was answered: %w", ctx.Err())
		}
	}
}

// legConn is what pion/dtls sees of the shared socket.
type legConn struct {
	l    *leg
	w    *way
	s    *socket
	mute atomic.Bool
}

func (c *legConn) Read(b []byte) (int, error) { return c.w.ice.dtls.Read(b) }

func (c *legConn) Write(b []byte) (int, error) {
	if c.mute.Load() {
		return len(b), nil
	}
	return len(b), c.s.write(b, c.l.addr, c.w.to)
}

func (c *legConn) Close() error { return c.w.ice.dtls.Close() }
func (c *legConn) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.l.addr, 9))
}
func (c *legConn) RemoteAddr() net.Addr               { return net.UDPAddrFromAddrPort(c.w.to) }
func (c *legConn) SetReadDeadline(t time.Time) error  { return c.w.ice.dtls.SetReadDeadline(t) }
func (c *legConn) SetDeadline(t time.Time) error      { return c.w.ice.dtls.SetReadDeadline(t) }
func (c *legConn) SetWriteDeadline(_ time.Time) error { return nil }
