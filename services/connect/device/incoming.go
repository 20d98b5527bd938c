package device

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// Outcome is what became of a peer's request: a stable word for logs and metrics.
type Outcome string

// The outcomes.
const (
	Connected Outcome = "connected"
	Malformed Outcome = "malformed" // not a request
	Repeated  Outcome = "repeated"  // its id was there before
	NoAccount Outcome = "no_account"
	Refused   Outcome = "refused"  // revoked, banned, or its certificates are not good
	Stranger  Outcome = "stranger" // the account takes contacts alone
	TooOften  Outcome = "too_often"
	Busy      Outcome = "busy"   // too many are being treated
	Unasked   Outcome = "answer" // an answer to nothing that was asked, or too late
	NoPath    Outcome = "no_path"
	NoSession Outcome = "no_session" // the TLS handshake
	Failed    Outcome = "failed"     // on our side
)

var outcomes = []Outcome{Connected, Malformed, Repeated, NoAccount, Refused, Stranger, TooOften, Busy, Unasked, NoPath, NoSession, Failed}

// Observation is what became of a request, and how long it took from when it came: until a
// path was there, and until the session was.
type Observation struct {
	Account, Device jami.ID
	Outcome         Outcome
	Err             error // nil: connected
	Path, Session   time.Duration
	Over            string // "tcp" or "udp", of a session
}

func (m *Manager) observe(o Observation) {
	m.cfg.Metrics.request(o)
	if o.Err != nil {
		m.cfg.Log.Info("connection refused", zap.Stringer("account", o.Account), zap.Stringer("device", o.Device), zap.String("outcome", string(o.Outcome)), zap.Error(o.Err))
	} else {
		m.cfg.Log.Info("device connected", zap.Stringer("account", o.Account), zap.Stringer("device", o.Device), zap.String("over", o.Over), zap.Duration("path", o.Path), zap.Duration("session", o.Session))
	}
	if m.cfg.Observe != nil {
		m.cfg.Observe(o)
	}
}

// Receive takes a message that a device signed, whose chain was found good. It does not wait.
func (m *Manager) Receive(account jami.ID, from *trust.Chain, message []byte) {
	began := time.Now()
	o := Observation{Account: account, Device: from.DeviceShort}
	msg, err := request.Parse(message)
	if err != nil {
		o.Outcome, o.Err = Malformed, err
		m.observe(o)
		return
	}
	if msg.Answer {
		if !m.answered(account, from, msg) {
			o.Outcome, o.Err = Unasked, errors.New("an answer to nothing that was asked")
			m.observe(o)
		}
		return
	}
	acc, free, outcome, err := m.admit(account, from, msg, began)
	if err != nil {
		o.Outcome, o.Err = outcome, err
		m.observe(o)
		return
	}
	if !m.begin(func() { m.answer(acc, from, msg, o, began, free) }) {
		free()
	}
}

// admit judges a request. free gives its place back.
func (m *Manager) admit(account jami.ID, from *trust.Chain, msg *request.Message, now time.Time) (acc *Account, free func(), o Outcome, err error) {
	if acc = m.account(account); acc == nil {
		return nil, nil, NoAccount, ErrNoAccount
	}
	if from.DeviceID == acc.Own.Chain.DeviceID {
		return nil, nil, Refused, errors.New("it is this device's own")
	}
	if err := acc.Judge.Allowed(from); err != nil {
		return nil, nil, Refused, err
	}
	if wait := m.rate.Take(from.DeviceShort, now); wait > 0 {
		return nil, nil, TooOften, fmt.Errorf("a device may ask again in %v", wait)
	}
	if wait := m.all.Take(struct{}{}, now); wait > 0 {
		return nil, nil, TooOften, fmt.Errorf("devices may ask again in %v", wait)
	}
	fresh, err := m.cfg.Treated.Take(account, from.DeviceShort, msg.ID)
	if err != nil {
		m.cfg.Log.Error("requests are not remembered over a restart", zap.Error(err))
	}
	if !fresh {
		return nil, nil, Repeated, fmt.Errorf("request %x was there before", msg.ID)
	}
	if free = m.setup(from.JamiID); free == nil {
		return nil, nil, Busy, errors.New("too many connections are being made")
	}
	return acc, free, "", nil
}

// setup takes a place for a connection that is being made.
func (m *Manager) setup(peer jami.ID) (free func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.setups >= maxSetups || m.each[peer] >= maxSetupsEach || m.count >= maxLinks {
		return nil
	}
	m.setups++
	m.each[peer]++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.setups--
		if m.each[peer]--; m.each[peer] <= 0 {
			delete(m.each, peer)
		}
	}
}

// answer answers a request and serves the connection that comes of it.
func (m *Manager) answer(acc *Account, from *trust.Chain, msg *request.Message, o Observation, began time.Time, free func()) {
	done := func(outcome Outcome, err error) {
		free()
		o.Outcome, o.Err = outcome, err
		m.observe(o)
	}
	ctx, cancel := context.WithTimeout(m.ctx, pathTime)
	defer cancel()
	if acc.Welcome != nil {
		if err := acc.Welcome(ctx, from); err != nil {
			done(Stranger, err)
			return
		}
	}
	a, err := m.newAgents(ctx, true, msg.UDP != nil)
	if err != nil {
		done(Failed, err)
		return
	}
	defer a.close()
	packed, err := a.tell(&request.Message{ID: msg.ID, Answer: true}).Pack()
	if err != nil {
		done(Failed, err)
		return
	}
	sent := make(chan error, 1)
	if !m.begin(func() {
		err := m.cfg.Overlay.Send(ctx, acc.ID, from, packed)
		if err != nil {
			cancel() // nobody will come
		}
		sent <- err
	}) {
		done(Failed, ErrClosed)
		return
	}
	sess, outcome, err := m.asked(ctx, acc, from, a, msg, func() { o.Path = time.Since(began) })
	if err != nil {
		cancel()
		serr := <-sent
		if outcome == NoPath && serr != nil && !errors.Is(serr, context.Canceled) {
			outcome, err = Failed, fmt.Errorf("answering: %w", serr)
		}
		o.Session = time.Since(began)
		done(outcome, err)
		return
	}
	o.Over = sess.peer.Over
	m.serve(acc, sess, func(_ *link, err error) {
		o.Session = time.Since(began)
		if err != nil {
			done(NoSession, err)
			return
		}
		done(Connected, nil)
	})
}
