package leg

import (
	"net/netip"
	"slices"

	"github.com/parley-jami/parley/services/media/ice"
)

// maxValid bounds the addresses proved by checks that a leg keeps; browsers try a
// handful.
const maxValid = 8

// check answers a connectivity check. What is not authentic gets no answer: it
// costs a parse, a look-up and at most one HMAC.
func (p *port) check(pkt []byte, from netip.AddrPort, now int64) {
	var c ice.Check
	if !c.Parse(pkt) {
		p.h.drop(dropCheck)
		return
	}
	v, ok := p.h.ufrags.Load(string(c.Local))
	l, isLeg := v.(*Leg)
	if !ok || !isLeg {
		p.h.drop(dropCheck)
		return
	}
	l.mu.Lock()
	pwd, closed := l.st.Pwd, l.closed
	l.mu.Unlock()
	if closed || !c.Authentic(pkt, pwd) {
		p.h.drop(dropCheck)
		return
	}
	sa, ok := p.sock.Sockaddr(from)
	if !ok {
		return
	}
	l.valid(from, c.UseCandidate)
	l.heard.Store(now) // consent (RFC 7675 §5.1): as the lite side we only answer
	if l.lost.Load() {
		l.alive()
	}
	b := p.reply.Slot()
	p.reply.Queue(len(c.Append(b[:0], from, pwd)), &sa)
}

// valid notes an address from which an authentic check came. The first one, and
// later each that is nominated, is where audio goes.
func (l *Leg) valid(from netip.AddrPort, nominated bool) {
	if r := l.remote.Load(); r != nil && *r == from {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	known := slices.Contains(l.st.Valid, from)
	if known && !nominated {
		return
	}
	p := l.port
	if !known {
		p.mu.Lock()
		if len(l.st.Valid) == maxValid {
			i := slices.IndexFunc(l.st.Valid, func(a netip.AddrPort) bool { return a != l.st.Remote })
			if p.byAddr[l.st.Valid[i]] == l {
				delete(p.byAddr, l.st.Valid[i])
			}
			l.st.Valid = slices.Delete(slices.Clone(l.st.Valid), i, i+1)
		}
		l.st.Valid = append(slices.Clip(l.st.Valid), from)
		p.byAddr[from] = l
		p.mu.Unlock()
	}
	if nominated || !l.st.Remote.IsValid() {
		l.st.Remote = from
		if err := l.configureLocked(); err != nil {
			l.h.logError("leg not moved", l.id, err)
		}
	}
	l.h.dirty(l)
}
