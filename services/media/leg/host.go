package leg

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/resume"
	"github.com/parley-jami/parley/services/media/trunk"
	"github.com/parley-jami/parley/services/media/wire"
)

// Config makes a host.
type Config struct {
	Public  []netip.Addr // addresses to name in SDP; empty: the machine's own
	Loudest int
	Keep    bool // packets stay as they are, and legs are taken, also when rooms don't keep their time
	// Browser is the socket for browsers; RTP and RTCP hold the pairs for phones.
	Browser *net.UDPConn
	RTP     [Pairs]*net.UDPConn
	RTCP    [Pairs]*net.UDPConn
	// Certificate is what DTLS shows, ECDSA P-256.
	Certificate tls.Certificate
	Trunk       *trunk.Key // what the process proves itself with to other workers
	Table       *resume.Table
	Files       *resume.Files // nil: legs end with the process
	Log         *zap.Logger
	Events      Events
}

// Events are told from hot goroutines: they must not block. All are required.
type Events struct {
	Change func(id, room, state, reason string) // "connected", "lost", "closed"
	Digit  func(id, room, digit string, ms int)
	Voice  func(id, room string, speaking bool, level int)
}

// Host carries all legs of the process.
type Host struct {
	cfg    Config
	log    *zap.Logger
	events Events
	ports  []*port // 0: browsers; 1+2k and 2+2k: pair k
	print  string  // fingerprint of the certificate
	stats  stats
	ticks  mix.Ticks
	shakes handshakes
	wg     sync.WaitGroup
	ctx    context.Context // ends handshakes
	stop   context.CancelFunc

	failed chan error

	ctl    sync.Mutex // commands, one at a time; taken before everything
	trunks *trunk.Trunks
	joined map[string]*roomTrunks // under ctl

	mu     sync.Mutex
	legs   map[string]*Leg
	rooms  map[string]*Room
	closed bool
	next   int // under ctl: shared pair that the last leg tried first

	ufrags  sync.Map // string → *Leg
	asked   sync.Map // [12]byte → asked
	dirtyMu sync.Mutex
	dirties map[*Leg]struct{}
	wake    chan struct{}
	addrs   addresses
	relays  relays
	clockW  [1 + 2*Pairs + 2*maxRelays]batch // clock goroutine
	past    [dropReasons]uint64              // clock goroutine: drops already logged

	lateness lateness // clock goroutine
	late     atomic.Bool
}

// New takes the sockets over; nothing runs before [Host.Start].
func New(cfg Config) (*Host, error) {
	h := &Host{
		cfg: cfg, log: cfg.Log, events: cfg.Events, legs: map[string]*Leg{}, rooms: map[string]*Room{},
		shakes: handshakes{runs: map[*muxConn]netip.Addr{}}, failed: make(chan error, 1),
		dirties: map[*Leg]struct{}{}, wake: make(chan struct{}, 1), joined: map[string]*roomTrunks{},
	}
	h.addrs.public = cfg.Public
	h.ctx, h.stop = context.WithCancel(context.Background())
	var err error
	if h.print, err = fingerprintOf(cfg.Certificate); err != nil {
		return nil, err
	}
	add := func(k kind, name string, batch int, c *net.UDPConn) error {
		p, err := newPort(h, k, name, batch, c)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.index = len(h.ports)
		h.ports = append(h.ports, p)
		return nil
	}
	if err := add(kindBrowser, "media0", 0, cfg.Browser); err != nil {
		return nil, err
	}
	h.trunks = trunk.New(cfg.Trunk, trunkSocket{h.ports[0]})
	for i := range Pairs {
		if err := add(kindRTP, fmt.Sprintf("rtp%d", i), 1+i, cfg.RTP[i]); err != nil {
			return nil, err
		}
		if err := add(kindRTCP, fmt.Sprintf("rtcp%d", i), 0, cfg.RTCP[i]); err != nil {
			return nil, err
		}
		h.rtcpPort(i).below = h.rtpPort(i)
	}
	for i := range sharedPairs { // where the Jami peers' checks come
		for _, p := range []*port{h.rtpPort(i), h.rtcpPort(i)} {
			p.reply = wire.NewWriter(p.sock)
		}
	}
	return h, nil
}

// rtpPort and rtcpPort return the sockets of a pair.
func (h *Host) rtpPort(pair int) *port  { return h.ports[1+2*pair] }
func (h *Host) rtcpPort(pair int) *port { return h.ports[2+2*pair] }

// maxBacklog bounds what is thrown away from one socket at the start.
const maxBacklog = 1 << 17

// Start brings back the legs of the process before and begins to read. What piled
// up in the sockets meanwhile is dropped first: played now it would only be a
// burst of old sound.
func (h *Host) Start() error {
	for _, p := range h.ports {
		if _, err := p.reader.Drain(maxBacklog); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if err := h.resume(); err != nil {
		return err
	}
	for _, p := range h.ports {
		h.wg.Go(p.run)
	}
	h.wg.Go(h.clock)
	h.wg.Go(h.saver)
	return nil
}

// Failed tells when a socket ended by itself.
func (h *Host) Failed() <-chan error { return h.failed }

func (h *Host) fail(err error) {
	select {
	case h.failed <- err:
	default:
	}
}

// Fingerprint returns the SHA-256 fingerprint of the certificate, as in SDP.
func (h *Host) Fingerprint() string { return h.print }

// Addresses returns where browsers reach this host.
func (h *Host) Addresses() []netip.AddrPort {
	s := h.ports[0].sock
	var out []netip.AddrPort
	for _, a := range h.addrs.all(s.Local().Addr(), s.Dual()) {
		out = append(out, netip.AddrPortFrom(a, s.Local().Port()))
	}
	return out
}

// Reached says by which addresses others reach this machine beside its own: answers name
// them from now on. It may be called at any time.
func (h *Host) Reached(list []netip.Addr) { h.addrs.learned.Store(&list) }

// Ticks counts those of all rooms.
func (h *Host) Ticks() *mix.Ticks { return &h.ticks }

// Leg returns a leg by its id.
func (h *Host) Leg(id string) (*Leg, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.legs[id]
	return l, ok
}

// Len returns how many legs there are.
func (h *Host) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.legs)
}

// Legs returns all legs.
func (h *Host) Legs() []*Leg {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*Leg, 0, len(h.legs))
	for _, l := range h.legs {
		out = append(out, l)
	}
	return out
}

// Close ends all legs with an RTCP BYE, forgets what was kept for the next
// process, and waits for the goroutines.
func (h *Host) Close() { h.shutdown(true) }

// Abandon ends the goroutines as the death of the process would: nothing is said
// to the far ends and the state stays for the next one.
func (h *Host) Abandon() { h.shutdown(false) }

func (h *Host) shutdown(orderly bool) {
	h.ctl.Lock()
	defer h.ctl.Unlock()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.forgetTrunks()
	for _, l := range h.Legs() {
		h.close(l, orderly, reasonShutdown)
	}
	h.relays.mu.Lock() // none begins any more
	h.stop()
	h.relays.mu.Unlock()
	for _, p := range h.ports {
		if err := p.sock.Close(); err != nil {
			h.log.Debug("socket close", zap.String("socket", p.name), zap.Error(err))
		}
	}
	h.wg.Wait()
}

// clock wakes for what is due: reports, silence, key presses without an end.
func (h *Host) clock() {
	const step = 200 * time.Millisecond
	t := time.NewTicker(step)
	defer t.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case now := <-t.C:
			h.cfg.Table.Alive(now)
			h.round(now)
			h.punctual(mix.Now())
			h.logDrops()
		}
	}
}

// lostAfter is the silence after which a leg counts as lost (RFC 7675 asks for
// consent to end after 30 s; people notice earlier), byeWait the one after a BYE.
const (
	lostAfter = 10 * time.Second
	byeWait   = 2 * time.Second
)

func (h *Host) round(wall time.Time) {
	now := mix.Now()
	for _, l := range h.Legs() {
		if l.due(now) {
			l.sendRTCP(h.clockWriter, wall, false)
		}
		l.in.mu.Lock()
		digit, ms := l.in.digit.overdue(now)
		l.in.mu.Unlock()
		if digit != "" {
			h.events.Digit(l.id, l.room.name, digit, ms)
		}
		if l.media.Load() {
			l.dtls.settle()
		}
		h.silence(l, now)
	}
	h.trunks.Expire(now)
	for i := range h.clockW {
		h.clockW[i].flush()
	}
}

// silence reports a leg as lost, once.
func (h *Host) silence(l *Leg, now int64) {
	quiet := now - l.heard.Load()
	bye := l.bye.Load()
	reason := ""
	switch {
	case !l.connected.Load() || l.lost.Load():
		return
	case bye != 0 && quiet > int64(byeWait):
		reason = "bye"
	case quiet > int64(lostAfter) && l.expectsPackets():
		reason = "silence"
	default:
		return
	}
	l.lost.Store(true)
	h.events.Change(l.id, l.room.name, "lost", reason)
}

// clockWriter returns the batch of the clock goroutine for a port, in this round.
func (h *Host) clockWriter(p *port) *wire.Writer {
	return h.clockW[p.index].writer(p)
}

// dirty has the leg's state written soon.
func (h *Host) dirty(l *Leg) {
	h.dirtyMu.Lock()
	h.dirties[l] = struct{}{}
	h.dirtyMu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// saver writes the states of changed legs, apart from the goroutines that read:
// a slow disk must not stop sound.
func (h *Host) saver() {
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-h.wake:
		}
		h.dirtyMu.Lock()
		list := h.dirties
		h.dirties = map[*Leg]struct{}{}
		h.dirtyMu.Unlock()
		for l := range list {
			l.save()
		}
	}
}
