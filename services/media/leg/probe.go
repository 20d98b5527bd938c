package leg

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/parley-jami/parley/services/media/ice"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/wire"
)

// Times of the checks that are sent to a Jami peer: the wait after the first, which doubles to
// the most, and how often.
const (
	probeFirst  = 20 * time.Millisecond
	probeMost   = 500 * time.Millisecond
	probeRounds = 11
	// relayAfter is how long a path without a relay of ours is given before one by it is
	// nominated: the first of a component that is answered is taken.
	relayAfter = 250 * time.Millisecond
)

// probe sends checks to the candidates of a Jami peer, as the controlling side. A lite agent
// need not, and the peer's own checks would do; but a stock agent (13.7, pjnath) that nobody
// writes to looks at its timers only every 500 ms, before which it sends no check, and as the
// controlling side it may wait another 400 ms before it nominates. What comes from here wakes
// it, and nominates.
type probe struct {
	user, pwd string // the far end's
	began     time.Time
	stop      chan struct{}
	once      sync.Once

	mu      sync.Mutex
	targets [2][]target // of RTP, of RTCP
	done    [2]bool     // a check was answered
}

type target struct {
	at   netip.AddrPort
	port *port // by which it is checked
	ice.Probe
}

// asked is a check that waits for its answer.
type asked struct {
	l         *Leg
	pr        *probe
	component int // 0, 1
	at        netip.AddrPort
	port      *port
}

// probe begins to check the candidates of a description with new ICE credentials.
func (l *Leg) probe(far *sdp.Remote) {
	l.mu.Lock()
	pr := &probe{user: far.Ufrag + ":" + l.st.Ufrag, pwd: far.Pwd, began: time.Now(), stop: make(chan struct{})}
	here, ports, relay := l.st.Source.IsLoopback(), [2]*port{l.port, l.rtcp}, l.relay
	before := l.probing.Swap(pr)
	l.mu.Unlock()
	before.end()
	for i, list := range far.Candidates {
		for _, at := range list {
			if !here && at.Addr().IsLoopback() { // nobody is sent to this machine's own ports from elsewhere
				continue
			}
			pr.add(l, ports[i], at)
			if relay != nil {
				relay.pair[i].Permit(at, func() { pr.add(l, relay.ports[i], at) })
			}
		}
	}
	l.h.wg.Go(func() { pr.run(l) })
}

// end stops it; nil has nothing to stop.
func (pr *probe) end() {
	if pr != nil {
		pr.once.Do(func() { close(pr.stop) })
	}
}

// add adds an address to check, if it is not there; false: there are too many, or that component
// needs no check any more.
func (pr *probe) add(l *Leg, p *port, at netip.AddrPort) (ice.Probe, bool) {
	component := p.component()
	pr.mu.Lock()
	defer pr.mu.Unlock()
	list := &pr.targets[component]
	if pr.done[component] {
		return ice.Probe{}, false
	}
	if i := slices.IndexFunc(*list, func(t target) bool { return t.at == at && t.port == p }); i >= 0 {
		return (*list)[i].Probe, true
	}
	if len(*list) >= 2*(sdp.MaxCandidates+maxValid) {
		return ice.Probe{}, false
	}
	t := target{at, p, ice.NewProbe(component + 1)}
	*list = append(*list, t)
	l.h.asked.Store(t.TxID, asked{l, pr, component, at, p})
	return t.Probe, true
}

// component is the one whose packets come to a port, from 0 on.
func (p *port) component() int {
	if p.kind == kindRTCP {
		return 1
	}
	return 0
}

// due reports whether checks by a port are to be sent already.
func (pr *probe) due(p *port) bool { return !p.relayed || time.Since(pr.began) >= relayAfter }

// run sends checks until both components have an answer. When they get none in time the far end
// is left to its own.
func (pr *probe) run(l *Leg) {
	defer pr.forget(l)
	wait := probeFirst
	for range probeRounds {
		if !pr.send() {
			return
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-pr.stop:
			t.Stop()
			return
		case <-l.h.ctx.Done():
			t.Stop()
			return
		}
		wait = min(2*wait, probeMost)
	}
	if pr.send() {
		l.probing.CompareAndSwap(pr, nil)
	}
}

// send sends a check for each address of a component that has no answer; false: both have.
func (pr *probe) send() (waits bool) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	for i, list := range pr.targets {
		if pr.done[i] {
			continue
		}
		waits = true
		var b batch
		for _, t := range list {
			if pr.due(t.port) {
				pr.queue(t.port, b.writer(t.port), &t.Probe, t.at)
			}
		}
		b.flush()
	}
	return waits
}

func (pr *probe) queue(p *port, w *wire.Writer, c *ice.Probe, at netip.AddrPort) {
	sa, ok := p.sock.Sockaddr(at)
	if !ok { // of another family than the socket
		return
	}
	b := w.Slot()
	w.Queue(len(c.Append(b[:0], pr.user, pr.pwd)), &sa)
}

func (pr *probe) forget(l *Leg) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	for _, list := range pr.targets {
		for _, t := range list {
			l.h.asked.Delete(t.TxID)
		}
	}
	pr.done = [2]bool{true, true} // nothing is added any more
}

// answered takes the answer to a check of ours: the first of a component says where it goes.
func (p *port) answered(pkt []byte, txid [12]byte, from netip.AddrPort, now int64) {
	v, _ := p.h.asked.Load(txid)
	a, ok := v.(asked)
	if !ok || a.at != from || a.port != p || !ice.AuthenticAnswer(pkt, a.pr.pwd) {
		p.h.drop(dropCheck)
		return
	}
	a.pr.mu.Lock()
	first := !a.pr.done[a.component] && a.l.probing.Load() == a.pr
	a.pr.done[a.component] = true
	a.pr.mu.Unlock()
	if !first {
		return
	}
	a.l.valid(p, from, true)
	a.l.heard.Store(now)
	if a.l.lost.Load() {
		a.l.alive()
	}
}

// trigger checks the address that a check came from (RFC 8445 §7.3.1.4), also one that was checked
// before: what was sent then may not have come through the far end's NAT, which lets it in now.
func (p *port) trigger(l *Leg, from netip.AddrPort) {
	pr := l.probing.Load()
	if pr == nil {
		return
	}
	if c, ok := pr.add(l, p, from); ok && pr.due(p) {
		pr.queue(p, p.reply, &c, from)
	}
}
