package leg

import (
	"time"

	"github.com/parley-jami/parley/services/media/wire"
)

// place gives a phone's leg one of the pairs of ports, which all phones share.
// It stays where it is; a leg whose address changed must still be unambiguous
// there.
func (l *Leg) place() error {
	if l.st.WebRTC {
		return nil
	}
	h := l.h
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.st.Jami {
		l.pairLocked()
		return nil
	}
	if l.st.Latched || (l.port != nil && l.port.waits(l)) {
		return nil
	}
	if l.port != nil {
		if l.port.take(l, l.rtcp) {
			return nil
		}
		return ErrBusy
	}
	// Few pairs make large batches; one for each core that reads is enough.
	h.next = (h.next + 1) % sharedPairs
	for n := range Pairs {
		i := n
		if n < sharedPairs {
			i = (h.next + n) % sharedPairs
		}
		if h.rtpPort(i).take(l, h.rtcpPort(i)) {
			l.st.Pair, l.port, l.rtcp = i, h.rtpPort(i), h.rtcpPort(i)
			return nil
		}
	}
	return ErrBusy
}

// exactLocked reports whether the far end's SDP can be believed: it names the host
// that signalling comes from, so nobody else can be meant.
func (l *Leg) exactLocked() bool {
	t := l.st.Told
	return t.IsValid() && t.Addr() == l.st.Source
}

// take registers the leg at this pair; false when packets of it could be taken for
// another's. The caller holds l.mu.
func (p *port) take(l *Leg, rtcp *port) bool {
	st := &l.st
	exact := l.exactLocked()
	p.mu.Lock()
	if o := p.byAddr[st.Told]; st.Told.IsValid() && o != nil && o != l {
		p.mu.Unlock()
		return false
	}
	if !exact {
		if o := p.waiting[st.Source]; o != nil && o != l || (st.Secure && len(p.wild) >= maxWild) {
			p.mu.Unlock()
			return false
		}
		if st.Source.IsValid() {
			p.waiting[st.Source] = l
		}
		if st.Secure {
			p.wild = append(p.wild, l)
		}
	}
	if st.Told.IsValid() {
		p.byAddr[st.Told] = l
	}
	p.mu.Unlock()
	if exact {
		st.Latched, st.Remote = true, st.Told
	}
	if st.ToldRTCP.IsValid() && !st.Mux {
		rtcp.mu.Lock()
		if rtcp.byAddr[st.ToldRTCP] == nil {
			rtcp.byAddr[st.ToldRTCP] = l
		}
		rtcp.mu.Unlock()
	}
	return true
}

// waits reports whether the leg is registered here for its first packet.
func (p *port) waits(l *Leg) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.waiting[l.st.Source] == l && (!l.st.Told.IsValid() || p.byAddr[l.st.Told] == l)
}

// forget removes every way to the leg. The caller does not hold p.mu.
func (p *port) forget(l *Leg) {
	p.mu.Lock()
	p.forgetLocked(l)
	p.mu.Unlock()
}

// goodbye sends the last report with a BYE.
func (l *Leg) goodbye() {
	used := map[*port]*wire.Writer{}
	l.sendRTCP(func(p *port) *wire.Writer {
		w := p.getWriter()
		used[p] = w
		return w
	}, time.Now(), true)
	for p, w := range used {
		w.Flush()
		p.putWriter(w)
	}
}

// expectsPackets reports whether silence of the far end means that it is gone: a
// browser always sends checks, a phone not while it only listens.
func (l *Leg) expectsPackets() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.st.WebRTC || l.st.Far&1 != 0
}
