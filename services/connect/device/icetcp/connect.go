package icetcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// Timers (connect-and-calls §1.4).
const (
	dialTime   = 15 * time.Second
	dialPace   = 20 * time.Millisecond // between two candidates; stock's is 50 ms
	relayPause = 500 * time.Millisecond
	relayTries = 24
	// passiveTime is how long the peer's own connections are waited for after ours failed.
	passiveTime = 10 * time.Second
	// holdTime is how long a path waits before it is nominated that goes through a relay, since
	// one without may come, or on which the peer has made no check, as a full agent does
	// (RFC 8445 §7.3.1.4). Stock waits as long with any.
	holdTime = 400 * time.Millisecond
)

// maxPaths bounds the connections of one attempt, of whose ends the peer chooses both.
const maxPaths = 64

// ErrFailed says that no path to the peer was found.
var ErrFailed = errors.New("no path to the device")

// attempt is what Connect does.
type attempt struct {
	a      *Agent
	s      *ice.Side
	wg     sync.WaitGroup
	events chan event
	paths  []*path // of race's goroutine alone
}

type kind int

const (
	dialled   kind = iota // all candidates were tried, or one once more
	opened                // in was opened to a candidate
	valid                 // the peer answered our check on p
	confirmed             // and we answered a check of the peer's on p
	selected              // p is what both agreed on
	failed                // p is closed
)

type event struct {
	kind kind
	p    *path
	err  error
	in   arrival
	to   *target // of opened
}

// target is a candidate of the peer's that is connected to.
type target struct {
	request.Candidate
	try int
}

func (t *target) relay() bool { return t != nil && t.Type == request.Relay }

// Connect returns the connection that both sides agreed on, or an error when ctx ends or no path
// is found. It is called once.
func (a *Agent) Connect(ctx context.Context, remote request.Description) (*Conn, error) {
	defer a.Close()
	t := &attempt{a: a, s: &ice.Side{Controlling: a.controlling, Tie: a.tie, Local: a.local, Remote: remote}, events: make(chan event, 4)}
	ctx, cancel := context.WithCancel(ctx)
	won, err := t.race(ctx, cancel)
	t.finish(won)
	cancel()
	go func() { // who still has something to tell is heard until all have ended
		t.wg.Wait()
		close(t.events)
	}()
	for e := range t.events {
		if e.kind == opened {
			e.in.f.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return newConn(won), nil
}

// race makes checks on all paths until one is selected.
func (t *attempt) race(ctx context.Context, stop func()) (*path, error) {
	defer stop()
	t.permit()
	t.dialAll(ctx)
	var (
		nominee     *path
		waiting     []*path // valid, and not nominated
		last        error
		held, given <-chan time.Time
		dialling    = 1
		open        int
	)
	nominate := func() {
		for nominee == nil && len(waiting) > 0 && t.s.Controlling {
			i := slices.IndexFunc(waiting, func(p *path) bool { return !p.hold })
			if i < 0 && held == nil {
				held = time.After(holdTime)
			}
			if i < 0 {
				return
			}
			nominee = waiting[i]
			waiting = slices.Delete(waiting, i, i+1)
			if err := nominee.nominate(); err != nil {
				nominee.Close() // which its reader tells
			}
		}
	}
	for {
		if dialling == 0 && open == 0 && given == nil {
			given = time.After(passiveTime)
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return nil, fmt.Errorf("%w: %w (%w)", ErrFailed, ctx.Err(), last)
			}
			return nil, fmt.Errorf("%w: %w", ErrFailed, ctx.Err())
		case <-given:
			if last == nil {
				last = errors.New("the device did not connect either")
			}
			return nil, fmt.Errorf("%w: %w", ErrFailed, last)
		case <-held:
			for _, p := range waiting {
				p.hold = false // it waited long enough
			}
			held = nil
			nominate()
		case in, ok := <-t.a.arrived:
			if !ok {
				return nil, fmt.Errorf("%w: %w", ErrFailed, net.ErrClosed)
			}
			if t.begin(in, nil) {
				open, given = open+1, nil
			}
		case e := <-t.events:
			switch e.kind {
			case opened:
				if t.begin(e.in, e.to) {
					open, given = open+1, nil
				}
			case dialled:
				dialling--
				if e.err != nil {
					last = e.err
				}
			case valid:
				waiting = append(waiting, e.p)
				nominate()
			case confirmed:
				e.p.hold = e.p.hold && e.p.relay
				nominate()
			case selected:
				return e.p, nil
			case failed:
				last = e.err
				if t.again(ctx, e.p, e.err) {
					dialling++
				}
				waiting = slices.DeleteFunc(waiting, func(p *path) bool { return p == e.p })
				if open--; nominee == e.p {
					nominee = nil
					nominate()
				}
			}
		}
	}
}

// again connects once more to a relay that ended the connection before an answer: it may have
// no permission for us yet, and tells so by that (RFC 6062 §5.3).
func (t *attempt) again(ctx context.Context, p *path, err error) bool {
	reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)
	if !p.to.relay() || p.heard || !reset || p.to.try >= relayTries {
		return false
	}
	next := target{p.to.Candidate, p.to.try + 1}
	t.wg.Go(func() {
		var err error
		if pause(ctx, relayPause) {
			err = t.dial(ctx, next)
		}
		t.events <- event{kind: dialled, err: err}
	})
	return true
}

// begin makes checks on a connection: one to a candidate of the peer's, or, with nil, one that came.
// What it tells goes to events.
func (t *attempt) begin(in arrival, to *target) bool {
	p := &path{framed: in.f, s: t.s, to: to, relay: in.relay || to.relay(), hold: true}
	if len(t.paths) >= maxPaths {
		in.f.Close()
		return false
	}
	t.paths = append(t.paths, p)
	t.wg.Go(func() {
		var err error
		if in.first == nil {
			err = p.ask()
		}
		if err == nil {
			err = p.run(in.first, func(k kind) { t.events <- event{kind: k, p: p} })
		}
		if err != nil {
			p.Close()
			t.events <- event{kind: failed, p: p, err: err}
			return
		}
		t.events <- event{kind: selected, p: p}
	})
	return true
}

// finish closes all paths but the one that won.
func (t *attempt) finish(won *path) {
	for _, p := range t.paths {
		if p != won {
			p.Close()
		}
	}
}

// dialAll connects to the peer's passive candidates, the best one first.
func (t *attempt) dialAll(ctx context.Context) {
	var targets []request.Candidate
	for _, c := range t.s.Remote.Candidates {
		if c.TCPType == request.Passive && ice.Usable(c.Addr.Addr(), t.a.l.o.Loopback) &&
			!slices.ContainsFunc(targets, func(x request.Candidate) bool { return x.Addr == c.Addr }) {
			targets = append(targets, c)
		}
	}
	slices.SortStableFunc(targets, func(x, y request.Candidate) int { return int(int64(y.Priority) - int64(x.Priority)) })
	t.wg.Go(func() {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var last error
		for i, c := range targets {
			wg.Go(func() {
				if !pause(ctx, time.Duration(i)*dialPace) {
					return
				}
				if err := t.dial(ctx, target{c, 1}); err != nil {
					mu.Lock()
					last = err
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		t.events <- event{kind: dialled, err: last}
	})
}

// dial connects to one candidate. A relay may not have the permission for us yet.
func (t *attempt) dial(ctx context.Context, c target) error {
	d := net.Dialer{Timeout: dialTime}
	for ; ; c.try++ {
		conn, err := d.DialContext(ctx, "tcp", c.Addr.String())
		if err == nil {
			t.events <- event{kind: opened, in: arrival{f: newFramed(conn)}, to: &c}
			return nil
		}
		again := c.relay() && c.try < relayTries && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET))
		if !again || !pause(ctx, relayPause) {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
