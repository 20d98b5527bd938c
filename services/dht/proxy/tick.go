package proxy

import (
	"cmp"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/proxyjson"
	"github.com/parley-jami/parley/services/dht/push"
)

const (
	// saveEvery is the least time between two writings of the file.
	saveEvery = 2 * time.Second
	idleTime  = time.Minute
	joinsMost = 64 // begun at once
)

// todo is what a tick found to be done, without the lock.
type todo struct {
	leaves  []func()
	joins   []*sub
	cancels []putKey
	notices []push.Message
	next    time.Time
}

// until notes when something is due.
func (t *todo) until(at time.Time) {
	if at.Before(t.next) {
		t.next = at
	}
}

// tick does what is due, and returns how long nothing is.
func (p *Proxy) tick(now time.Time) time.Duration {
	t := todo{next: now.Add(idleTime)}
	p.mu.Lock()
	for _, s := range p.subs {
		p.tickSubLocked(s, now, &t)
	}
	for at, k := range p.puts {
		p.tickPutLocked(at, k, now, &t)
	}
	write := p.dirty && !now.Before(p.saved.Add(saveEvery))
	if p.dirty && !write {
		t.until(p.saved.Add(saveEvery))
	}
	p.mu.Unlock()
	for _, leave := range t.leaves {
		leave()
	}
	for _, s := range t.joins {
		p.wg.Go(func() { p.join(s) })
	}
	for _, m := range t.notices {
		if err := p.o.Push.Send(m); err != nil {
			p.Log.Warn("notice not pushed", zap.String("platform", m.Platform), zap.Error(err))
		}
	}
	if len(t.cancels) > 0 { // other nodes may have to be asked
		p.wg.Go(func() { p.cancel(t.cancels) })
	}
	if write {
		if err := p.save(); err != nil {
			p.Log.Error("subscriptions and permanent values not written", zap.Error(err))
		}
	}
	return max(t.next.Sub(now), 10*time.Millisecond)
}

// cancel ends what is permanent in the overlay, unless it was put again.
func (p *Proxy) cancel(ended []putKey) {
	for _, at := range ended {
		p.mu.Lock()
		again := p.puts[at] != nil
		p.mu.Unlock()
		if !again {
			p.o.Overlay.Cancel(p.life, at.key, at.id)
		}
	}
}

func (p *Proxy) tickSubLocked(s *sub, now time.Time, t *todo) {
	if !s.expires.After(now) {
		t.leaves = append(t.leaves, p.removeLocked(s))
		return
	}
	t.until(s.expires)
	switch early := s.expires.Add(-noticeTime); {
	case s.noticed:
	case now.Before(early):
		t.until(early)
	default:
		s.noticed = true
		t.tell(s.client, proxyjson.Notice{Timeout: hexKey(s.key), To: s.id, Session: s.session}, false, p.Log)
	}
	switch {
	case s.leave != nil || s.joins:
	case s.joinAt.After(now):
		t.until(s.joinAt)
	case len(t.joins) < joinsMost:
		s.joins = true
		t.joins = append(t.joins, s)
	default:
		t.until(now)
	}
	switch {
	case s.due.IsZero():
	case s.due.After(now):
		t.until(s.due)
	default:
		if n, urgent, ok := s.noticeLocked(now); ok {
			p.dirty = true
			t.tell(s.client, n, urgent, p.Log)
		}
	}
}

func (p *Proxy) tickPutLocked(at putKey, k *kept, now time.Time, t *todo) {
	if !k.expires.After(now) {
		if k.permanent {
			t.cancels = append(t.cancels, at)
		}
		p.forgetLocked(at)
		return
	}
	t.until(k.expires)
	if k.client == nil || k.noticed {
		return
	}
	if early := k.expires.Add(-noticeTime); now.Before(early) {
		t.until(early)
		return
	}
	k.noticed = true
	t.tell(*k.client, proxyjson.Notice{Timeout: hexKey(at.key), To: k.client.id, Session: k.client.session, Value: at.id}, false, p.Log)
}

func (t *todo) tell(c client, n proxyjson.Notice, urgent bool, log *zap.Logger) {
	data, err := n.Marshal()
	if err != nil {
		log.Error("notice not written", zap.Error(err))
		return
	}
	log.Debug("client is woken", zap.String("platform", c.Platform), zap.String("key", cmp.Or(n.Key, n.Timeout)), zap.Uint64("id", cmp.Or(n.Expired, n.Value)), zap.Bool("ends", n.Timeout != ""))
	t.notices = append(t.notices, push.Message{Target: c.Target, Data: data, Urgent: urgent, Timeout: n.Timeout != ""})
}

// leaveAll lets go of the keys; the subscriptions stay in the file.
func (p *Proxy) leaveAll() {
	p.mu.Lock()
	var leaves []func()
	for _, s := range p.subs {
		if s.leave != nil {
			leaves = append(leaves, s.leave)
		}
	}
	p.mu.Unlock()
	for _, leave := range leaves {
		leave()
	}
}
