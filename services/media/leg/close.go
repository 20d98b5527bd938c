package leg

const reasonShutdown = "shutdown"

// close ends a leg: the caller holds h.ctl, or is alone. With orderly false nothing
// is said to the far end and the state stays.
func (h *Host) close(l *Leg, orderly bool, reason string) {
	h.mu.Lock()
	if h.legs[l.id] == l {
		delete(h.legs, l.id)
	}
	h.mu.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	h.ufrags.CompareAndDelete(l.st.Ufrag, l)
	l.probing.Load().end()
	l.in.mu.Lock()
	m := l.in.member
	l.in.member = nil
	l.in.mu.Unlock()
	relay, ports := l.relay, []*port{l.port, l.rtcp}
	if relay != nil {
		ports = append(ports, relay.ports[:]...)
	}
	tag, slot := l.st.Tag, l.st.Slot
	l.mu.Unlock()
	if m != nil {
		m.Close() // nothing is sent any more
	}
	for _, p := range ports {
		if p != nil {
			p.forget(l)
		}
	}
	if orderly && l.port != nil {
		l.goodbye()
	}
	h.relays.release(relay)
	l.dtls.reset()
	if l.room != nil {
		h.Release(l.room)
	}
	if !orderly {
		return
	}
	l.forgetState(tag, slot)
	if reason == reasonShutdown { // the others were ordered
		h.events.Change(l.id, l.st.Room, "closed", reason)
	}
}
