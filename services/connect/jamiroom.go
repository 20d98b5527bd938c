package connect

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/confinfo"
	"github.com/parley-jami/parley/services/connect/sip"
)

const (
	// infoPause is the least time between two states of a room, and infoRate what all of them
	// may take, in bytes a second: with 500 Jami participants a state comes every 3.3 s.
	infoPause = 150 * time.Millisecond
	infoRate  = 1_000_000
	// sayTime bounds the wait for a peer's answer; orderTime what an order may take.
	sayTime   = 8 * time.Second
	orderTime = 5 * time.Second
	maxTexts  = 32    // that wait for one participant; more are dropped
	maxOrders = 32    // messages of one participant that wait
	maxText   = 7_000 // bytes of chat in one message (connect-and-calls §3.1)
)

// jamiRoom is a room with Jami participants. Its goroutine keeps the roster; each participant
// has one that speaks to it and one that obeys it, so that none waits for another.
type jamiRoom struct {
	in    *jamiRooms
	name  string
	dirty chan struct{} // capacity 1: the state has changed

	mu        sync.Mutex
	seats     map[string]*jamiSeat
	roster    map[string]*contract.Participant
	account   string // whose room it is
	seq       uint64 // of the last event in the roster
	lost      bool   // the roster has to be read again
	layout    int
	active    string // participant that is shown large
	recording map[string]bool
}

// jamiSeat is a Jami participant.
type jamiSeat struct {
	id    string
	wake  chan struct{} // capacity 1
	heard chan heard
	stop  context.CancelFunc

	mu    sync.Mutex
	info  string // the state to send
	said  string // the last one that was sent
	texts []string
}

// heard is what a participant said, and what to call when it was acted upon.
type heard struct {
	sip.Message
	done func()
}

func newJamiRoom(j *jamiRooms, name string) *jamiRoom {
	return &jamiRoom{in: j, name: name, dirty: make(chan struct{}, 1), seats: map[string]*jamiSeat{}, roster: map[string]*contract.Participant{}, lost: true, recording: map[string]bool{}}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// enter adds a participant. The caller holds in.mu.
func (r *jamiRoom) enter(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seats[id] != nil {
		return
	}
	ctx, stop := context.WithCancel(r.in.ctx)
	s := &jamiSeat{id: id, wake: make(chan struct{}, 1), heard: make(chan heard, maxOrders), stop: stop}
	r.seats[id] = s
	r.in.wg.Go(func() { r.speak(ctx, s) })
	r.in.wg.Go(func() { r.obey(ctx, s) })
	poke(r.dirty)
}

// leave removes a participant.
func (r *jamiRoom) leave(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.seats[id]; s != nil {
		s.stop()
		delete(r.seats, id)
	}
	poke(r.dirty)
}

// heard passes on what a participant said.
func (r *jamiRoom) heard(id string, m heard) {
	r.mu.Lock()
	s := r.seats[id]
	r.mu.Unlock()
	if s == nil {
		m.done()
		return
	}
	select {
	case s.heard <- m:
	default:
		m.done()
		r.in.log.Info("a Jami peer says too much at once", zap.String("room", r.name), zap.String("participant", id))
	}
}

func (r *jamiRoom) lose() {
	r.mu.Lock()
	r.lost = true
	r.mu.Unlock()
	poke(r.dirty)
}

// event takes what happened into the roster. Events are in order; after a gap the roster is
// read again.
func (r *jamiRoom) event(e *contract.RoomEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Seq <= r.seq && !r.lost {
		return
	}
	if e.Seq != r.seq+1 {
		r.lost = true
	}
	r.seq = max(r.seq, e.Seq)
	switch p := e.Participant; {
	case e.Type == contract.EventChat && e.Chat != nil:
		for id, s := range r.seats {
			if id != e.Chat.From {
				s.text(e.Chat)
			}
		}
		return
	case e.Type == contract.EventClosed:
		for _, s := range r.seats {
			s.stop()
		}
		clear(r.seats)
	case p == nil:
		return
	case e.Type == contract.EventLeft:
		delete(r.roster, p.ID)
		delete(r.recording, p.ID)
		if r.active == p.ID {
			r.active = ""
		}
		if s := r.seats[p.ID]; s != nil {
			s.stop()
			delete(r.seats, p.ID)
		}
	case e.Type == contract.EventDigit || e.Type == contract.EventMedia:
		return
	default:
		r.roster[p.ID] = p
	}
	poke(r.dirty)
}

// run tells all who are seated what changes, until nobody is.
func (r *jamiRoom) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.dirty:
		}
		if r.in.forget(r) {
			return
		}
		pause := infoPause
		if err := r.read(ctx); err != nil {
			if ctx.Err() == nil {
				r.in.log.Info("a room's roster could not be read; it is tried again", zap.String("room", r.name), zap.Error(err))
			}
			poke(r.dirty)
			pause = time.Second
		} else if pause, err = r.tell(); err != nil {
			r.in.log.Error("a room's state was not written", zap.String("room", r.name), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// read gets the roster where it is not known.
func (r *jamiRoom) read(ctx context.Context) error {
	r.mu.Lock()
	known := !r.lost
	r.lost = false // what is missed from now on sets it again
	r.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	got, err := bus.Call(ctx, r.in.bus, contract.RoomGet, &contract.None{}, r.name, contract.Operator)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.lost = true
		return err
	}
	r.account = cmp.Or(got.Room.Account, r.in.bus.Account())
	if got.Seq < r.seq { // events have overtaken it
		r.lost = true
		poke(r.dirty)
		return nil
	}
	r.seq, r.lost = got.Seq, false
	clear(r.roster)
	for i := range got.Room.Participants {
		p := &got.Room.Participants[i]
		r.roster[p.ID] = p
	}
	return nil
}

// tell gives everybody the state as it is now, and returns how long the next one has to wait.
func (r *jamiRoom) tell() (time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*contract.Participant, 0, len(r.roster))
	for _, p := range r.roster {
		list = append(list, p)
	}
	// Where not all fit, who acts is shown first.
	rank := func(p *contract.Participant) int {
		switch {
		case p.ID == r.active:
			return 0
		case p.Hand != nil:
			return 1
		case p.Speaking:
			return 2
		case p.Role == contract.RoleModerator:
			return 3
		}
		return 4
	}
	byJoin := func(a, b *contract.Participant) int {
		return cmp.Or(a.Joined.Compare(b.Joined), cmp.Compare(a.ID, b.ID))
	}
	slices.SortFunc(list, byJoin)
	all := r.entriesLocked(list)
	text, n, err := confinfo.Info(r.layout, all)
	if err != nil {
		return infoPause, err
	}
	short := n < len(all)
	if short {
		slices.SortStableFunc(list, func(a, b *contract.Participant) int { return cmp.Compare(rank(a), rank(b)) })
	}
	bytes := 0
	for id, s := range r.seats {
		if short { // everybody is in its own
			mine := slices.Clone(list)
			if i := slices.IndexFunc(mine, func(p *contract.Participant) bool { return p.ID == id }); i > 0 {
				p := mine[i]
				mine = slices.Insert(slices.Delete(mine, i, i+1), 0, p)
			}
			if text, _, err = confinfo.Info(r.layout, r.entriesLocked(mine[:min(len(mine), n)])); err != nil {
				return infoPause, err
			}
		}
		bytes += s.state(text)
	}
	return max(infoPause, time.Duration(bytes)*time.Second/infoRate), nil
}

// entriesLocked are the host and the participants. The caller holds r.mu.
func (r *jamiRoom) entriesLocked(list []*contract.Participant) []confinfo.Participant {
	out := make([]confinfo.Participant, 0, 1+len(list))
	out = append(out, confinfo.Host(r.account))
	for _, p := range list {
		out = append(out, entry(p, r.active, r.recording[p.ID]))
	}
	return out
}

// state gives a participant the state to be told next, in place of one that it was not told
// yet, and returns the bytes of it.
func (s *jamiSeat) state(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == s.said {
		s.info = ""
		return 0
	}
	s.info = text
	poke(s.wake)
	return len(text)
}

// text queues a message of the chat: a Jami peer shows its host as who wrote it, so the name
// stands before it.
func (s *jamiSeat) text(c *contract.ChatMessage) {
	b := c.Name + ": " + c.Body
	if len(b) > maxText {
		b = b[:maxText]
		for len(b) > 0 && !utf8.ValidString(b) {
			b = b[:len(b)-1]
		}
		b += "…"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.texts) < maxTexts {
		s.texts = append(s.texts, b)
	}
	poke(s.wake)
}

// next takes what is to be said now: chat first.
func (s *jamiSeat) next() (sip.Message, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.texts) > 0:
		t := s.texts[0]
		s.texts = s.texts[1:]
		return sip.Message{Type: "text/plain", Body: t}, true
	case s.info != "":
		s.said, s.info = s.info, ""
		return sip.Message{Type: confinfo.InfoType, Body: s.said}, true
	}
	return sip.Message{}, false
}

// speak says to a participant what there is to say, one after the other.
func (r *jamiRoom) speak(ctx context.Context, s *jamiSeat) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		for m, ok := s.next(); ok && ctx.Err() == nil; m, ok = s.next() {
			sctx, cancel := context.WithTimeout(ctx, sayTime)
			err := r.in.say(sctx, s.id, m)
			cancel()
			switch {
			case errors.Is(err, sip.ErrNoCall):
				r.leave(s.id)
				return
			case err != nil && ctx.Err() == nil:
				r.in.log.Info("a Jami peer was not told", zap.String("participant", s.id), zap.String("type", m.Type), zap.Error(err))
			}
		}
	}
}
