package sip

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/trust"
)

// farewell bounds the wait for answers to the BYEs of a device that is shut out, before
// its connections are closed.
const farewell = 300 * time.Millisecond

// Peers judges the certificates of Jami devices. Its errors are [*trust.Error]. Methods may
// be called concurrently.
type Peers interface {
	Check(certs []*x509.Certificate) (*trust.Chain, error)
	// Allowed judges a chain again that was good.
	Allowed(c *trust.Chain) error
	// Watch refuses as Allowed does, or calls fn once when the chain is no longer let in
	// though it has not expired. fn does not wait. stop ends that.
	Watch(c *trust.Chain, fn func(error)) (stop func(), err error)
}

// guest is a Jami device that proved who it is, by a connection over TLS. It is one as long
// as it has a connection or a call.
type guest struct {
	chain *trust.Chain
	stop  func()

	// under guests.mu
	conns map[*streamConn]struct{}
	calls map[*dialog]struct{}
}

// guests are by their device certificate.
type guests struct {
	peers Peers // nil: nobody is asked for a certificate
	gone  func(*guest, error)

	mu sync.Mutex
	by map[[sha256.Size]byte]*guest
}

func guestKey(c *trust.Chain) [sha256.Size]byte { return sha256.Sum256(c.Device.Raw) }

// enter notes a connection or a call of a device; the other is nil. An error says
// why it is not let in.
func (g *guests) enter(c *trust.Chain, conn *streamConn, call *dialog) (*guest, error) {
	if err := g.peers.Allowed(c); err != nil {
		return nil, err
	}
	key := guestKey(c)
	g.mu.Lock()
	defer g.mu.Unlock()
	x := g.by[key]
	if x == nil {
		x = &guest{chain: c, conns: map[*streamConn]struct{}{}, calls: map[*dialog]struct{}{}}
		stop, err := g.peers.Watch(c, func(err error) { g.bar(key, x, err) })
		if err != nil {
			return nil, err
		}
		x.stop = stop
		g.by[key] = x
	}
	if conn != nil {
		x.conns[conn] = struct{}{}
	}
	if call != nil {
		x.calls[call] = struct{}{}
	}
	return x, nil
}

// leave forgets a connection or a call. x may be nil.
func (g *guests) leave(x *guest, conn *streamConn, call *dialog) {
	if x == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(x.conns, conn)
	delete(x.calls, call)
	if key := guestKey(x.chain); len(x.conns) == 0 && len(x.calls) == 0 && g.by[key] == x {
		x.stop()
		delete(g.by, key)
	}
}

// bar is called when a device is no longer let in: whoever asks from now on is refused, and
// what it has ends.
func (g *guests) bar(key [sha256.Size]byte, x *guest, why error) {
	g.mu.Lock()
	if g.by[key] == x {
		delete(g.by, key)
	}
	g.mu.Unlock()
	g.gone(x, why)
}

// has returns what a device has.
func (g *guests) has(x *guest) (conns []*streamConn, calls []*dialog) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range x.conns {
		conns = append(conns, c)
	}
	for d := range x.calls {
		calls = append(calls, d)
	}
	return conns, calls
}

// arrive judges the certificates that a client showed, before the handshake is done. One
// that shows none, or none that claims to be of a Jami device, is a stranger, as over TCP:
// phones have certificates of their makers that prove nothing here. A claim that does not
// hold ends the handshake.
func (g *guests) arrive(c *streamConn, certs []*x509.Certificate, log *zap.Logger) error {
	if !trust.ClaimsDevice(certs) {
		return nil
	}
	chain, err := g.peers.Check(certs)
	var x *guest
	if err == nil {
		x, err = g.enter(chain, c, nil)
	}
	if err != nil {
		log.Info("client refused", zap.String("from", c.remote), zap.String("reason", reasonOf(err)), zap.Error(err))
		return err
	}
	if !c.is(x) { // closed meanwhile
		g.leave(x, c, nil)
		return errClosedDoor
	}
	return nil
}

// reasonOf is the stable word of a refusal.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*trust.Error](err); ok {
		return string(e.Reason)
	}
	return "error"
}

// guestTLS is a server's configuration that asks for a certificate without requiring one.
func (s *Server) guestTLS(base *tls.Config) *tls.Config {
	if s.cfg.Peers == nil {
		return base
	}
	conf := base.Clone()
	conf.ClientAuth = tls.RequestClientCert
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c, ok := h.Conn.(*streamConn)
		if !ok {
			return nil, errors.New("a connection that was not accepted here")
		}
		own := base.Clone()
		own.ClientAuth = tls.RequestClientCert
		// Also when a session is resumed. That the client has the key is proved after this,
		// and before anything that it says is read.
		own.VerifyConnection = func(st tls.ConnectionState) error {
			c.shook(&st)
			return s.guests.arrive(c, st.PeerCertificates, s.log)
		}
		return own, nil
	}
	return conf
}

// shutOut ends the calls and the connections of a device.
func (s *Server) shutOut(x *guest, why error) {
	if s.ctx.Err() != nil {
		return
	}
	s.wg.Go(func() {
		conns, calls := s.guests.has(x)
		s.log.Info("device shut out", zap.Stringer("jami_id", x.chain.JamiID), zap.Stringer("device", x.chain.DeviceID),
			zap.String("reason", reasonOf(why)), zap.Int("calls", len(calls)), zap.Int("connections", len(conns)))
		ctx, cancel := context.WithTimeout(s.ctx, farewell)
		defer cancel()
		said := make(chan struct{})
		s.wg.Go(func() {
			defer close(said)
			var wg sync.WaitGroup
			for _, d := range calls {
				wg.Go(func() { s.bye(ctx, d, reasonOf(why)) })
			}
			wg.Wait()
		})
		select {
		case <-said:
		case <-ctx.Done(): // the room or the phone takes its time; it gets none
		}
		for _, c := range conns {
			c.Close() // an error: it is closed already
		}
	})
}

// resume judges the devices of the calls that the process before this one had.
func (s *Server) resume() {
	for _, d := range s.dialogs.all() {
		if d.Device != "" {
			if !s.channels.expects(d.Source) { // its channel ended with the process
				s.end(d, "lost")
			}
			continue
		}
		if d.Peer == "" {
			continue
		}
		certs, err := trust.Certificates([]byte(d.Peer))
		var c *trust.Chain
		switch {
		case err != nil:
		case s.cfg.Peers == nil:
			err = errors.New("devices are not let in any more")
		default:
			c, err = s.cfg.Peers.Check(certs)
		}
		if err == nil {
			err = s.seat(d, c)
		}
		if err != nil {
			s.log.Info("call of before refused", zap.String("participant", d.ID), zap.String("reason", reasonOf(err)), zap.Error(err))
			s.Hang(d.ID, reasonOf(err))
		}
	}
}

// seat notes a call of a device. After an error it is to be ended.
func (s *Server) seat(d *dialog, c *trust.Chain) error {
	x, err := s.guests.enter(c, nil, d)
	if err != nil {
		return err
	}
	d.mu.Lock()
	over := d.ended
	d.guest = x
	d.mu.Unlock()
	if over {
		s.guests.leave(x, nil, d)
	}
	return nil
}

// guestOf returns the device that a request comes from, by its connection; nil: it showed
// no certificate.
func (s *Server) guestOf(transport, source string) *guest {
	if transport != "TLS" {
		return nil // a datagram may have the source of anybody's connection
	}
	return s.conns.guest(source)
}
