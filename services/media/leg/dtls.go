package leg

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
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
	"github.com/pion/transport/v2/packetio"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/srtp"
)

// handshakeTime bounds a handshake; afterwards the connection stays for
// lastFlightTime to repeat its last flight, or until the far end's first SRTP packet.
const (
	handshakeTime  = 10 * time.Second
	lastFlightTime = 30 * time.Second
)

// recordHandshake and helloClient begin a ClientHello (RFC 6347 §4.1, RFC 5246 §7.4).
const (
	recordHandshake = 22
	helloClient     = 1
	recordHead      = 13
)

var errFingerprint = errors.New("the certificate is not the one that the SDP announced")

// handshake is the DTLS part of a browser's leg. A leg has at most one at a time.
type handshake struct {
	mu   sync.Mutex
	conn *muxConn // nil: none runs
	done bool     // keys were made for the fingerprint
}

// reset forgets what was negotiated, so that a new ClientHello is taken.
func (d *handshake) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done = false
	if d.conn != nil {
		d.conn.shut()
		d.conn = nil
	}
}

// settle lets go of a connection whose keys are in use at both ends.
func (d *handshake) settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil && d.done {
		d.conn.shut()
	}
}

// dtlsPacket takes a DTLS packet from an address that a check proved.
func (l *Leg) dtlsPacket(p *port, pkt []byte, from netip.AddrPort) {
	d := &l.dtls
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == nil {
		if d.done || len(pkt) <= recordHead || pkt[0] != recordHandshake || pkt[recordHead] != helloClient {
			l.h.drop(dropHandshake)
			return
		}
		conn := newMuxConn(p, from)
		if !l.h.shakes.take(conn, from.Addr(), conn.heard.Load()) {
			l.h.drop(dropHandshake)
			return
		}
		d.conn = conn
		l.h.wg.Go(func() { l.shake(conn) })
	}
	d.conn.note()
	d.conn.to.Store(&hop{p, from})
	if _, err := d.conn.buf.Write(pkt); err != nil {
		l.h.drop(dropHandshake)
	}
}

// shake runs one handshake and what follows it.
func (l *Leg) shake(conn *muxConn) {
	c, err := l.shakeHands(conn)
	l.h.shakes.give(conn)
	if err != nil {
		if l.h.ctx.Err() == nil {
			l.h.log.Info("DTLS handshake failed", zap.String("leg", l.id), zap.Error(err))
		}
		l.dropConn(conn, false)
		return
	}
	l.h.stats.handshakes.Add(1)
	l.dtls.mu.Lock()
	l.dtls.done = l.dtls.conn == conn
	l.dtls.mu.Unlock()
	if err := l.join(); err != nil {
		l.h.logError("leg did not join the mix", l.id, err)
	}
	l.alive()
	l.h.dirty(l)
	t := time.NewTimer(lastFlightTime)
	defer t.Stop()
	select {
	case <-t.C:
	case <-conn.closed:
	case <-l.h.ctx.Done():
	}
	conn.mute.Store(true) // a close_notify would end the browser's call
	if err := c.Close(); err != nil {
		l.h.log.Debug("DTLS close", zap.String("leg", l.id), zap.Error(err))
	}
	l.dropConn(conn, true)
}

func (l *Leg) dropConn(conn *muxConn, done bool) {
	conn.shut()
	l.dtls.mu.Lock()
	if l.dtls.conn == conn {
		l.dtls.conn = nil
		l.dtls.done = done
	}
	l.dtls.mu.Unlock()
}

func (l *Leg) shakeHands(conn *muxConn) (*dtls.Conn, error) {
	l.mu.Lock()
	prints := l.st.Fingerprints
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(l.h.ctx, handshakeTime)
	defer cancel()
	c, err := dtls.ServerWithContext(ctx, conn, &dtls.Config{
		Certificates: []tls.Certificate{l.h.cfg.Certificate},
		CipherSuites: []dtls.CipherSuiteID{ // forward secrecy and AEAD only
			dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		},
		SRTPProtectionProfiles: []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80},
		ClientAuth:             dtls.RequireAnyClientCert,
		ExtendedMasterSecret:   dtls.RequireExtendedMasterSecret,
		InsecureSkipVerify:     true, // WebRTC's certificates sign themselves; the fingerprint proves them
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			return verify(raw, prints)
		},
		InsecureSkipVerifyHello: true, // the address has proved itself by an ICE check
	})
	if err != nil {
		return nil, err
	}
	p, ok := c.SelectedSRTPProtectionProfile()
	profile := srtp.Profile(p)
	if !ok || profile.SaltLen() == 0 {
		err = errors.New("no SRTP profile in common")
	} else {
		err = l.rekey(c, profile, prints)
	}
	if err != nil {
		conn.mute.Store(true)
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// rekey takes the keys that the handshake made (RFC 5764 §4.2): client key, server
// key, client salt, server salt.
func (l *Leg) rekey(c *dtls.Conn, p srtp.Profile, prints []sdp.Fingerprint) error {
	salt := p.SaltLen()
	state := c.ConnectionState()
	m, err := state.ExportKeyingMaterial("EXTRACTOR-dtls_srtp", nil, 2*(srtp.KeyLen+salt))
	if err != nil {
		return fmt.Errorf("DTLS keys: %w", err)
	}
	key, salts := m[:2*srtp.KeyLen], m[2*srtp.KeyLen:]
	in := srtp.Keys{Profile: p, Key: key[:srtp.KeyLen], Salt: salts[:salt]}
	out := srtp.Keys{Profile: p, Key: key[srtp.KeyLen:], Salt: salts[salt:]}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(prints) != len(l.st.Fingerprints) || prints[0] != l.st.Fingerprints[0] {
		return errors.New("the leg was negotiated anew meanwhile")
	}
	l.st.In, l.st.Out, l.st.Suite = &in, &out, suiteOf(&state)
	return l.configureLocked()
}

func verify(raw [][]byte, prints []sdp.Fingerprint) error {
	if len(raw) == 0 {
		return errFingerprint
	}
	for _, f := range prints {
		var sum []byte
		switch f.Hash {
		case "sha-256":
			s := sha256.Sum256(raw[0])
			sum = s[:]
		case "sha-384":
			s := sha512.Sum384(raw[0])
			sum = s[:]
		case "sha-512":
			s := sha512.Sum512(raw[0])
			sum = s[:]
		default:
			continue
		}
		if hexColons(sum) == f.Digest {
			return nil
		}
	}
	return errFingerprint
}

func hexColons(b []byte) string {
	out := make([]string, len(b))
	for i := range b {
		out[i] = strings.ToUpper(hex.EncodeToString(b[i : i+1]))
	}
	return strings.Join(out, ":")
}

// fingerprintOf returns the SHA-256 fingerprint of a certificate, as in SDP.
func fingerprintOf(c tls.Certificate) (string, error) {
	if len(c.Certificate) == 0 {
		return "", errors.New("leg: no certificate for DTLS")
	}
	s := sha256.Sum256(c.Certificate[0])
	return hexColons(s[:]), nil
}

// muxConn is what pion/dtls sees of the shared socket.
type muxConn struct {
	buf    *packetio.Buffer
	to     atomic.Pointer[hop]
	heard  atomic.Int64 // mix.Now of the last packet
	mute   atomic.Bool
	once   sync.Once
	closed chan struct{}
}

// handshakePackets bounds what waits for a handshake; a flight has about six.
const handshakePackets = 32

func newMuxConn(p *port, from netip.AddrPort) *muxConn {
	c := &muxConn{buf: packetio.NewBuffer(), closed: make(chan struct{})}
	c.buf.SetLimitCount(handshakePackets)
	c.to.Store(&hop{p, from})
	c.note()
	return c
}

func (c *muxConn) shut() {
	c.once.Do(func() {
		c.mute.Store(true)
		close(c.closed)
		_ = c.buf.Close() // only ever nil
	})
}

func (c *muxConn) Read(b []byte) (int, error) { return c.buf.Read(b) }

func (c *muxConn) Write(b []byte) (int, error) {
	if c.mute.Load() {
		return len(b), nil
	}
	to := c.to.Load()
	sa, ok := to.port.sock.Sockaddr(to.at)
	w := to.port.getWriter()
	slot := w.Slot()
	if !ok || len(b) > len(slot) {
		to.port.putWriter(w)
		return 0, net.ErrClosed
	}
	w.Queue(copy(slot, b), &sa)
	w.Flush()
	to.port.putWriter(w)
	return len(b), nil
}

func (c *muxConn) Close() error                       { c.shut(); return nil }
func (c *muxConn) LocalAddr() net.Addr                { return net.UDPAddrFromAddrPort(c.to.Load().port.sock.Local()) }
func (c *muxConn) RemoteAddr() net.Addr               { return net.UDPAddrFromAddrPort(c.to.Load().at) }
func (c *muxConn) SetReadDeadline(t time.Time) error  { return c.buf.SetReadDeadline(t) }
func (c *muxConn) SetDeadline(t time.Time) error      { return c.buf.SetReadDeadline(t) }
func (c *muxConn) SetWriteDeadline(_ time.Time) error { return nil }
