// Package streams carries the channels between two nodes over UDP: an SCTP association (RFC 9260)
// in a DTLS session (RFC 8261), with one stream for each channel, so that a message that is lost holds
// up its own channel alone.
//
//	stream 0           what package mux says on its channels control and protocol
//	stream 1 to 65534  the channel of that number; a message is one of the channel's
//	stream reset       the end of the channel, in both directions (RFC 6525)
//
// Who was DTLS's client opens channels with even numbers, the other side with odd ones (RFC 8832
// §6), each with the next free: a number comes again after 32,766 channels.
package streams

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/pion/sctp"

	"github.com/parley-jami/parley/internal/pionlog"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/mux"
)

// Bounds of an association.
const (
	// window is how many bytes the peer may have on the way (RFC 9260 §3.3.2). Of fragments of a byte as many
	// fit, some 150 bytes each.
	window = 512 << 10
	// maxAhead is how many bytes of a stream wait for the peer before its writer does; it goes on when there
	// is room for a message. Pion's own blocking writes lose a wake-up when one of two streams that wait ends.
	maxAhead = window
	// maxEntries is how many fragments of a stream may wait; who sends more is cut off. A message has at most 57.
	maxEntries = 4096
	// maxStrays is how many streams there may be that are of no channel: the peer may not know yet that it
	// ended here, or this side not that it was accepted.
	maxStrays = 512
	// mtu leaves room for DTLS's 37 bytes and UDP's within the 1,280 that IPv6 passes anywhere (RFC 8200 §5).
	mtu     = 1191
	rtoMost = 5000 // ms; the default is a minute, and a path that is gone ends after half of one
)

// Channels of package mux that are stream 0.
const (
	control  = 0
	protocol = 0xffff
)

// payload is the payload protocol identifier of data: WebRTC's for bytes (RFC 8831 §8).
const payload = sctp.PayloadTypeWebRTCBinary

// Errors of an association.
var (
	ErrSetup  = errors.New("SCTP association")
	errStrays = errors.New("data on more streams than there are channels")
	errSize   = errors.New("a message that is longer than any")
)

// Transport implements [mux.Transport].
type Transport struct {
	conn net.Conn
	a    *sctp.Association
	wg   sync.WaitGroup
	over chan struct{} // closed when the association has ended
	once sync.Once

	mu     sync.Mutex
	take   func(ch uint16, data []byte) error
	open   map[uint16]*stream
	strays map[uint16]struct{} // of open, those of no channel
	next   uint16
	end    error
}

var _ mux.Transport = (*Transport)(nil)

// stream is one with its writers.
type stream struct {
	*sctp.Stream
	low chan struct{} // holds an element when there may be room
}

func (s *stream) wake() {
	select {
	case s.low <- struct{}{}:
	default:
	}
}

// New makes an association on a DTLS session, of which this side was the client, or the server. It
// closes conn on an error, which ctx may be the reason of.
func New(ctx context.Context, conn net.Conn, client bool) (*Transport, error) {
	opts := []sctp.AssociationOption{sctp.WithNetConn(conn), sctp.WithMTU(mtu), sctp.WithMaxReceiveBufferSize(window),
		sctp.WithMaxMessageSize(channel.MaxMessage), sctp.WithMaxReassemblyQueueEntries(maxEntries), sctp.WithRTOMax(rtoMost),
		sctp.WithEnableInterleaving(false), sctp.WithEnableZeroChecksum(true), sctp.WithLoggerFactory(pionlog.Quiet)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var a *sctp.Association
	var err error
	if client {
		var o []sctp.ClientOption
		for _, x := range opts {
			o = append(o, x)
		}
		a, err = sctp.ClientWithOptions(o...)
	} else {
		var o []sctp.ServerOption
		for _, x := range opts {
			o = append(o, x)
		}
		a, err = sctp.ServerWithOptions(o...)
	}
	if !stop() && err == nil {
		err = ctx.Err()
		a.Close() //nolint:errcheck // its time is up
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, fmt.Errorf("%w: %w", ErrSetup, err)
	}
	t := &Transport{conn: conn, a: a, over: make(chan struct{}), open: map[uint16]*stream{}, strays: map[uint16]struct{}{}, next: 1}
	if client {
		t.next = 2
	}
	return t, nil
}

// Serve implements mux.Transport.
func (t *Transport) Serve(take func(ch uint16, data []byte) error) error {
	t.mu.Lock()
	t.take = take
	for id, s := range t.open { // which were written to before
		t.wg.Go(func() { t.pump(id, s) })
	}
	t.mu.Unlock()
	if _, err := t.stream(control); err != nil {
		t.fail(err)
	}
	for {
		s, err := t.a.AcceptStream()
		if err != nil { // always io.EOF; the streams' readers know better
			t.conn.Close()
			t.once.Do(func() { close(t.over) })
			t.wg.Wait()
			t.fail(err)
			break
		}
		if err := t.began(s); err != nil {
			t.fail(err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end
}

// fail ends the association; the first reason stays.
func (t *Transport) fail(why error) {
	t.mu.Lock()
	if t.end == nil {
		t.end = why
	}
	t.mu.Unlock()
	t.once.Do(func() { close(t.over) })
	t.conn.Close() // which the association's reader notices
}

// Open implements mux.Transport.
func (t *Transport) Open(ch uint16) error {
	_, err := t.stream(ch)
	return err
}

// stream is that of a channel, which it opens if need be.
func (t *Transport) stream(ch uint16) (*stream, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.open[ch]; s != nil {
		delete(t.strays, ch)
		return s, nil
	}
	s, err := t.a.OpenStream(ch, payload)
	if err != nil {
		return nil, err
	}
	return t.beginLocked(ch, s), nil
}

// began notes a stream on which the peer began to send.
func (t *Transport) began(s *sctp.Stream) error {
	id := s.StreamIdentifier()
	t.mu.Lock()
	defer t.mu.Unlock()
	if had := t.open[id]; had != nil && had.Stream == s {
		return nil // it was opened here at the same time
	}
	t.beginLocked(id, s)
	return t.strayLocked(id)
}

// strayLocked notes that a stream is of no channel, or not yet.
func (t *Transport) strayLocked(id uint16) error {
	if t.strays[id] = struct{}{}; len(t.strays) > maxStrays {
		return errStrays
	}
	return nil
}

func (t *Transport) beginLocked(id uint16, of *sctp.Stream) *stream {
	s := &stream{of, make(chan struct{}, 1)}
	s.SetBufferedAmountLowThreshold(maxAhead - 64<<10)
	s.OnBufferedAmountLow(s.wake)
	t.open[id] = s
	if t.take != nil {
		t.wg.Go(func() { t.pump(id, s) })
	}
	return s
}

// pump reads a stream until it ends.
func (t *Transport) pump(id uint16, s *stream) {
	for {
		b, err := read(s.Stream)
		if err == nil {
			err = t.take(id, b)
		} else if errors.Is(err, io.EOF) && id != control {
			err = t.take(id, nil)
			if t.drop(id, s); err == nil {
				return
			}
		}
		if err != nil {
			t.fail(err)
			return
		}
	}
}

// read reads one message. A message waits for its buffer rather than each stream having one.
func read(s *sctp.Stream) ([]byte, error) {
	for {
		n, _, err := s.ReadSCTP(nil)
		switch {
		case err == nil:
			continue // a message without bytes, which means nothing
		case !errors.Is(err, io.ErrShortBuffer):
			return nil, err
		case n > channel.MaxMessage:
			return nil, fmt.Errorf("%w: %d bytes", errSize, n)
		}
		b := make([]byte, n)
		n, _, err = s.ReadSCTP(b)
		return b[:n], err
	}
}

// drop resets this side's direction of a stream that is not used any more.
func (t *Transport) drop(id uint16, s *stream) {
	t.mu.Lock()
	if t.open[id] == s {
		delete(t.open, id)
		delete(t.strays, id)
	}
	t.mu.Unlock()
	_ = s.Close() // an association that has ended resets no streams
}

// Write implements mux.Transport.
func (t *Transport) Write(ch uint16, data []byte) error {
	if ch == protocol {
		ch = control
	}
	if len(data) == 0 {
		return t.reset(ch)
	}
	t.mu.Lock()
	s := t.open[ch]
	t.mu.Unlock()
	if s == nil && ch == control {
		var err error
		if s, err = t.stream(control); err != nil {
			return err
		}
	}
	if s == nil {
		return nil // the channel ended meanwhile: its writer learns of it from package mux
	}
	if err := t.room(s); err != nil {
		return err
	}
	_, err := s.WriteSCTP(data, payload)
	s.wake() // of several writers each has its turn
	switch {
	case errors.Is(err, sctp.ErrStreamClosed): // as above
		return nil
	case err != nil:
		return t.reason(err)
	}
	return nil
}

// room waits until less of a stream is on the way than may be.
func (t *Transport) room(s *stream) error {
	if s.BufferedAmount() < maxAhead {
		return nil
	}
	limit := time.NewTimer(mux.WriteTime)
	defer limit.Stop()
	for s.BufferedAmount() >= maxAhead {
		select {
		case <-s.low:
		case <-t.over:
			return t.reason(net.ErrClosed)
		case <-limit.C:
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}

// reason is why the association was ended, which an error may have come of.
func (t *Transport) reason(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.end != nil {
		return t.end
	}
	return err
}

// reset ends a channel. Its stream is read until the peer ends it too.
func (t *Transport) reset(ch uint16) error {
	s, err := t.stream(ch)
	if err != nil {
		return err
	}
	t.mu.Lock()
	err = t.strayLocked(ch)
	t.mu.Unlock()
	if err = errors.Join(err, s.Close()); err != nil {
		return t.reason(err)
	}
	return nil
}

// Number implements mux.Transport.
func (t *Transport) Number() uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.next
	if t.next += 2; t.next >= protocol-1 {
		t.next = 2 - n%2
	}
	return n
}

// Close implements mux.Transport: what was written before is sent, if the peer takes it in time.
func (t *Transport) Close() {
	t.once.Do(func() { close(t.over) }) // whoever waits to write has written nothing yet
	ctx, cancel := context.WithTimeout(context.Background(), mux.CloseTime)
	defer cancel()
	_ = t.a.Shutdown(ctx) // a peer that does not take it in time is cut below
	cut := time.AfterFunc(mux.CloseTime, func() { t.conn.Close() })
	defer cut.Stop()
	t.a.Close() //nolint:errcheck // what is wrong with it is of no use any more
}

// LocalAddr implements mux.Transport.
func (t *Transport) LocalAddr() net.Addr { return t.conn.LocalAddr() }

// RemoteAddr implements mux.Transport.
func (t *Transport) RemoteAddr() net.Addr { return t.conn.RemoteAddr() }
