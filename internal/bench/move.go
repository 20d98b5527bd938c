package bench

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Movable is a node that tells its legs to negotiate again, as it does when their worker is gone or
// is drained.
type Movable interface {
	Node
	// Moves calls fn, which does not wait, with each leg that is told to, until stop.
	Moves(fn func(id string)) (stop func(), err error)
	// Offer has the leg made anew where the node wants it, for what the far end offers. was is the
	// node's SDP that holds until then.
	Offer(ctx context.Context, id, offer, was string) (sdp string, err error)
	// Answer says that the far end has gone where the last [Movable.Offer] said.
	Answer(ctx context.Context, id, answer string) error
}

// moveTime bounds a move, as connect bounds a re-INVITE; movesAtOnce is how many legs move at a time.
const (
	moveTime    = 32 * time.Second
	movesAtOnce = 64
)

// moves is how legs went to other workers since the last look.
type moves struct {
	mu     sync.Mutex
	done   int
	failed int
	why    error // of the first that failed
}

func (m *moves) take() (done, failed int, why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	done, failed, why = m.done, m.failed, m.why
	m.done, m.failed, m.why = 0, 0, nil
	return done, failed, why
}

func (m *moves) ended(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.done++
		return
	}
	if m.failed++; m.why == nil {
		m.why = err
	}
}

// follow has legs go where the node tells them to, until stop.
func (g *generator) follow(ctx context.Context, node Movable) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	by := make(map[string]*leg, len(g.legs))
	for _, l := range g.legs {
		by[l.id] = l
	}
	turns := make(chan struct{}, movesAtOnce)
	end, err := node.Moves(func(id string) {
		l := by[id]
		if l == nil || !l.moving.CompareAndSwap(false, true) {
			return
		}
		wg.Go(func() {
			defer l.moving.Store(false)
			select {
			case turns <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-turns }()
			if err := g.move(ctx, node, l); ctx.Err() == nil {
				g.moved.ended(err)
			}
		})
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("who is told to move: %w", err)
	}
	return func() { end(); cancel(); wg.Wait() }, nil
}

// move is what a phone and its signalling do when the node tells them to go elsewhere: what the phone described
// last stands for its offer, the node's answer comes to it in a re-INVITE, it sends there at once, and its
// answer follows. A browser makes a second connection beside the one that it has.
func (g *generator) move(ctx context.Context, node Movable, l *leg) error {
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	w := l.newWay()
	offer := l.offer(w, g.port)
	sdp, err := node.Offer(ctx, l.id, offer, l.way.Load().answer)
	if err != nil {
		return fmt.Errorf("leg %s: offered again: %w", l.id, err)
	}
	if err := l.accept(w, sdp); err != nil {
		return fmt.Errorf("leg %s: %w", l.id, err)
	}
	if l.dtls {
		l.dialing.Store(w.ice)
		defer l.dialing.Store(nil)
		if err := l.connect(ctx, g.sock, w); err != nil {
			return fmt.Errorf("leg %s: %w", l.id, err)
		}
	}
	l.way.Store(w)
	if err := g.keep(l, make([]byte, 0, 256)); err != nil || l.dtls {
		return err
	}
	if err := node.Answer(ctx, l.id, offer); err != nil {
		return fmt.Errorf("leg %s: answered: %w", l.id, err)
	}
	return nil
}

// handOver is how long two mixers may send to a leg that moves: the old one goes on until the new one
// has heard of the leg, and until all legs of a worker that is cut off have gone.
const handOver = time.Second

// together is how near packets of two mixers are to each other when both send.
const together = 200 * time.Millisecond

// mixers watches from whom a leg is sent sound. Receiving notes, another goroutine asks.
type mixers struct {
	two     [2]origin    // the last ones
	longest atomic.Int64 // for how long both sent at most, ns
}

// origin is an SSRC at an address of the node's, and since when it has sent without a pause.
type origin struct {
	from        netip.AddrPort
	ssrc        uint32
	first, last int64 // unix ns
}

func (m *mixers) note(from netip.AddrPort, ssrc uint32, at int64) {
	x, other := &m.two[0], &m.two[1]
	if other.from == from && other.ssrc == ssrc {
		x, other = other, x
	} else if x.from != from || x.ssrc != ssrc {
		if other.last < x.last {
			x, other = other, x
		}
		*x = origin{from: from, ssrc: ssrc}
	}
	if at-x.last > int64(together) {
		x.first = at
	}
	x.last = at
	// What ended before this one began is a hand-over without any time together.
	if d := min(x.last, other.last) - max(x.first, other.first); d > m.longest.Load() {
		m.longest.Store(d)
	}
}
