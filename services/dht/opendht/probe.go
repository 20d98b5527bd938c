package opendht

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/overlay"
)

var _ overlay.Prober = (*Node)(nil)

// Ping asks the node at an address who it is. Of a name with several addresses the first
// answer counts.
func (n *Node) Ping(ctx context.Context, hostport string) (overlay.Pong, error) {
	addrs, err := resolveOne(ctx, hostport)
	if err != nil {
		return overlay.Pong{}, fmt.Errorf("%q: %w", hostport, err)
	}
	got := make(chan overlay.Pong, len(addrs))
	silent := make(chan struct{}, len(addrs))
	asked := 0
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return overlay.Pong{}, overlay.ErrClosed
	}
	n.doLocked(func() {
		for _, a := range addrs {
			if n.core.Ask(core.Node{Addr: a}, nil, func(r core.Reply) {
				if r.OK {
					got <- pong(a, r)
				} else {
					silent <- struct{}{}
				}
			}) {
				asked++
			}
		}
	})
	n.mu.Unlock()
	if asked == 0 {
		return overlay.Pong{}, fmt.Errorf("%q: %v is no address that this node can ask", hostport, addrs)
	}
	for range asked {
		select {
		case p := <-got:
			return p, nil
		case <-silent:
		case <-ctx.Done():
			return overlay.Pong{}, fmt.Errorf("%s: %w", hostport, overlay.ErrSilent)
		case <-n.ctx.Done():
			return overlay.Pong{}, overlay.ErrClosed
		}
	}
	return overlay.Pong{}, fmt.Errorf("%s: %w", hostport, overlay.ErrSilent)
}

func pong(a netip.AddrPort, r core.Reply) overlay.Pong {
	return overlay.Pong{Addr: a, ID: r.ID.String(), Agent: r.Agent, Seen: r.Seen, Time: r.Time, Sendings: r.Sendings}
}

// Bounds of a scan.
const (
	scanFlight = 256 // questions on the way
	scanTick   = 20 * time.Millisecond
	// scanTargets is how many questions a node gets: for its own neighbours, and for
	// those of ids at a distance of half the network, a quarter and so on, until an
	// answer brings nobody new.
	scanTargets = 6
)

// scan is a walk through the network. All but next is guarded by the node's mu.
type scan struct {
	n     *Node
	w     overlay.Walk
	known map[core.Node]*scanned
	queue []question
	out   overlay.Walked
	fly   int
	fresh int // of the present question
}

type scanned struct {
	answered bool
	depth    int // next bit to look at
}

type question struct {
	to     core.Node
	target jami.ID
	own    bool // the target is the node itself
}

// Scan walks through the network from the nodes that are known.
func (n *Node) Scan(ctx context.Context, w overlay.Walk) (overlay.Walked, error) {
	start := time.Now()
	s := &scan{n: n, w: w, known: map[core.Node]*scanned{}}
	n.mu.Lock()
	for _, x := range n.core.Good(w.Nodes) {
		s.meet(x)
	}
	n.mu.Unlock()
	t := time.NewTicker(scanTick)
	defer t.Stop()
	credit := 0.0
	for {
		credit = min(credit+float64(w.Rate)*scanTick.Seconds(), float64(w.Rate)/4+1)
		n.mu.Lock()
		if n.closed {
			n.mu.Unlock()
			return overlay.Walked{}, overlay.ErrClosed
		}
		n.doLocked(func() {
			for ; credit >= 1 && len(s.queue) > 0 && s.fly < scanFlight; credit-- {
				q := s.queue[0]
				s.queue = s.queue[1:]
				s.ask(q)
			}
		})
		over := len(s.queue) == 0 && s.fly == 0
		n.mu.Unlock()
		if over {
			break
		}
		select {
		case <-t.C:
			continue
		case <-ctx.Done():
		case <-n.ctx.Done():
			return overlay.Walked{}, overlay.ErrClosed
		}
		break
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.out.Whole = len(s.queue) == 0 && s.fly == 0 && len(s.known) < w.Nodes
	s.out.Silent = max(len(s.known)-len(s.out.Nodes)-s.fly, 0)
	s.out.Took = time.Since(start)
	for _, t := range n.core.Snapshot().Tables {
		s.out.Estimate = max(s.out.Estimate, t.Estimate)
	}
	out := s.out
	s.w.Nodes = 0 // answers that come later change nothing
	return out, nil
}

// meet queues the first question to a node that was not known.
func (s *scan) meet(x core.Node) {
	if s.known[x] != nil || len(s.known) >= s.w.Nodes {
		return
	}
	s.known[x] = &scanned{}
	s.fresh++
	s.queue = append(s.queue, question{x, x.ID, true})
}

func (s *scan) ask(q question) {
	ok := s.n.core.Ask(q.to, &q.target, func(r core.Reply) {
		s.fly--
		if s.w.Nodes == 0 {
			return
		}
		s.answer(q, r)
	})
	if !ok {
		delete(s.known, q.to)
		return
	}
	s.fly++
	s.out.Asked++
}

// answer takes the nodes of an answer in, and asks the same node on for others: near it,
// and then farther away as long as that brings new ones.
func (s *scan) answer(q question, r core.Reply) {
	x := s.known[q.to]
	if !r.OK {
		return
	}
	if !x.answered {
		x.answered = true
		s.out.Nodes = append(s.out.Nodes, pong(q.to.Addr, r))
	}
	s.fresh = 0
	for _, y := range r.Nodes {
		s.meet(y)
	}
	if x.depth < scanTargets && (q.own || s.fresh > 0) {
		id, err := beyond(q.to.ID, x.depth)
		if err != nil {
			return
		}
		x.depth++
		s.queue = append(s.queue, question{q.to, id, false})
	}
}

// beyond returns any id that shares just so many leading bits with one.
func beyond(id jami.ID, bits int) (out jami.ID, err error) {
	if _, err := rand.Read(out[:]); err != nil {
		return out, err
	}
	for i := range bits + 1 {
		bit := byte(0x80 >> (i % 8))
		out[i/8] = out[i/8]&^bit | id[i/8]&bit
		if i == bits {
			out[i/8] ^= bit
		}
	}
	return out, nil
}
