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
	if ice.Indication(pkt) { // a keep-alive (RFC 8445 §11)
		return
	}
	if txid, ok := ice.Answered(pkt); ok {
		p.answered(pkt, txid, from, now)
		return
	}
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
	pwd, here, jami := l.st.Pwd, !l.closed && l.hasLocked(p), l.st.Jami
	if jami && l.st.FarUfrag != string(c.Remote) {
		here = false // the offer went to all devices of an account, and one has answered first
	}
	l.mu.Unlock()
	if !here || !c.Authentic(pkt, pwd) {
		p.h.drop(dropCheck)
		return
	}
	sa, ok := p.sock.Sockaddr(from)
	if !ok {
		return
	}
	if c.Controlled && jami && l.probing.Load() == nil { // one that was called: it does not know us for a lite agent
		b := p.reply.Slot()
		p.reply.Queue(len(c.AppendConflict(b[:0], pwd)), &sa)
		return
	}
	l.valid(p, from, c.UseCandidate)
	l.heard.Store(now) // consent (RFC 7675 §5.1): as the lite side we only answer
	if l.lost.Load() {
		l.alive()
	}
	b := p.reply.Slot()
	p.reply.Queue(len(c.Append(b[:0], from, pwd)), &sa)
	if jami {
		p.trigger(l, from)
	}
}

// valid notes an address from which an authentic check came to p. The first one, and
// later each that is nominated, is where audio goes or, of a Jami peer's second
// component, the reports. Of a Jami peer's, one by a relay takes no place of one without that was
// nominated: it may be us who nominated both. A browser nominates what it uses.
func (l *Leg) valid(p *port, from netip.AddrPort, nominated bool) {
	if r := l.remote.Load(); r != nil && r.at == from && r.port == p {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.hasLocked(p) {
		return
	}
	component, remote, list, by := 0, &l.st.Remote, &l.st.Valid, &l.st.Relayed
	if p.kind == kindRTCP {
		component, remote, list, by = 1, &l.st.RemoteRTCP, &l.st.ValidRTCP, &l.st.RelayedRTCP
	}
	if p.relayed {
		list = &l.relayed[component]
	}
	known := slices.Contains(*list, from)
	if known && !nominated {
		return
	}
	if !known {
		p.mu.Lock()
		if len(*list) == maxValid {
			i := slices.IndexFunc(*list, func(a netip.AddrPort) bool { return a != *remote })
			if p.byAddr[(*list)[i]] == l {
				delete(p.byAddr, (*list)[i])
			}
			*list = slices.Delete(slices.Clone(*list), i, i+1)
		}
		*list = append(slices.Clip(*list), from)
		p.byAddr[from] = l
		p.mu.Unlock()
	}
	if nominated && !p.relayed {
		l.direct[component] = true
	}
	if nominated && !(p.relayed && l.direct[component] && l.st.Jami) || !remote.IsValid() {
		*remote, *by = from, p.relayed
		if err := l.configureLocked(); err != nil {
			l.h.logError("leg not moved", l.id, err)
		}
	}
	l.h.dirty(l)
}
