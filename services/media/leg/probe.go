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
)

// probe sends checks to the candidates of a Jami peer, as the controlling side. A lite agent
// need not, and the peer's own checks would do; but a stock agent (13.7, pjnath) that nobody
// writes to looks at its timers only every 500 ms, before which it sends no check, and as the
// controlling side it may wait another 400 ms before it nominates. What comes from here wakes
// it, and nominates.
type probe struct {
	user, pwd string // the far end's
	stop      chan struct{}
	once      sync.Once

	mu      sync.Mutex
	targets [2][]target // of RTP, of RTCP
	done    [2]bool     // a check was answered
}

type target struct {
	at netip.AddrPort
	ice.Probe
}

// asked is a check that waits for its answer.
type asked struct {
	l         *Leg
	pr        *probe
	component int // 0, 1
	at        netip.AddrPort
}

// probe begins to check the candidates of a description with new ICE credentials.
func (l *Leg) probe(far *sdp.Remote) {
	l.mu.Lock()
	pr := &probe{user: far.Ufrag + ":" + l.st.Ufrag, pwd: far.Pwd, stop: make(chan struct{})}
	here, ports := l.st.Source.IsLoopback(), [2]*port{l.port, l.rtcp}
	before := l.probing.Swap(pr)
	l.mu.Unlock()
	before.end()
	for i, list := range far.Candidates {
		for _, at := range list {
			if here || !at.Addr().IsLoopback() { // nobody is sent to this machine's own ports from elsewhere
				pr.add(l, i, at)
			}
		}
	}
	l.h.wg.Go(func() { pr.run(l, ports) })
}

// end stops it; nil has nothing to stop.
func (pr *probe) end() {
	if pr != nil {
		pr.once.Do(func() { close(pr.stop) })
	}
}

// add adds an address to check; false: it is there, or there are too many, or that component
// needs none any more.
func (pr *probe) add(l *Leg, component int, at netip.AddrPort) (ice.Probe, bool) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	list := &pr.targets[component]
	if pr.done[component] || len(*list) >= sdp.MaxCandidates+maxValid || slices.ContainsFunc(*list, func(t target) bool { return t.at == at }) {
		return ice.Probe{}, false
	}
	t := target{at, ice.NewProbe(component + 1)}
	*list = append(*list, t)
	l.h.asked.Store(t.TxID, asked{l, pr, component, at})
	return t.Probe, true
}

// run sends checks until both components have an answer. When they get none in time the far end
// is left to its own.
func (pr *probe) run(l *Leg, ports [2]*port) {
	defer pr.forget(l)
	wait := probeFirst
	for range probeRounds {
		if !pr.send(ports) {
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
	if pr.send(ports) {
		l.probing.CompareAndSwap(pr, nil)
	}
}

// send sends a check for each address of a component that has no answer; false: both have.
func (pr *probe) send(ports [2]*port) (waits bool) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	for i, p := range ports {
		if pr.done[i] {
			continue
		}
		waits = true
		w := p.getWriter()
		for _, t := range pr.targets[i] {
			pr.queue(p, w, &t.Probe, t.at)
		}
		w.Flush()
		p.putWriter(w)
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
	if !ok || a.at != from || p.kind == kindRTCP != (a.component == 1) || !ice.AuthenticAnswer(pkt, a.pr.pwd) {
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

// trigger checks the address that a check came from (RFC 8445 §7.3.1.4).
func (p *port) trigger(l *Leg, from netip.AddrPort) {
	pr := l.probing.Load()
	if pr == nil {
		return
	}
	component := 0
	if p.kind == kindRTCP {
		component = 1
	}
	if c, ok := pr.add(l, component, from); ok {
		pr.queue(p, p.reply, &c, from)
	}
}
