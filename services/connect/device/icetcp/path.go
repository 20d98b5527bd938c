package icetcp

import (
	"errors"
	"fmt"
	"sync"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/ice"
)

// maxMessages bounds the STUN messages on a path before it is selected.
const maxMessages = 64

// path is one TCP connection on which checks are made.
type path struct {
	*framed
	s     *ice.Side
	to    *target // nil: the peer connected
	relay bool    // through a relay, ours or the peer's
	heard bool    // something came; of run's goroutine until it ended
	hold  bool    // not to be nominated yet; of race's goroutine alone

	mu        sync.Mutex
	asked     [stun.TransactionIDSize]byte // our check
	sent      bool
	nominated [stun.TransactionIDSize]byte // our nomination
	nominates bool
}

// ask sends our check.
func (p *path) ask() error { return p.send1(false) }

// nominate sends the check that selects the path (RFC 8445 §8.1.1).
func (p *path) nominate() error { return p.send1(true) }

func (p *path) send1(use bool) error {
	m, err := p.s.Check(use)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if use {
		p.nominated, p.nominates = m.TransactionID, true
	} else {
		p.asked, p.sent = m.TransactionID, true
	}
	p.mu.Unlock()
	return p.send(m.Raw)
}

var errData = errors.New("data before the path was selected")

// run makes the checks until the path is selected, which is nil. tell is called with valid
// when the peer answered our check, and with confirmed when we answered one of its own too.
// first is a check that was read already, or nil.
func (p *path) run(first *stun.Message, tell func(kind)) error {
	var ok, checked, both, used bool
	for n := 0; ; n++ {
		m := first
		first = nil
		if m == nil {
			var err error
			if m, err = p.next(); err != nil {
				return err
			}
		}
		p.heard = true
		switch {
		case n > maxMessages:
			return fmt.Errorf("%w: more checks than it takes", errFrame)
		case m == nil && used:
			return nil // our check is not answered yet, and the peer goes on: so it works
		case m == nil:
			return errData
		}
		switch m.Type {
		case stun.BindingRequest:
			use, err := p.reply(m)
			if err != nil {
				return err
			}
			used, checked = used || use, true
		case stun.BindingSuccess, stun.BindingError:
			selected, err := p.take(m)
			if err != nil {
				return err
			}
			if selected {
				return nil
			}
			if !ok {
				ok = true
				tell(valid)
			}
		default: // an indication
		}
		if ok && checked && !both {
			both = true
			tell(confirmed)
		}
		if ok && used {
			return nil
		}
	}
}

// reply answers a check and, where ours is not sent yet, sends it after. use: the peer,
// which controls, selected the path.
func (p *path) reply(m *stun.Message) (use bool, err error) {
	if err := p.s.Admit(m); err != nil {
		return false, err
	}
	out, conflict, err := p.s.Answer(m, addrOf(p.RemoteAddr()))
	if err != nil {
		return false, err
	}
	if err := p.send(out.Raw); err != nil || conflict {
		return false, err
	}
	p.mu.Lock()
	sent := p.sent
	p.mu.Unlock()
	if !sent {
		if err := p.ask(); err != nil {
			return false, err
		}
	}
	return !p.s.Controlling && m.Contains(stun.AttrUseCandidate), nil
}

// take takes an answer to one of our checks. selected: it was the one that nominates.
func (p *path) take(m *stun.Message) (selected bool, err error) {
	p.mu.Lock()
	asked, nominated := p.sent && m.TransactionID == p.asked, p.nominates && m.TransactionID == p.nominated
	p.mu.Unlock()
	if !asked && !nominated {
		return false, ice.ErrAnswer
	}
	return nominated, p.s.Answered(m)
}
