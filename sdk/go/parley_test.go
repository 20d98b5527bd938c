package parley_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

// room is conference and media as a bot sees them.
type room struct {
	t    *testing.T
	conf *bus.Conn

	mu     sync.Mutex
	events []contract.RoomEvent
	busy   int // how many commands are refused first
	asked  int
	keys   map[string]bool
	joins  int
}

// start runs a bus, the room and a bot in it.
func start(t *testing.T) (*room, *parley.Room, *bustest.Server) {
	t.Helper()
	s := bustest.Start(t)
	r := &room{t: t, conf: s.Conn("conference"), keys: map[string]bool{}}
	svc, err := bus.NewService(r.conf, "conference", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = errors.Join(
		bus.Serve(svc, contract.RoomGet, func(context.Context, *bus.Request[contract.None]) (*contract.Joined, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return &contract.Joined{Seq: uint64(len(r.events))}, nil
		}),
		bus.Serve(svc, contract.RoomJoin, func(_ context.Context, q *bus.Request[contract.Join]) (*contract.Joined, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.joins++
			return &contract.Joined{Participant: contract.Participant{ID: q.Param(2)}, Seq: uint64(len(r.events))}, nil
		}),
		bus.Serve(svc, contract.RoomLeave, func(context.Context, *bus.Request[contract.Leave]) (*contract.None, error) {
			return &contract.None{}, nil
		}),
		bus.Serve(svc, contract.RoomReplay, func(_ context.Context, q *bus.Request[contract.Replay]) (*contract.Replayed, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			from := min(max(int(q.Body.From), 1), len(r.events)+1)
			to := min(from+2, len(r.events)) // small pages
			return &contract.Replayed{Events: r.events[from-1 : to], Next: uint64(to + 1), More: to < len(r.events)}, nil
		}),
		bus.Serve(svc, contract.RoomListen, func(_ context.Context, q *bus.Request[contract.Listen]) (*contract.Listen, error) {
			return &q.Body, nil
		}),
		bus.Serve(svc, contract.RoomHand, func(_ context.Context, q *bus.Request[contract.HandChange]) (*contract.Participant, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.asked++
			r.keys[q.Key] = true
			if r.asked <= r.busy {
				return nil, contract.ErrBusy
			}
			return &contract.Participant{ID: q.Param(2)}, nil
		}),
		bus.Serve(svc, contract.RoomLock, func(context.Context, *bus.Request[contract.LockChange]) (*contract.RoomSettings, error) {
			return nil, contract.ErrForbidden
		}))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.conf.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	g, kp := s.Grant("echo", "main", contract.Rights...)
	bot, err := parley.Connect(parley.Options{URL: s.URL(), Account: bustest.Account, Room: "main", Name: "echo", NATS: []nats.Option{bustest.BotAuth(g, kp)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bot.Close)
	return r, bot, s
}

// happen keeps n events and publishes those that tell says yes to.
func (r *room) happen(n int, tell func(seq uint64) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range n {
		e := contract.RoomEvent{Seq: uint64(len(r.events) + 1), Type: contract.EventDigit, Room: "main"}
		r.events = append(r.events, e)
		if !tell(e.Seq) {
			continue
		}
		for range 1 + e.Seq%2 { // every other one comes twice
			if err := bus.Publish(context.Background(), r.conf, contract.RoomEvents, &e, "main", string(e.Type)); err != nil {
				r.t.Error(err)
			}
		}
	}
}

func TestEventsHaveNoGapAndNoDuplicate(t *testing.T) {
	r, bot, _ := start(t)
	r.happen(7, func(uint64) bool { return false }) // before it looks
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	next := uint64(3)
	err := bot.Events(ctx, next, func(e contract.RoomEvent) {
		if e.Seq != next {
			t.Errorf("event %d, want %d", e.Seq, next)
		}
		next++
		switch e.Seq {
		case 7:
			go r.happen(20, func(seq uint64) bool { return seq%5 == 0 }) // most are lost on the way
		case 25:
			stop()
		}
	})
	if !errors.Is(err, context.Canceled) || next < 26 {
		t.Fatalf("ended before %d: %v", next, err)
	}
}

func TestEventsFromNowOn(t *testing.T) {
	r, bot, _ := start(t)
	r.happen(7, func(uint64) bool { return true }) // before it looks
	if err := r.conf.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var got []uint64
	go func() {
		for ctx.Err() == nil { // the first may be before it listens
			r.happen(1, func(uint64) bool { return true })
			time.Sleep(20 * time.Millisecond)
		}
	}()
	err := bot.Events(ctx, 0, func(e contract.RoomEvent) {
		if got = append(got, e.Seq); len(got) == 5 {
			stop()
		}
	})
	if !errors.Is(err, context.Canceled) || got[0] < 8 || got[4] != got[0]+4 {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestCommandsAreRepeatedWithOneKey(t *testing.T) {
	r, bot, _ := start(t)
	r.busy = 2
	if _, err := parley.Call(t.Context(), bot, contract.RoomHand, contract.HandChange{Raised: true}); err != nil {
		t.Fatal(err)
	}
	if r.asked != 3 || len(r.keys) != 1 {
		t.Fatalf("asked %d times with %d keys", r.asked, len(r.keys))
	}
	_, err := parley.Call(t.Context(), bot, contract.RoomLock, contract.LockChange{Locked: true})
	if !errors.Is(err, contract.ErrForbidden) {
		t.Fatalf("a refusal: %v", err)
	}
}

func TestSlowBotLosesTheOldest(t *testing.T) {
	_, bot, s := start(t)
	media := s.Conn("media").NATS()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	audio, err := bot.Listen(ctx, contract.Listen{Speakers: contract.FormatPCM16, Mix: contract.FormatOpus}, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer audio.Close()
	send := func(subject string, seq int) {
		m := nats.NewMsg(subject)
		m.Header.Set(contract.HeaderSeq, fmt.Sprint(seq))
		m.Header.Set(contract.HeaderSpeaker, "p1")
		m.Header.Set(contract.HeaderLevel, "23")
		m.Header.Set(contract.HeaderVoice, "1")
		m.Data = []byte{1, 2}
		if err := media.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	const frames = 2000
	from := contract.AudioFrom.Subject(bustest.Account, "main", "p1", contract.FormatPCM16)
	for i := range frames {
		send(from, i+1)
	}
	got, dropped := 0, 0
	for last := uint64(0); last < frames; got++ {
		f, err := audio.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if f.Seq <= last || f.Mix || f.Speaker != "p1" || f.Level != 23 || !f.Voice || len(f.Data) != 2 {
			t.Fatalf("frame %+v after %d", f, last)
		}
		dropped, last = dropped+f.Dropped, f.Seq
		if _, err := parley.Call(ctx, bot, contract.RoomGet, contract.None{}); err != nil { // a slow bot
			t.Fatal(err)
		}
	}
	if got+dropped != frames || dropped == 0 {
		t.Fatalf("%d read and %d dropped of %d", got, dropped, frames)
	}
	send(contract.AudioMix.Subject(bustest.Account, "main", contract.FormatOpus), 1)
	if f, err := audio.Read(ctx); err != nil || !f.Mix {
		t.Fatalf("the mix: %+v, %v", f, err)
	}
	audio.Close()
	if _, err := audio.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("read after the end: %v", err)
	}
}

func TestConnectionErrorsSayWhatToDo(t *testing.T) {
	s := bustest.Start(t)
	_, kp := s.Grant("echo", "main", contract.Rights...)
	stranger, _ := bustest.Start(t).Grant("echo", "main", contract.Rights...)
	for url, words := range map[string]string{s.URL(): "made for another node", "nats://127.0.0.1:1": "is the node running"} {
		_, err := parley.Connect(parley.Options{URL: url, Account: bustest.Account, Room: "main", Name: "echo", NATS: []nats.Option{bustest.BotAuth(stranger, kp)}})
		if err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), url) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := parley.Connect(parley.Options{Creds: "none.creds"}); err == nil || !strings.Contains(err.Error(), "none.creds") || !strings.Contains(err.Error(), "parley bot create") {
		t.Errorf("%v", err)
	}
}

func TestSay(t *testing.T) {
	_, bot, s := start(t)
	media := s.Conn("media").NATS()
	sub, err := media.Subscribe(contract.AudioSay.Subject(bustest.Account, "main", "*"), func(m *nats.Msg) {
		reply := fmt.Sprintf(`{"queued_ms":%d,"dropped":0}`, len(m.Data)/96)
		if m.Header.Get(contract.HeaderClear) == "1" {
			reply = `{"queued_ms":0,"dropped":0}`
		}
		if err := m.Respond([]byte(reply)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := media.Flush(); err != nil {
		t.Fatal(err)
	}
	if queued, _, err := bot.Say(t.Context(), contract.FormatPCM48, make([]byte, 1920)); err != nil || queued != 20*time.Millisecond {
		t.Fatalf("say: %s, %v", queued, err)
	}
	if err := bot.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The end of the wait does not hide what the node refused with.
func TestTheLastRefusalIsTold(t *testing.T) {
	r, bot, _ := start(t)
	r.mu.Lock()
	r.busy = 1 << 30
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := parley.Call(ctx, bot, contract.RoomHand, contract.HandChange{Raised: true}); !errors.Is(err, contract.ErrBusy) {
		t.Errorf("%v", err)
	}
}
