package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/lasting"
)

// Times.
const (
	beaconTime = 3 * time.Second // §2.2
	readerTime = 2 * time.Second // how long a reader may hold the others up; less than beaconTime
)

// Bounds of a connection.
const (
	maxPeerChannels = 256 // that the peer opened
	maxOurChannels  = 4096
	maxSaid         = 1024 // answers that the peer has not read
	openTries       = 100
	readBuffer      = 512
)

// Errors of a connection.
var (
	ErrSocketClosed = errors.New("the connection to the device is closed")
	ErrSlowPeer     = errors.New("the device does not read what it is sent")
	ErrNoBeacon     = errors.New("the device did not answer a beacon")
	ErrTooMany      = errors.New("more channels than a connection may have")
)

// Config of a socket.
type Config struct {
	Peer channel.Peer
	// Accept takes a channel that the peer opens; an error declines it. It is called by
	// Run and returns soon. It must not write to the channel, whoever it gives it to may.
	Accept func(*Channel) error
	// Lasts is the name of channels that the next process goes on with, where it can with the connection. There
	// they are given to Restored, which is called by Run and returns soon; after an error they are closed.
	Lasts    string
	Restored func(*Channel) error
	Log      *zap.Logger
}

// Socket is a connection that channels share. It is safe for concurrent use.
type Socket struct {
	t    Transport
	last *lasting.Conn // under t; nil: the connection ends with the process
	cfg  Config
	done chan struct{}
	kept atomic.Int64 // bytes that wait for readers
	wg   sync.WaitGroup

	roomMu sync.Mutex
	room   chan struct{} // nil, or closed when a reader makes room

	mu       sync.Mutex
	channels map[uint16]*Channel
	theirs   int // channels that the peer opened
	idle     time.Time
	end      error
	version  int
	beacon   *time.Timer
	saying   []saying
	flushing bool
}

// saying is a message that waits to be written.
type saying struct {
	ch   uint16
	data []byte
	then *Channel // that may be used after
}

// New returns a socket on a byte stream. Nothing is read or written before Run. On a [lasting.Conn] it goes on with
// the channels of the last process.
func New(conn net.Conn, cfg Config) *Socket {
	last, _ := conn.(*lasting.Conn)
	s := NewOn(&stream{Conn: conn, lasts: last}, cfg)
	if last != nil {
		s.last = last
		last.Settled(s.settled)
		s.restore()
	}
	return s
}

// NewOn returns a socket on a transport. Nothing is read or written before Run.
func NewOn(t Transport, cfg Config) *Socket {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Socket{t: t, cfg: cfg, done: make(chan struct{}), channels: map[uint16]*Channel{}, idle: time.Now()}
}

// Run serves the connection until it ends, which is never without a reason. The one of an
// orderly end is io.EOF; after Close it is [ErrSocketClosed].
func (s *Socket) Run() error {
	defer s.wg.Wait()
	s.say(protocol, version, nil)
	s.goOn()
	return s.fail(s.t.Serve(s.take))
}

// take treats one message.
func (s *Socket) take(ch uint16, data []byte) error {
	if ch != control && ch != protocol {
		return s.deliver(ch, data)
	}
	all, err := parse(data)
	if err != nil {
		return err
	}
	for _, x := range all {
		switch {
		case x.request != nil && ch == control:
			s.requested(x.request)
		case x.key == 'v':
			s.mu.Lock()
			s.version = x.version
			s.mu.Unlock()
		case x.key == 'p' && x.ping:
			s.say(protocol, beaconBack, nil)
		case x.key == 'p':
			s.mu.Lock()
			if s.beacon != nil {
				s.beacon.Stop()
				s.beacon = nil
			}
			s.mu.Unlock()
		}
	}
	return nil
}

// deliver gives data to a channel. Those that are not known any more are passed over.
func (s *Socket) deliver(ch uint16, data []byte) error {
	s.mu.Lock()
	c := s.channels[ch]
	s.mu.Unlock()
	switch {
	case c == nil:
		return nil
	case len(data) == 0 && c.ours && !c.isOpen(): // its acceptance is on the way still
		c.finish(io.EOF, false)
		c.answered(nil)
		return nil
	case len(data) == 0:
		s.forget(c)
		s.forgotten(ch)
		c.finish(io.EOF, false)
		return nil
	}
	m := incoming{data: data}
	if c.lasts() {
		m.note = s.last.Note(ch, data)
	}
	if c.put(m) {
		return nil
	}
	limit := time.NewTimer(readerTime)
	defer limit.Stop()
	for {
		room := s.awaitRoom()
		if c.put(m) {
			return nil
		}
		select {
		case <-room:
		case <-s.done:
			return ErrSocketClosed
		case <-limit.C:
			s.cfg.Log.Debug("channel cut: it is not read", zap.String("channel", c.name))
			if s.forget(c) {
				s.say(ch, nil, nil)
			}
			c.finish(ErrSlowReader, true)
			return nil
		}
	}
}

// awaitRoom is closed when a reader makes room.
func (s *Socket) awaitRoom() <-chan struct{} {
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	if s.room == nil {
		s.room = make(chan struct{})
	}
	return s.room
}

// took notes that a reader made room.
func (s *Socket) took() {
	s.roomMu.Lock()
	defer s.roomMu.Unlock()
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// requested treats what the peer says of a channel.
func (s *Socket) requested(q *channelRequest) {
	s.mu.Lock()
	c := s.channels[q.ch]
	s.mu.Unlock()
	switch q.state {
	case stateRequest:
		s.asked(q, c)
	case stateAccept:
		if c == nil || !c.ours { // we gave up waiting
			if c == nil && usable(q.ch) {
				s.say(q.ch, nil, nil)
			}
			return
		}
		if c.ended() { // its end was faster
			s.forget(c)
			return
		}
		if err := s.t.Open(c.num); err != nil {
			s.fail(err)
			return
		}
		s.remember(c)
		c.open()
		c.answered(nil)
	case stateDecline:
		if c == nil || !c.ours || c.isOpen() {
			return
		}
		s.forget(c)
		c.answered(ErrDeclined)
		c.finish(ErrDeclined, true)
	}
}

func usable(ch uint16) bool { return ch != control && ch != protocol }

// asked treats a request for a channel; had is what has its number now.
func (s *Socket) asked(q *channelRequest, had *Channel) {
	decline := func(why error) {
		s.cfg.Log.Debug("channel declined", zap.String("channel", q.name), zap.Error(why))
		s.say(control, appendRequest(nil, q.name, q.ch, stateDecline), nil)
	}
	if had != nil && had.ours && !had.isOpen() {
		decline(errors.New("its number is ours just now"))
		return
	}
	if had != nil { // the peer uses the number anew (§2.3)
		s.forget(had)
		s.forgotten(q.ch)
		had.finish(io.EOF, false)
	}
	c := newChannel(s, q.name, q.ch, false)
	s.mu.Lock()
	var err error
	switch {
	case !usable(q.ch):
		err = fmt.Errorf("%w: channel %d", ErrWire, q.ch)
	case s.theirs >= maxPeerChannels:
		err = ErrTooMany
	case s.end != nil:
		err = ErrSocketClosed
	default:
		s.channels[q.ch] = c
		s.theirs++
	}
	s.mu.Unlock()
	if err == nil && s.cfg.Accept == nil {
		err = errors.New("no channels are taken")
	}
	if err == nil {
		err = s.cfg.Accept(c)
	}
	if err != nil {
		s.forget(c)
		c.finish(ErrClosed, true)
		decline(err)
		return
	}
	if err := s.t.Open(q.ch); err != nil {
		s.fail(err)
		return
	}
	s.remember(c)
	s.say(control, appendRequest(nil, q.name, q.ch, stateAccept), c)
}

func (c *Channel) answered(err error) {
	select {
	case c.answer <- err:
	default:
	}
}

func (c *Channel) isOpen() bool {
	select {
	case <-c.opened:
		return true
	default:
		return false
	}
}

// Open opens a channel, when the peer accepts it before ctx ends.
func (s *Socket) Open(ctx context.Context, name string) (*Channel, error) {
	if len(name) == 0 || len(name) > maxName {
		return nil, fmt.Errorf("a channel name of %d bytes, at most %d", len(name), maxName)
	}
	c, err := s.number(name)
	if err != nil {
		return nil, err
	}
	if err := s.write(control, appendRequest(nil, name, c.num, stateRequest)); err != nil {
		return nil, err
	}
	select {
	case err = <-c.answer:
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.done:
		err = ErrSocketClosed
	}
	if err != nil {
		s.forget(c)
		c.finish(err, true)
		return nil, fmt.Errorf("channel %s: %w", name, err)
	}
	return c, nil
}

// number registers a channel under a free number.
func (s *Socket) number(name string) (*Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return nil, ErrSocketClosed
	}
	if len(s.channels)-s.theirs >= maxOurChannels {
		return nil, ErrTooMany
	}
	for range openTries {
		n := s.t.Number()
		if s.channels[n] == nil {
			c := newChannel(s, name, n, true)
			s.channels[n] = c
			return c, nil
		}
	}
	return nil, ErrTooMany
}

// forget takes a channel out; false: it was out already.
func (s *Socket) forget(c *Channel) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels[c.num] != c {
		return false
	}
	delete(s.channels, c.num)
	if !c.ours {
		s.theirs--
	}
	if len(s.channels) == 0 {
		s.idle = time.Now()
	}
	return true
}

// Idle is since when the socket has had no channel; zero: it has one, or is asking for one.
func (s *Socket) Idle() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.channels) > 0 {
		return time.Time{}
	}
	return s.idle
}

// Done is closed when the connection has ended.
func (s *Socket) Done() <-chan struct{} { return s.done }

// Peer is who is at the other end.
func (s *Socket) Peer() channel.Peer { return s.cfg.Peer }

// Beacon asks the peer for a sign of life; without one within 3 s the connection is closed.
// It reports whether the peer knows beacons.
func (s *Socket) Beacon() bool {
	s.mu.Lock()
	known := s.version >= 1 && s.end == nil
	if known && s.beacon == nil {
		s.beacon = time.AfterFunc(beaconTime, func() { s.fail(ErrNoBeacon) })
	}
	s.mu.Unlock()
	if known {
		s.say(protocol, beacon, nil)
	}
	return known
}

// write writes one message.
func (s *Socket) write(ch uint16, data []byte) error {
	if err := s.t.Write(ch, data); err != nil {
		return s.fail(slow(err))
	}
	if len(data) == 0 {
		s.forgotten(ch)
	}
	return nil
}

// say has a message written without waiting for it. then may be used after.
func (s *Socket) say(ch uint16, data []byte, then *Channel) {
	s.mu.Lock()
	if s.end != nil {
		s.mu.Unlock()
		return
	}
	if len(s.saying) >= maxSaid {
		s.mu.Unlock()
		s.fail(ErrSlowPeer)
		return
	}
	s.saying = append(s.saying, saying{ch, data, then})
	if !s.flushing {
		s.flushing = true
		s.wg.Go(s.flush)
	}
	s.mu.Unlock()
}

// flush writes what waits, until nothing does.
func (s *Socket) flush() {
	for {
		s.mu.Lock()
		if len(s.saying) == 0 || s.end != nil {
			s.saying, s.flushing = nil, false
			ended := s.end != nil
			s.mu.Unlock()
			if s.last != nil && !ended {
				s.last.Commit()
			}
			return
		}
		next := s.saying[0]
		s.saying = s.saying[1:]
		s.mu.Unlock()
		if s.write(next.ch, next.data) == nil && next.then != nil {
			next.then.open()
		}
	}
}

// Close ends the connection. It may be called more than once.
func (s *Socket) Close() error {
	s.fail(ErrSocketClosed)
	return nil
}

// fail ends the connection for a reason; the first one stays, and is returned.
func (s *Socket) fail(why error) error {
	s.mu.Lock()
	if s.end != nil {
		why = s.end
		s.mu.Unlock()
		return why
	}
	s.end = why
	all := s.channels
	s.channels, s.theirs = map[uint16]*Channel{}, 0
	if s.beacon != nil {
		s.beacon.Stop()
		s.beacon = nil
	}
	close(s.done)
	s.mu.Unlock()
	for _, c := range all {
		if errors.Is(why, io.EOF) {
			c.finish(io.EOF, false)
		} else {
			c.finish(fmt.Errorf("%w: %w", ErrSocketClosed, why), false)
		}
	}
	s.t.Close()
	return why
}
