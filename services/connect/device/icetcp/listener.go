package icetcp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/stun"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// Bounds of connections whose first check has not come: who opens one has so long to send it.
const (
	claimTime         = 10 * time.Second
	unclaimedEach     = 32 // of one address
	unclaimedTogether = 2048
)

// maxArrived bounds the connections that a peer opens for one agent.
const maxArrived = 8

// Options of a listener.
type Options struct {
	// Public are addresses under which the port is reached from outside, beside the machine's.
	Public []netip.Addr
	// Loopback allows addresses of the machine itself, for tests.
	Loopback bool
	Log      *zap.Logger
}

// Listener is the one TCP port to which peers connect. It is safe for concurrent use.
type Listener struct {
	ln     net.Listener
	o      Options
	places *limits.Places
	wg     sync.WaitGroup

	mu     sync.Mutex
	agents map[string]*Agent // by ufrag
	relay  Relay             // nil: there is none
	open   map[net.Conn]struct{}
	closed bool
}

// NewListener serves ln's connections in Serve, and closes it.
func NewListener(ln net.Listener, o Options) *Listener {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &Listener{ln: ln, o: o, places: limits.NewPlaces(unclaimedEach, unclaimedTogether), agents: map[string]*Agent{}, open: map[net.Conn]struct{}{}}
}

func (l *Listener) addr() netip.AddrPort {
	return addrOf(l.ln.Addr())
}

// addrOf is a TCP address; of another kind it is the zero one.
func addrOf(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Serve accepts connections until ctx ends, or the listener fails.
func (l *Listener) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, l.close)
	defer l.wg.Wait()
	defer l.close()
	defer stop()
	for pause := 5 * time.Millisecond; ; {
		c, err := l.ln.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			l.take(c, false)
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("device connections: %w", err)
		}
		l.o.Log.Warn("no connection accepted", zap.Error(err)) // too many files, say
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

func (l *Listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.ln.Close()
	for c := range l.open {
		c.Close()
	}
}

// take waits for the first check on a connection, if there is a place. relayed: it came by way
// of our relay.
func (l *Listener) take(c net.Conn, relayed bool) {
	var from netip.Addr
	if t, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		from = t.AddrPort().Addr().Unmap()
	}
	if !l.places.Take(from) {
		c.Close()
		l.o.Log.Debug("connection refused", zap.Stringer("from", c.RemoteAddr()), zap.Error(errPlaces))
		return
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		c.Close()
		return
	}
	l.open[c] = struct{}{}
	l.mu.Unlock()
	l.wg.Go(func() {
		defer l.places.Free(from)
		err := l.claim(c, relayed)
		l.mu.Lock()
		delete(l.open, c)
		l.mu.Unlock()
		if err != nil {
			c.Close()
			l.o.Log.Debug("connection refused", zap.Stringer("from", c.RemoteAddr()), zap.Error(err))
		}
	})
}

// Why a connection is closed before a check was admitted on it.
var (
	errPlaces  = errors.New("more connections that wait for their first check than there are places")
	errUnknown = errors.New("a check for no connection that is awaited")
)

// claim gives a connection to the agent that its first check is for.
func (l *Listener) claim(c net.Conn, relayed bool) error {
	if err := c.SetReadDeadline(time.Now().Add(claimTime)); err != nil {
		return err
	}
	f := newFramed(c)
	m, err := f.next()
	if err != nil {
		return err
	}
	if m == nil || m.Type != stun.BindingRequest {
		return errUnknown
	}
	local, _, err := ice.Username(m)
	if err != nil {
		return err
	}
	l.mu.Lock()
	a := l.agents[local]
	l.mu.Unlock()
	if a == nil {
		return errUnknown
	}
	if err := (&ice.Side{Local: a.local}).Admit(m); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return a.arrive(arrival{f, m, relayed})
}

// Agent opens one connection. Its candidates are told to the peer, then Connect is called
// with the peer's.
type Agent struct {
	l           *Listener
	controlling bool
	local       request.Description
	tie         uint64
	relay       Relay // that local names; nil: none

	mu      sync.Mutex
	closed  bool
	arrived chan arrival
}

// arrival is a connection that the peer opened, with its first check.
type arrival struct {
	f     *framed
	first *stun.Message
	relay bool // by way of our relay
}

// NewAgent makes an agent that peers can connect to until it is closed. controlling is the
// device that was asked for the connection.
func (l *Listener) NewAgent(controlling bool) (*Agent, error) {
	cands, err := l.candidates()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	relay := l.relay
	l.mu.Unlock()
	if relay != nil {
		cands = append(cands, relayed(relay.Addr()))
	}
	var b [4 + 12 + 8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	a := &Agent{l: l, controlling: controlling, relay: relay, arrived: make(chan arrival, maxArrived),
		local: request.Description{Ufrag: hex.EncodeToString(b[:4]), Pwd: hex.EncodeToString(b[4:16]), Candidates: cands}}
	for _, x := range b[16:] {
		a.tie = a.tie<<8 | uint64(x)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	if l.agents[a.local.Ufrag] != nil {
		return nil, errors.New("the credentials of a connection came twice; try again")
	}
	l.agents[a.local.Ufrag] = a
	return a, nil
}

// Local is what to tell the peer.
func (a *Agent) Local() request.Description { return a.local }

// Close ends the agent; a connection that Connect returned stays. It may be called more than
// once.
func (a *Agent) Close() {
	a.l.mu.Lock()
	delete(a.l.agents, a.local.Ufrag)
	a.l.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	close(a.arrived)
	for in := range a.arrived {
		in.f.Close()
	}
}

var errCrowd = errors.New("more connections than a peer needs")

func (a *Agent) arrive(in arrival) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return net.ErrClosed
	}
	select {
	case a.arrived <- in:
		return nil
	default:
		return errCrowd
	}
}
