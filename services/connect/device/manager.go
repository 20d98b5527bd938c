package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/icetcp"
	"github.com/parley-jami/parley/services/connect/device/iceudp"
	"github.com/parley-jami/parley/services/connect/device/mux"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// Times (connect-and-calls §1.3). The handshake's is less than stock's 40 s.
const (
	answerTime    = 30 * time.Second
	pathTime      = 30 * time.Second
	handshakeTime = 20 * time.Second
	idleTime      = 10 * time.Minute // without a channel
	lookEvery     = 30 * time.Second // at what is idle, and at dates of certificates
)

// Bounds of what peers can have us do.
const (
	maxLinks       = 10000 // connections
	maxLinksDevice = 4     // of one device; the oldest has to go
	maxSetups      = 1024  // connections that are being made for peers
	maxSetupsEach  = 8     // for one account
	requestBurst   = 10    // of one device
	requestRate    = 0.5   // a second
	allBurst       = 1000
	allRate        = 100
)

// Config of a manager.
type Config struct {
	Listener *icetcp.Listener
	UDP      *iceudp.Port // nil: TCP alone
	Overlay  Overlay
	Treated  *Treated
	// Handlers take the channels that peers open, by the text before the name's colon. Others
	// are declined.
	Handlers map[string]channel.Handler
	Log      *zap.Logger
	Metrics  *Metrics          // nil: none
	Observe  func(Observation) // nil, or told what became of each request; it may not block

	Keep *sockets.Keep  // nil: connections end with the process
	Kept []sockets.Kept // by the last process
	Lost func([]uint64) // nil, or told which of the expected channels won't come
}

// Manager is safe for concurrent use.
type Manager struct {
	cfg  Config
	ctx  context.Context //nolint:containedctx // of all that goes on for peers, until Close
	stop context.CancelFunc
	wg   sync.WaitGroup
	rate *limits.Limiter[jami.ID] // by device
	all  *limits.Limiter[struct{}]

	mu       sync.Mutex
	closed   bool
	accounts map[jami.ID]*Account
	links    map[linkKey][]*link // the oldest first
	count    int
	setups   int
	each     map[jami.ID]int // setups by the peer's account
	answers  map[answerKey]chan *request.Message
	dials    map[linkKey]*dial
	restored map[jami.ID][]*restored // by the account, until it is there
}

// linkKey is whose connection it is.
type linkKey struct {
	account jami.ID
	device  jami.LongID
}

type answerKey struct {
	account, device jami.ID
	id              uint64
}

// link is a connection.
type link struct {
	key     linkKey
	chain   *trust.Chain
	sock    *mux.Socket
	account *Account
}

// New returns a manager. It works until Close.
func New(cfg Config) *Manager {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	m := &Manager{cfg: cfg, rate: limits.New[jami.ID](requestRate, requestBurst), all: limits.New[struct{}](allRate, allBurst),
		accounts: map[jami.ID]*Account{}, links: map[linkKey][]*link{}, each: map[jami.ID]int{}, answers: map[answerKey]chan *request.Message{}, dials: map[linkKey]*dial{}, restored: map[jami.ID][]*restored{}}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.restore(cfg.Kept)
	m.wg.Go(m.look)
	return m
}

// Close ends all connections, and waits for what goes on.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	var all []*link
	for _, ls := range m.links {
		all = append(all, ls...)
	}
	m.mu.Unlock()
	m.stop()
	for _, l := range all {
		l.sock.Close()
	}
	m.Settle()
	m.wg.Wait()
}

// begin runs fn, unless the manager is closed.
func (m *Manager) begin(fn func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Go(fn)
	return true
}

// look closes what is idle, or not good any more, until Close.
func (m *Manager) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case now := <-tick.C:
			m.tidy(now)
		}
	}
}

func (m *Manager) tidy(now time.Time) {
	m.mu.Lock()
	var all []*link
	for _, ls := range m.links {
		all = append(all, ls...)
	}
	m.mu.Unlock()
	for _, l := range all {
		if since := l.sock.Idle(); !since.IsZero() && now.Sub(since) >= idleTime {
			l.sock.Close()
			continue
		}
		if err := l.account.Judge.Allowed(l.chain); err != nil { // a certificate has expired, say
			m.cfg.Log.Info("connection closed", zap.Stringer("device", l.chain.DeviceShort), zap.Error(err))
			l.sock.Close()
		}
	}
}

// Links is how many connections there are.
func (m *Manager) Links() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// serve serves the channels of a session until it ends. up is told once when it is there, or why not.
func (m *Manager) serve(acc *Account, sess *session, up func(*link, error)) {
	chain := sess.chain
	l := &link{key: linkKey{acc.ID, chain.DeviceID}, chain: chain, account: acc}
	defer sess.free()
	l.sock = sess.open(mux.Config{Log: m.cfg.Log, Peer: sess.peer, Accept: func(c *mux.Channel) error { return m.accept(acc, c) },
		Lasts: Lasts, Restored: func(c *mux.Channel) error { return m.goOn(acc, c) }})
	unwatch, err := acc.Judge.Watch(chain, func(why error) {
		m.cfg.Log.Info("connection closed", zap.Stringer("device", chain.DeviceShort), zap.Error(why))
		m.cfg.Metrics.closed()
		m.begin(func() { l.sock.Close() }) // it may wait for the peer, and the caller can't
	})
	if err != nil {
		l.sock.Close()
		up(nil, err)
		return
	}
	defer unwatch()
	old, err := m.enter(l)
	if err != nil {
		l.sock.Close()
		up(nil, err)
		return
	}
	if old != nil {
		old.sock.Close()
	}
	defer m.leave(l)
	m.cfg.Metrics.session(sess.peer.Over)
	up(l, nil)
	err = l.sock.Run()
	m.cfg.Log.Debug("connection ended", zap.Stringer("device", chain.DeviceShort), zap.Error(err))
}

// Errors of connections.
var (
	ErrClosed     = errors.New("device connections are closed")
	ErrCrowded    = errors.New("the node has as many device connections as it may have")
	ErrNoAccount  = errors.New("the node has no such account")
	ErrNoHandler  = errors.New("no channel of that name is taken")
	ErrUnanswered = errors.New("the device did not answer the request for a connection")
)

// enter notes a connection; old is one that has to go for it.
func (m *Manager) enter(l *link) (old *link, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, ErrClosed
	case m.accounts[l.key.account] == nil:
		return nil, ErrNoAccount
	case m.count >= maxLinks:
		return nil, ErrCrowded
	}
	if ls := m.links[l.key]; len(ls) >= maxLinksDevice {
		old = ls[0]
	}
	m.links[l.key] = append(m.links[l.key], l)
	m.count++
	m.cfg.Metrics.links(m.count)
	return old, nil
}

func (m *Manager) leave(l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links[l.key] = slices.DeleteFunc(m.links[l.key], func(x *link) bool { return x == l })
	if len(m.links[l.key]) == 0 {
		delete(m.links, l.key)
	}
	m.count--
	m.cfg.Metrics.links(m.count)
}

// live returns the latest connection to a device, or nil.
func (m *Manager) live(k linkKey) *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range slices.Backward(m.links[k]) {
		select {
		case <-l.sock.Done():
		default:
			return l
		}
	}
	return nil
}

// accept gives a channel to who takes those of its name.
func (m *Manager) accept(acc *Account, c *mux.Channel) error {
	h := m.cfg.Handlers[scheme(c.Name())]
	if h == nil {
		return fmt.Errorf("%w: %.80q", ErrNoHandler, c.Name())
	}
	if err := h.Accept(acc.ID, c); err != nil {
		return err
	}
	m.cfg.Log.Debug("channel accepted", zap.String("channel", c.Name()), zap.Stringer("account", acc.ID), zap.String("device", c.Peer().DeviceLong))
	return nil
}

// scheme is what stands before the colon.
func scheme(name string) string {
	for i, r := range name {
		if r == ':' {
			return name[:i]
		}
	}
	return name
}
