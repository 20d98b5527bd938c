package device

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/mux"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// After a device could not be reached it is asked again no sooner than after the first of
// these, doubling to the second; each within half of it and the whole.
const (
	againFirst = time.Second
	againMost  = 2 * time.Minute
	maxDials   = 1024 // devices of which it is remembered
)

// openTime bounds the peer's answer to a channel request on a connection that was there
// before: it may be dead, which the beacon finds out.
const openTime = 10 * time.Second

// dial is a connection that is being asked for, or why there was none.
type dial struct {
	done chan struct{} // closed when it is there, or not
	link *link
	err  error

	next time.Time     // not before
	wait time.Duration // after the next failure
}

// Dial opens a channel to a device, on the connection that is there or on a new one, for as
// long as ctx lasts. hint says to the peer what it is for ("audioCall", say; it may be empty).
func (m *Manager) Dial(ctx context.Context, account jami.ID, peer *trust.Chain, name, hint string) (channel.Channel, error) {
	acc := m.account(account)
	if acc == nil {
		return nil, ErrNoAccount
	}
	if err := acc.Judge.Allowed(peer); err != nil {
		return nil, err
	}
	k := linkKey{account, peer.DeviceID}
	if l := m.live(k); l != nil {
		l.sock.Beacon() // one whose other end is gone ends by it
		c, err := m.open(ctx, l, name)
		if err == nil || ctx.Err() != nil || errors.Is(err, mux.ErrDeclined) {
			return channelOrNil(c), err
		}
		l.sock.Close()
	}
	for {
		d, err := m.connect(ctx, acc, k, peer, hint)
		if err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connecting to device %s: %w", peer.DeviceShort, ctx.Err())
		case <-d.done:
		}
		if d.err != nil {
			return nil, fmt.Errorf("connecting to device %s: %w", peer.DeviceShort, d.err)
		}
		c, err := d.link.sock.Open(ctx, name)
		if errors.Is(err, mux.ErrSocketClosed) && ctx.Err() == nil {
			continue
		}
		return channelOrNil(c), err
	}
}

// channelOrNil keeps a nil *mux.Channel from becoming a channel that is not nil.
func channelOrNil(c *mux.Channel) channel.Channel {
	if c == nil {
		return nil
	}
	return c
}

func (m *Manager) open(ctx context.Context, l *link, name string) (*mux.Channel, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	return l.sock.Open(ctx, name)
}

// connect returns the connection that is being made to a device, after a rest if the last
// one failed.
func (m *Manager) connect(ctx context.Context, acc *Account, k linkKey, peer *trust.Chain, hint string) (*dial, error) {
	for {
		m.mu.Lock()
		d := m.dials[k]
		if d != nil && d.running() {
			m.mu.Unlock()
			return d, nil
		}
		if d != nil && time.Until(d.next) > 0 {
			rest := time.Until(d.next)
			m.mu.Unlock()
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("connecting to device %s: %w (%w)", peer.DeviceShort, ctx.Err(), d.err)
			case <-time.After(rest):
				continue
			}
		}
		if m.closed {
			m.mu.Unlock()
			return nil, ErrClosed
		}
		n := &dial{done: make(chan struct{}), wait: againFirst}
		if d != nil {
			n.wait = d.wait
		} else {
			m.pruneLocked()
		}
		m.dials[k] = n
		m.wg.Go(func() { m.ask(acc, k, peer, hint, n) })
		m.mu.Unlock()
		return n, nil
	}
}

func (d *dial) running() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// pruneLocked bounds what is remembered of failures.
func (m *Manager) pruneLocked() {
	for k, d := range m.dials {
		if len(m.dials) < maxDials {
			return
		}
		if !d.running() {
			delete(m.dials, k)
		}
	}
}

// ask asks a device for a connection and serves what comes of it.
func (m *Manager) ask(acc *Account, k linkKey, peer *trust.Chain, hint string, d *dial) {
	up := func(l *link, err error) {
		if err != nil && m.ctx.Err() == nil {
			m.cfg.Log.Info("no connection to a device", zap.Stringer("account", acc.ID), zap.Stringer("device", peer.DeviceShort), zap.Error(err))
		}
		m.mu.Lock()
		d.link, d.err = l, err
		if err != nil {
			d.next = time.Now().Add(d.wait/2 + rand.N(d.wait/2))
			d.wait = min(2*d.wait, againMost)
		} else {
			delete(m.dials, k)
		}
		m.mu.Unlock()
		close(d.done)
	}
	a, err := m.newAgents(m.ctx, false, true)
	if err != nil {
		up(nil, err)
		return
	}
	defer a.close()
	answer, err := m.exchange(acc, peer, a.tell(&request.Message{ConnType: hint}))
	if err != nil {
		up(nil, err)
		return
	}
	ctx, cancel := context.WithTimeout(m.ctx, pathTime+handshakeTime)
	defer cancel()
	sess, err := m.asks(ctx, acc, peer, a, answer)
	if err != nil {
		up(nil, err)
		return
	}
	m.serve(acc, sess, up)
}

// exchange sends a request and waits for its answer.
func (m *Manager) exchange(acc *Account, peer *trust.Chain, q *request.Message) (*request.Message, error) {
	id, err := request.NewID()
	if err != nil {
		return nil, err
	}
	q.ID = id
	packed, err := q.Pack()
	if err != nil {
		return nil, err
	}
	k := answerKey{acc.ID, peer.DeviceShort, id}
	got := make(chan *request.Message, 1)
	m.mu.Lock()
	m.answers[k] = got
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.answers, k)
		m.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(m.ctx, answerTime)
	defer cancel()
	if err := m.cfg.Overlay.Send(ctx, acc.ID, peer, packed); err != nil {
		return nil, fmt.Errorf("asking for a connection: %w", err)
	}
	select {
	case a := <-got:
		return a, nil
	case <-ctx.Done():
		if m.ctx.Err() != nil {
			return nil, ErrClosed
		}
		return nil, ErrUnanswered
	}
}

// answered gives an answer to who waits for it.
func (m *Manager) answered(account jami.ID, from *trust.Chain, msg *request.Message) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := answerKey{account, from.DeviceShort, msg.ID}
	ch := m.answers[k]
	if ch == nil {
		return false
	}
	delete(m.answers, k)
	ch <- msg // it has one place, and is asked for once
	return true
}
