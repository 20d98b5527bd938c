package identity

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// How much may be written to the account: by a device, and by all strangers together. What is more comes
// again with the next lease, for as long as it lies there.
const (
	hearRate, hearBurst         = 1, 30 // a second, at once
	strangersRate, strangerOnce = 1, 20
)

// How much the account may write, a second and at once, and what may wait.
const (
	sayRate, sayBurst = 10, 100
	maxMessages       = 256
	maxLanes          = 64 // accounts that are written to at once
)

// Times of messages.
const (
	messageTime = 10 * time.Minute // a message is tried; one put into the overlay lies there as long
	awaitTime   = time.Minute      // a confirmation is listened for (§3.8)
	devicesTime = 30 * time.Second // the devices of an account are not looked up again
	sweepEvery  = 5 * time.Second
)

// messageTries bounds how often a message is tried of which some devices have one copy.
const messageTries = 3

// Bounds of confirmations: devices at whose inboxes they are listened for, and how large one may be;
// those that wait to be sent.
const (
	maxAwaited   = 64
	maxAnswer    = 4 << 10
	answersAhead = 64
)

// outMessage is a message that is sent.
type outMessage struct {
	id    uint64
	to    jami.ID
	typ   string
	body  string
	began time.Time
	done  map[jami.ID]bool // devices that have it
}

// lane is the messages to one account, in order. Its goroutine alone touches what is below
// queue.
type lane struct {
	queue   []*outMessage // under messenger.mu
	to      jami.ID
	devices []*trust.Chain
	missing int
	found   time.Time // when devices were looked up
}

// receipt is what a device confirms.
type receipt struct {
	device jami.ID
	id     uint64
}

type awaited struct {
	to      jami.ID
	expires time.Time
}

type answer struct {
	to *trust.Chain
	id uint64
}

// messenger sends messages and confirms what came. It is safe for concurrent use.
type messenger struct {
	b         *inbox
	writers   *pace
	strangers *rate.Limiter
	saying    *rate.Limiter
	begun     chan *lane
	answers   chan answer

	mu      sync.Mutex
	lanes   map[jami.ID]*lane
	queued  int
	awaits  map[receipt]awaited
	watched map[jami.ID]int // devices: how many of awaits are theirs
}

func newMessenger(b *inbox) *messenger {
	return &messenger{b: b, writers: newPace(hearRate, hearBurst), strangers: rate.NewLimiter(strangersRate, strangerOnce), saying: rate.NewLimiter(sayRate, sayBurst),
		begun: make(chan *lane, maxLanes), answers: make(chan answer, answersAhead),
		lanes: map[jami.ID]*lane{}, awaits: map[receipt]awaited{}, watched: map[jami.ID]int{}}
}

// send has a message sent. The errors are [contract.ErrSlowDown] and [contract.ErrFull].
func (m *messenger) send(o *outMessage) error {
	o.began = m.b.s.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lanes[o.to]
	switch {
	case m.queued >= maxMessages, l == nil && len(m.lanes) >= maxLanes:
		return contract.ErrFull.With("%d messages to %d accounts wait to be sent; try again", m.queued, len(m.lanes))
	case !m.saying.Allow():
		return contract.ErrSlowDown.With("too many messages at once; wait a little")
	}
	m.queued++
	if l == nil {
		l = &lane{to: o.to}
		m.lanes[o.to] = l
		m.begun <- l // as many have place
	}
	l.queue = append(l.queue, o)
	return nil
}

// answer confirms a message, unless very many are to be: then it is sent again.
func (m *messenger) answer(to *trust.Chain, id uint64) {
	select {
	case m.answers <- answer{to, id}:
	default:
	}
}

// run sends until ctx ends.
func (m *messenger) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { m.answerAll(ctx) })
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-m.begun:
			wg.Go(func() { m.work(ctx, l) })
		case <-sweep.C:
			m.sweep(m.b.s.now())
		}
	}
}

// work sends what is in a lane until it is empty.
func (m *messenger) work(ctx context.Context, l *lane) {
	for {
		m.mu.Lock()
		if len(l.queue) == 0 || ctx.Err() != nil {
			m.queued -= len(l.queue)
			delete(m.lanes, l.to)
			m.mu.Unlock()
			return
		}
		o := l.queue[0]
		m.mu.Unlock()
		m.deliver(ctx, l, o)
		m.mu.Lock()
		l.queue = l.queue[1:]
		m.queued--
		m.mu.Unlock()
	}
}

// deliver tries a message until all devices have it, or it is given up.
func (m *messenger) deliver(ctx context.Context, l *lane, o *outMessage) {
	s := m.b.s
	wait := s.pause
	for tries := 1; ; tries++ {
		err := m.try(ctx, l, o)
		if ctx.Err() != nil {
			return
		}
		s.metrics.send(sentMessage, err)
		st := &contract.MessageState{ID: jami.MessageID(o.id), To: o.to.String(), Devices: len(o.done)}
		final := errors.Is(err, errBlocked) || errors.Is(err, jami.ErrTooLarge) || errors.Is(err, errShutOut)
		switch late := s.now().Sub(o.began) >= s.messageTime; {
		case err == nil, len(o.done) > 0 && (tries >= messageTries || final || late):
			st.State = contract.MessageSent
		case final || late:
			st.State, st.Why = contract.MessageFailed, err.Error()
		}
		if err != nil {
			s.env.Log.Log(tryLevel(tries, st.State == ""), "message has not reached all devices", zap.String("account", s.id()), zap.Stringer("to", o.to), zap.Int("devices", len(o.done)),
				zap.Int("tries", tries), zap.Bool("again", st.State == ""), zap.Error(err))
		}
		if st.State != "" {
			m.tell(ctx, st)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			wait = min(2*wait, retryMost)
		}
	}
}

// tryLevel is the level of a try that failed: what is tried again and again is told when it begins
// and when it is given up.
func tryLevel(tries int, again bool) zapcore.Level {
	if tries > 1 && again {
		return zap.DebugLevel
	}
	return zap.InfoLevel
}

func (m *messenger) tell(ctx context.Context, st *contract.MessageState) {
	if err := bus.Publish(ctx, m.b.s.conn, contract.MessageStates, st, st.To); err != nil {
		m.b.s.env.Log.Warn("state of a message not published", zap.String("id", st.ID), zap.Error(err))
	}
}

// errShutOut says that this device may not sign any more.
var errShutOut = errors.New("this device was revoked")

// try sends a message to the devices that lack it.
func (m *messenger) try(ctx context.Context, l *lane, o *outMessage) error {
	s := m.b.s
	if s.acc.Revoked() != nil {
		return errShutOut
	}
	if c, _ := s.acc.Contact(o.to); c.Blocked() {
		return errBlocked
	}
	m.say(ctx, o)
	if now := s.now(); len(l.devices) == 0 || l.missing > 0 || now.Sub(l.found) > devicesTime {
		devices, missing, err := s.devicesOf(ctx, o.to)
		if err != nil {
			return err
		}
		l.devices, l.missing, l.found = devices, missing, now
	}
	if len(l.devices)+l.missing == 0 && len(o.done) == 0 {
		return errNoDevice
	}
	data, err := (&jami.ImMessage{ID: o.id, Text: o.body, Date: s.now().Unix(), DataType: o.typ}).Pack()
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range l.devices {
		if o.done[d.DeviceShort] {
			continue
		}
		m.await(d.DeviceShort, o)
		if _, err := s.post(ctx, d, jami.TypeImMessage, data); err != nil {
			errs = append(errs, err)
			continue
		}
		o.done[d.DeviceShort] = true
	}
	if l.missing > 0 {
		errs = append(errs, errNotThere)
	}
	return errors.Join(errs...)
}

// say sends a message on the connections that connect has with the account's devices. The
// others get it through the overlay, as all do where connect does not answer.
func (m *messenger) say(ctx context.Context, o *outMessage) {
	s := m.b.s
	q := &contract.PeerText{To: o.to.String(), ID: jami.MessageID(o.id), Type: o.typ, Body: o.body}
	for d := range o.done {
		q.Skip = append(q.Skip, d.String())
	}
	told, err := bus.Call(ctx, s.conn, contract.PeerSay, q)
	if err != nil {
		s.env.Log.Debug("message goes through the overlay alone", zap.String("id", q.ID), zap.Error(err))
		return
	}
	for _, t := range told.Devices {
		short, err := jami.ParseID(t.Short)
		if err != nil || o.done[short] {
			continue
		}
		o.done[short] = true
		s.env.Log.Debug("message sent on a connection", zap.String("id", q.ID), zap.String("device", t.Device), zap.Bool("confirmed", t.Confirmed))
		if t.Confirmed {
			m.tell(ctx, &contract.MessageState{ID: q.ID, To: q.To, State: contract.MessageDelivered, Device: t.Device})
		}
	}
}

// await listens for a device's confirmation, which it puts at its own inbox (§3.8).
func (m *messenger) await(device jami.ID, o *outMessage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := receipt{device, o.id}
	if _, had := m.awaits[r]; !had {
		if m.watched[device] == 0 && len(m.watched) >= maxAwaited {
			return
		}
		m.watched[device]++
	}
	m.awaits[r] = awaited{o.to, m.b.s.now().Add(awaitTime)}
	m.b.watch.add(jami.InboxKey(device), m.offer)
}

// offer takes what may be a confirmation from the inbox of another device, where most is for that.
func (m *messenger) offer(v contract.DHTValue, gone bool) (had bool) {
	if len(v.Data) > maxAnswer {
		return true
	}
	return m.b.offer(v, gone)
}

// confirmed notes that a device has a message; false: that was not waited for.
func (m *messenger) confirmed(ctx context.Context, device jami.ID, long jami.LongID, id uint64) bool {
	r := receipt{device, id}
	m.mu.Lock()
	w, ok := m.awaits[r]
	if ok {
		m.forgetLocked(r)
	}
	m.mu.Unlock()
	if ok {
		m.tell(ctx, &contract.MessageState{ID: jami.MessageID(id), To: w.to.String(), State: contract.MessageDelivered, Device: long.String()})
	}
	return ok
}

func (m *messenger) forgetLocked(r receipt) {
	delete(m.awaits, r)
	if m.watched[r.device]--; m.watched[r.device] == 0 {
		delete(m.watched, r.device)
		m.b.watch.remove(jami.InboxKey(r.device))
	}
}

// sweep no longer waits for what did not come.
func (m *messenger) sweep(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for r, w := range m.awaits {
		if now.After(w.expires) {
			m.forgetLocked(r)
		}
	}
}

// answerAll confirms messages until ctx ends.
func (m *messenger) answerAll(ctx context.Context) {
	s := m.b.s
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-m.answers:
			if s.acc.Revoked() != nil {
				continue
			}
			data, err := (&jami.ImMessage{ID: a.id, Date: s.now().Unix()}).Pack()
			if err == nil {
				_, err = s.postAt(ctx, jami.InboxKey(s.acc.Chain.DeviceShort), a.to, &jami.Value{Type: jami.TypeImMessage, Data: data})
			}
			s.metrics.send(sentAnswer, err)
			if err != nil && ctx.Err() == nil {
				s.env.Log.Info("message not confirmed; it may come again", zap.Stringer("device", a.to.DeviceShort), zap.Error(err))
			}
		}
	}
}
