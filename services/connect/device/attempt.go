package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/icetcp"
	"github.com/parley-jami/parley/services/connect/device/iceudp"
	"github.com/parley-jami/parley/services/connect/device/mux"
	"github.com/parley-jami/parley/services/connect/device/request"
	"github.com/parley-jami/parley/services/connect/device/secure"
	"github.com/parley-jami/parley/services/connect/device/streams"
)

// udpAfter is for how long TCP is tried alone (as RFC 8305 §5 has the better family tried first). Both
// sides wait as long, each from when it knows the other's addresses, so UDP comes about sooner on neither.
const udpAfter = 300 * time.Millisecond

// agents are those of one connection that is being made.
type agents struct {
	tcp *icetcp.Agent
	udp *iceudp.Agent // nil: TCP alone
}

// newAgents makes them; controlling is the device that was asked.
func (m *Manager) newAgents(ctx context.Context, controlling, udp bool) (a agents, err error) {
	if a.tcp, err = m.cfg.Listener.NewAgent(controlling); err != nil {
		return a, err
	}
	if udp && m.cfg.UDP != nil {
		if a.udp, err = m.cfg.UDP.NewAgent(ctx, controlling); err != nil { // TCP may do
			m.cfg.Log.Warn("UDP is not offered to a device", zap.Error(err))
			a.udp = nil
		}
	}
	return a, nil
}

func (a agents) close() {
	a.tcp.Close()
	if a.udp != nil {
		a.udp.Close()
	}
}

// tell has a message describe this side.
func (a agents) tell(m *request.Message) *request.Message {
	m.ICE = a.tcp.Local()
	if a.udp != nil {
		d := a.udp.Local()
		m.UDP = &d
	}
	return m
}

// connects are the ways to a path with the device that remote is of; udp is nil where one of both doesn't know it.
func (a agents) connects(remote *request.Message) (tcp, udp func(context.Context) (net.Conn, error)) {
	tcp = func(ctx context.Context) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, pathTime)
		defer cancel()
		c, err := a.tcp.Connect(ctx, remote.ICE)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	if a.udp != nil && remote.UDP != nil {
		udp = func(ctx context.Context) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, pathTime)
			defer cancel()
			c, err := a.udp.Connect(ctx, *remote.UDP)
			if err != nil {
				return nil, err
			}
			return c, nil
		}
	}
	return tcp, udp
}

// final is an error after which the other path is of no use: the device was not who it should be.
type final struct{ error }

// Unwrap lets errors.Is see the reason.
func (f final) Unwrap() error { return f.error }

// abandoned reports whether a handshake may have failed since the peer took the other path.
func abandoned(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// race runs tcp, and udp (which may be nil) [udpAfter] later, or when tcp failed. What comes about
// first is returned; the other one is ended, waited for, and given to discard where it came about too.
func race[T any](ctx context.Context, tcp, udp func(context.Context) (T, error), discard func(T)) (won T, err error) {
	if udp == nil {
		return tcp(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type end struct {
		got T
		err error
		udp bool
	}
	ends := make(chan end, 2)
	failed := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		got, err := tcp(ctx)
		if err != nil {
			close(failed)
		}
		ends <- end{got, err, false}
	})
	wg.Go(func() {
		select {
		case <-ctx.Done():
			ends <- end{err: ctx.Err(), udp: true}
			return
		case <-failed:
		case <-time.After(udpAfter):
		}
		got, err := udp(ctx)
		ends <- end{got, err, true}
	})
	go func() { wg.Wait(); close(ends) }()
	found := false
	var ended error // by which both are over
	var byTCP, byUDP error
	for e := range ends {
		if f, ok := errors.AsType[final](e.err); ok && !found {
			ended = f.error
			cancel()
		}
		switch {
		case e.err != nil && e.udp:
			byUDP = e.err
		case e.err != nil:
			byTCP = e.err
		case found || ended != nil:
			discard(e.got)
		default:
			won, found = e.got, true
			cancel()
		}
	}
	if found {
		return won, nil
	}
	if ended != nil {
		return won, ended
	}
	return won, fmt.Errorf("%w; by UDP: %w", byTCP, byUDP)
}

// session is a path on which both have shown who they are.
type session struct {
	chain *trust.Chain
	peer  channel.Peer
	open  func(mux.Config) *mux.Socket
	close func() // in place of serving it
	free  func() // after it was served
}

// asked makes the session as the device that was asked. It alone chooses the path: on another one the
// peer waits in vain. outcome is of an error.
func (m *Manager) asked(ctx context.Context, acc *Account, from *trust.Chain, a agents, remote *request.Message, pathed func()) (s *session, outcome Outcome, err error) {
	tcp, udp := a.connects(remote)
	conn, err := race(ctx, tcp, udp, func(c net.Conn) { c.Close() })
	if err != nil {
		return nil, NoPath, err
	}
	pathed()
	if s, err = m.secure(acc, conn, from, true); err != nil {
		return nil, NoSession, err
	}
	return s, "", nil
}

// asks makes the session as the device that asked. There may be a path by TCP and one by UDP, of which
// the peer takes one.
func (m *Manager) asks(ctx context.Context, acc *Account, peer *trust.Chain, a agents, remote *request.Message) (*session, error) {
	tcp, udp := a.connects(remote)
	then := func(path func(context.Context) (net.Conn, error)) func(context.Context) (*session, error) {
		if path == nil {
			return nil
		}
		return func(ctx context.Context) (*session, error) {
			conn, err := path(ctx)
			if err != nil {
				return nil, err
			}
			stop := context.AfterFunc(ctx, func() { conn.Close() }) // the other one was faster
			defer stop()
			s, err := m.secure(acc, conn, peer, false)
			if err != nil && !abandoned(err) {
				return nil, final{err}
			}
			return s, err
		}
	}
	return race(ctx, then(tcp), then(udp), func(s *session) { s.close() })
}

// secure makes the session on a path. asked: the peer asked for it, so we are TLS's client, and
// DTLS's server.
func (m *Manager) secure(acc *Account, conn net.Conn, peer *trust.Chain, asked bool) (*session, error) {
	ctx, cancel := context.WithTimeout(m.ctx, handshakeTime)
	defer cancel()
	s := &session{}
	if _, ok := conn.(*iceudp.Conn); ok {
		handshake := secure.DTLSClient
		if asked {
			handshake = secure.DTLSServer
		}
		sess, chain, err := handshake(ctx, conn, acc.Own, peer, acc.Judge)
		if err != nil {
			return nil, err
		}
		t, err := streams.New(ctx, sess, !asked)
		if err != nil {
			return nil, err
		}
		s.chain, s.close, s.free = chain, t.Close, func() {}
		s.peer.Over, s.peer.TLS, s.peer.Suite = "udp", secure.DTLS, secure.SuiteName(sess)
		s.open = func(c mux.Config) *mux.Socket { return mux.NewOn(t, c) }
	} else {
		handshake := secure.Server
		if asked {
			handshake = secure.Client
		}
		sess, chain, err := handshake(ctx, conn, acc.Own, peer, acc.Judge)
		if err != nil {
			return nil, err
		}
		if err := m.last(acc, s, conn.(*icetcp.Conn), sess, chain); err != nil {
			conn.Close()
			return nil, err
		}
	}
	s.peer.Account, s.peer.Device, s.peer.DeviceLong = s.chain.JamiID, s.chain.DeviceShort, s.chain.DeviceID.String()
	return s, nil
}
