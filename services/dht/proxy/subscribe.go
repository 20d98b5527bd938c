package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
	"github.com/parley-jami/parley/services/dht/push"
)

// Bursts: one notice tells of all that came in coalesce, and the next comes quiet after
// it at the earliest.
const (
	coalesce = 200 * time.Millisecond
	quiet    = 2 * time.Second
	// joinAgain is after a key could not be watched.
	joinAgain = 30 * time.Second
	// settle is how long what is there is found out after a start, before it is compared
	// with what a client was told.
	settle = 10 * time.Second
)

type subKey struct {
	key      overlay.Key
	token    string
	clientID string
}

// sub is one subscription. All is guarded by the proxy's mu.
type sub struct {
	client
	key     overlay.Key
	addr    netip.Addr
	expires time.Time
	noticed bool
	leave   func()    // nil: the key is not watched yet
	joins   bool      // it is being tried
	joinAt  time.Time // not before
	seen    uint64    // digest of what the client was told of; 0: of nothing
	digest  uint64    // of what is there
	old     bool      // of a process before this one, and not watched yet
	settled time.Time // nothing is told before

	// What is to be told.
	due    time.Time // zero: nothing
	last   time.Time
	urgent bool
	one    uint64 // the only one that expired, when nothing else happened
	many   bool
}

func (s *sub) at() subKey { return subKey{s.key, s.Token, s.id} }

// platform is android when a client says none, as in OpenDHT.
func platform(s *proxyjson.Subscription) {
	if s.Platform == "" {
		s.Platform = proxyjson.Android
	}
}

// readSubscription reads the body of a request.
func (p *Proxy) readSubscription(r *http.Request) (*proxyjson.Subscription, *httpapi.Answer) {
	body, no := p.Body(r, proxyjson.MaxSubscription)
	if no != nil {
		return nil, no
	}
	refuse := func(x httpapi.Answer) (*proxyjson.Subscription, *httpapi.Answer) { return nil, &x }
	s, err := proxyjson.ParseSubscription(body)
	switch {
	case err != nil:
		return refuse(p.misread(err))
	case s.Token == "":
		return refuse(p.Refuse(http.StatusBadRequest, httpapi.Invalid, "No token"))
	}
	platform(s)
	return s, nil
}

// subscribe notes a subscription, or renews one. A known client gets the values that are
// there, unless it has them.
func (p *Proxy) subscribe(w http.ResponseWriter, r *http.Request) (string, *httpapi.Answer) {
	key, no := p.keyOf(r)
	if no != nil {
		return "", no
	}
	in, no := p.readSubscription(r)
	if no != nil {
		return "", no
	}
	c := clientOf(in)
	if err := p.o.Push.Check(c.Target); err != nil {
		x := p.unacceptable(err)
		return "", &x
	}
	if !p.feeds.room(key) {
		x := p.unavailable(errFull)
		return "", &x
	}
	known, no := p.note(key, c, limits.ClientIP(r))
	if no != nil {
		return "", no
	}
	p.poke()
	out := newLines(w, p.writeTime)
	if known && !in.Refresh {
		return p.find(r, out, key)
	}
	if err := out.write([]byte("{}")); err != nil {
		return resultSlow, nil
	}
	return httpapi.OK, nil
}

// note keeps a subscription for a day more.
func (p *Proxy) note(key overlay.Key, c *client, ip netip.Addr) (known bool, no *httpapi.Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty = true
	expires := p.o.Now().Add(keepTime)
	if s := p.subs[subKey{key, c.Token, c.id}]; s != nil {
		s.client, s.expires, s.noticed = *c, expires, false
		return true, nil
	}
	full := func(words string) (bool, *httpapi.Answer) {
		x := p.Refuse(http.StatusServiceUnavailable, resultFull, words)
		x.Wait = time.Minute
		return false, &x
	}
	if p.tokens[c.Token] >= subsPerEndpoint {
		return full("too many subscriptions of this endpoint")
	}
	if !p.shares.subs.Take(ip) {
		return full("too many subscriptions of your address, or of all; try another proxy")
	}
	p.addLocked(&sub{client: *c, key: key, addr: ip, expires: expires})
	return false, nil
}

func (p *Proxy) addLocked(s *sub) {
	p.subs[s.at()] = s
	p.tokens[s.Token]++
}

// removeLocked forgets a subscription; the returned function is to be called unlocked.
func (p *Proxy) removeLocked(s *sub) (leave func()) {
	delete(p.subs, s.at())
	if p.tokens[s.Token]--; p.tokens[s.Token] == 0 {
		delete(p.tokens, s.Token)
	}
	p.shares.subs.Free(s.addr)
	p.dirty = true
	if s.leave == nil {
		return func() {}
	}
	return s.leave
}

// unsubscribe ends a subscription; that there is none is no error.
func (p *Proxy) unsubscribe(r *http.Request) httpapi.Answer {
	key, no := p.keyOf(r)
	if no != nil {
		return *no
	}
	in, no := p.readSubscription(r)
	if no != nil {
		return *no
	}
	p.mu.Lock()
	leave := func() {}
	if s := p.subs[subKey{key, in.Token, in.ClientID}]; s != nil {
		leave = p.removeLocked(s)
	}
	p.mu.Unlock()
	leave()
	p.poke()
	return httpapi.Answer{Status: http.StatusOK, Result: httpapi.OK}
}

// Gone ends all that an endpoint is told: its push service no longer knows it.
func (p *Proxy) Gone(t push.Target) {
	p.mu.Lock()
	var leaves []func()
	for _, s := range p.subs {
		if s.Token == t.Token && s.Platform == t.Platform {
			leaves = append(leaves, p.removeLocked(s))
		}
	}
	for _, k := range p.puts {
		if k.client != nil && k.client.Token == t.Token {
			k.client, p.dirty = nil, true
		}
	}
	p.mu.Unlock()
	if len(leaves) > 0 {
		p.Log.Info("subscriptions ended: their endpoint is gone", zap.String("platform", t.Platform), zap.Int("subscriptions", len(leaves)))
	}
	for _, leave := range leaves {
		leave()
	}
	p.poke()
}

// ping pushes once, so that a client sees whether it arrives.
func (p *Proxy) ping(r *http.Request) httpapi.Answer {
	in, no := p.readSubscription(r)
	if no != nil {
		return *no
	}
	data, err := json.Marshal(map[string]any{"to": in.ClientID, "pong": true})
	if err != nil {
		return p.unacceptable(err)
	}
	switch err := p.o.Push.Send(push.Message{Target: clientOf(in).Target, Data: data, Urgent: true}); {
	case errors.Is(err, push.ErrFull):
		return p.Busy()
	case err != nil:
		return p.unacceptable(err)
	}
	return httpapi.Answer{Status: http.StatusOK, Result: httpapi.OK}
}

// join watches the key of a subscription.
func (p *Proxy) join(s *sub) {
	now, digest, leave, err := p.feeds.join(p.life, s.key, func(e event, digest uint64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		s.changedLocked(e, digest, p.o.Now())
		p.poke()
	})
	p.mu.Lock()
	s.joins = false
	gone := p.subs[s.at()] != s
	switch {
	case err != nil:
		s.joinAt = p.o.Now().Add(joinAgain)
		if p.life.Err() == nil {
			p.Log.Warn("key not watched; trying again", zap.Error(err))
		}
	case !gone:
		s.leave = leave
		if s.old {
			s.old, s.settled = false, p.o.Now().Add(settle)
		}
		if s.due.IsZero() { // else an event came in between, with a later digest
			s.digest = digest
		}
		if digest != s.seen { // also what changed while no process ran
			urgent := false
			for _, e := range now {
				urgent = urgent || e.urgent
			}
			s.tellLocked(urgent, p.o.Now())
			s.many = true
		}
	}
	p.mu.Unlock()
	if err == nil && gone {
		leave()
	}
	p.poke()
}

// changedLocked notes an event.
func (s *sub) changedLocked(e event, digest uint64, now time.Time) {
	s.digest = digest
	switch {
	case !e.expired || !s.due.IsZero():
		s.many = true
	default:
		s.one = e.id
	}
	s.tellLocked(e.urgent, now)
}

func (s *sub) tellLocked(urgent bool, now time.Time) {
	s.urgent = s.urgent || urgent
	if s.due.IsZero() {
		s.due = now.Add(coalesce)
		for _, at := range []time.Time{s.last.Add(quiet), s.settled} {
			if at.After(s.due) {
				s.due = at
			}
		}
	}
}

// noticeLocked takes what is to be told. ok is false when all is again as the client was
// told last.
func (s *sub) noticeLocked(now time.Time) (n proxyjson.Notice, urgent, ok bool) {
	if s.digest == s.seen {
		s.due, s.urgent, s.one, s.many = time.Time{}, false, 0, false
		return n, false, false
	}
	n = proxyjson.Notice{Key: hexKey(s.key), To: s.id, Session: s.session, Time: now.UnixMilli()}
	if !s.many {
		n.Expired = s.one
	}
	urgent = s.urgent
	s.due, s.last, s.urgent, s.one, s.many, s.seen = time.Time{}, now, false, 0, false, s.digest
	return n, urgent, true
}
