package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/confinfo"
	"github.com/parley-jami/parley/services/connect/sip"
)

const (
	annID  = "aa23456789abcdef0123456789abcdef01234567"
	annPC  = "aa23456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	workID = "bb23456789abcdef0123456789abcdef01234567"
)

// hall plays conference and identity for the room main.
type hall struct {
	t      *testing.T
	j      *jamiRooms
	said   chan string // to whom, and what
	orders chan string

	mu     sync.Mutex
	joined contract.Joined
	gone   map[string]bool
}

func served[Q, A any](h *hall, svc *bus.Service, cmd contract.Command[Q, A], what string) error {
	return bus.Serve(svc, cmd, func(_ context.Context, q *bus.Request[Q]) (*A, error) {
		raw, err := json.Marshal(q.Body)
		h.orders <- q.Param(2) + " " + what + " " + string(raw)
		return new(A), err
	})
}

func newHall(t *testing.T, ps ...contract.Participant) *hall {
	t.Helper()
	b := bustest.Start(t)
	h := &hall{t: t, said: make(chan string, 256), orders: make(chan string, 64), gone: map[string]bool{}, joined: contract.Joined{Seq: 10, Room: contract.Room{Participants: ps}}}
	svc, err := bus.NewService(b.Conn("conference"), "conference", "0.0.0-test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	idsvc, err := bus.NewService(b.Conn("identity"), "identity", "0.0.0-test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(idsvc.Stop)
	err = errors.Join(
		bus.Serve(idsvc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
			return &contract.IdentityState{Accounts: []contract.Account{{ID: bustest.Account, DeviceShort: "d1"}, {ID: workID, DeviceShort: "d2"}, {ID: annID}}}, nil
		}),
		bus.Serve(svc, contract.RoomListCmd, func(context.Context, *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
			list := &contract.RoomList{}
			for _, n := range []string{"main", "office", "desk"} {
				r := contract.Room{RoomSettings: contract.RoomSettings{Name: n}}
				if n != "main" {
					r.Account = workID
				}
				list.Rooms = append(list.Rooms, r)
			}
			return list, nil
		}),
		bus.Serve(svc, contract.RoomGet, func(context.Context, *bus.Request[contract.None]) (*contract.Joined, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			out := h.joined
			return &out, nil
		}),
		served(h, svc, contract.RoomMute, "mute"), served(h, svc, contract.RoomHand, "hand"), served(h, svc, contract.RoomKick, "kick"),
		served(h, svc, contract.RoomPress, "press"), served(h, svc, contract.RoomChat, "chat"),
	)
	if err != nil {
		t.Fatal(err)
	}
	h.j = newJamiRooms(b.Conn("connect"), "main", zap.NewNop())
	h.j.say = func(_ context.Context, id string, m sip.Message) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.gone[id] {
			return sip.ErrNoCall
		}
		h.said <- id + " " + m.Type + " " + m.Body
		return nil
	}
	t.Cleanup(h.j.close)
	return h
}

// told waits for a state that id is told, in which is is true.
func (h *hall) told(id, what string, is func(map[string]confinfo.Participant, int) bool) {
	h.t.Helper()
	limit := time.After(5 * time.Second)
	last := ""
	for {
		select {
		case m := <-h.said:
			text, ok := strings.CutPrefix(m, id+" "+confinfo.InfoType+" ")
			if !ok {
				continue
			}
			last = text
			var s struct {
				Layout int
				P      []confinfo.Participant
			}
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				h.t.Fatal(err)
			}
			by := map[string]confinfo.Participant{}
			for _, p := range s.P {
				u, _, _ := strings.Cut(p.URI, "@")
				by[u] = p
			}
			if is(by, s.Layout) {
				return
			}
		case <-limit:
			h.t.Fatalf("%s was not told of %s; the last state is %s", id, what, last)
		}
	}
}

func (h *hall) ordered(want ...string) {
	h.t.Helper()
	for _, w := range want {
		select {
		case got := <-h.orders:
			if got != w {
				h.t.Errorf("ordered %q, want %q", got, w)
			}
		case <-time.After(5 * time.Second):
			h.t.Fatalf("nobody ordered %q", w)
		}
	}
}

func (h *hall) event(seq uint64, typ contract.EventType, p contract.Participant) {
	h.j.event(&contract.RoomEvent{Seq: seq, Room: "main", Type: typ, Participant: &p})
}

func ann() contract.Participant {
	return contract.Participant{ID: "jami-1", Name: "Ann", Kind: contract.KindJami, JamiID: annID, JamiDevice: annPC, Role: contract.RoleModerator}
}

func bob() contract.Participant {
	return contract.Participant{ID: "web-1", Name: "b@b", Kind: contract.KindBrowser, Role: contract.RoleSpeaker}
}

func TestWhatAJamiCallerCalls(t *testing.T) {
	h := newHall(t)
	for account, want := range map[string]sip.Called{bustest.Account: {Room: "main", Device: "d1"}, workID: {Room: "desk", Device: "d2"}} {
		id, err := jami.ParseID(account)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.j.Called(t.Context(), id); err != nil || got != want {
			t.Errorf("%s: %+v, %v", account, got, err)
		}
	}
	for _, account := range []string{annID, "cc23456789abcdef0123456789abcdef01234567"} { // without a room; not ours
		id, err := jami.ParseID(account)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.j.Called(t.Context(), id); !errors.Is(err, contract.ErrNotFound) {
			t.Errorf("%s: %+v, %v", account, got, err)
		}
	}
}

func TestJamiPeersSeeTheRoom(t *testing.T) {
	h := newHall(t, ann(), bob())
	h.j.Entered("main", "jami-1")
	h.told("jami-1", "all", func(ps map[string]confinfo.Participant, _ int) bool {
		host, a, b := ps[bustest.Account], ps[annID], ps["b b (browser)"]
		return len(ps) == 3 && host.IsModerator && host.W == 0 && a.Device == annPC && a.IsModerator && a.SinkID == "jami-1_audio_0" && b.Device == "web-1" && b.VideoMuted && !b.IsModerator
	})
	b := bob()
	b.Muted, b.MutedBy, b.Speaking = true, "jami-1", true
	h.event(11, contract.EventChanged, b)
	h.told("jami-1", "the mute", func(ps map[string]confinfo.Participant, _ int) bool {
		e := ps["b b (browser)"]
		return e.AudioModeratorMuted && !e.AudioLocalMuted && e.VoiceActivity
	})
	h.event(11, contract.EventChanged, bob()) // seen
	h.event(12, contract.EventLeft, bob())
	h.told("jami-1", "who left", func(ps map[string]confinfo.Participant, _ int) bool { return len(ps) == 2 })

	// A gap: the roster is read again.
	h.mu.Lock()
	h.joined.Seq = 20
	h.mu.Unlock()
	h.event(20, contract.EventChanged, ann())
	h.told("jami-1", "what was missed", func(ps map[string]confinfo.Participant, _ int) bool { return len(ps) == 3 })

	h.j.event(&contract.RoomEvent{Seq: 21, Room: "main", Type: contract.EventChat, Chat: &contract.ChatMessage{From: "web-1", Name: "b@b", Body: "hello"}})
	h.j.event(&contract.RoomEvent{Seq: 22, Room: "main", Type: contract.EventChat, Chat: &contract.ChatMessage{From: "jami-1", Name: "Ann", Body: "to myself"}})
	select {
	case m := <-h.said:
		if m != "jami-1 text/plain b@b: hello" {
			t.Errorf("said %q", m)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no chat")
	}
	h.event(23, contract.EventLeft, ann())
	eventuallyJami(t, "the room is forgotten", func() bool { return h.j.room("main") == nil })
}

func eventuallyJami(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 5 s: %s", what)
		}
	}
}

func TestJamiOrders(t *testing.T) {
	h := newHall(t, ann(), bob())
	h.j.Entered("main", "jami-1")
	h.told("jami-1", "all", func(ps map[string]confinfo.Participant, _ int) bool { return len(ps) == 3 })
	order := func(text string) {
		h.j.Heard("main", "jami-1", sip.Message{Type: "application/confOrder+json", Body: text}, func() {})
	}
	order(`{"b b (browser)":{"devices":{"web-1":{"medias":{"web-1_audio_0":{"muteAudio":true}}}},"medias":{"web-1_audio_0":{"muteAudio":true}}},"version":1}`)
	order(`{"` + annID + `":{"devices":{"` + annPC + `":{"raiseHand":true}}},"version":1}`)
	order(`{"handRaised":"` + annID + `","handState":"false"}`)
	order(`{"hangupParticipant":"b b (browser)"}`)
	order(`{"hangupParticipant":"` + bustest.Account + `"}`) // the host has no leg
	order(`not one`)
	h.j.Heard("main", "jami-1", sip.Message{Type: confinfo.ControlType, Body: "<mute_state=1/>"}, func() {})
	h.j.Heard("main", "jami-1", sip.Message{Type: confinfo.KeyType, Body: "Signal=5\r\nDuration=150\r\n"}, func() {})
	done := make(chan struct{})
	h.j.Heard("main", "jami-1", sip.Message{Type: "text/plain;charset=utf-8", Body: "hi"}, func() { close(done) })
	select {
	case <-done: // acted upon
	case <-time.After(5 * time.Second):
		t.Error("a text is kept for the next process after it was in the chat")
	}
	h.j.Heard("main", "jami-1", sip.Message{Type: "x-ring/ring.profile.vcard;id=1,part=1,of=1", Body: "BEGIN:VCARD"}, func() {})
	h.ordered(`jami-1 mute {"participant":"web-1","muted":true}`, `jami-1 hand {"participant":"jami-1","raised":true}`, `jami-1 hand {"participant":"jami-1","raised":false}`,
		`jami-1 kick {"participant":"web-1"}`, `jami-1 mute {"muted":true}`, `jami-1 press {"digit":"5"}`, `jami-1 chat {"body":"hi"}`)
	h.j.Heard("main", "jami-1", sip.Message{Type: confinfo.ControlType, Body: "<recording_state=1/>"}, func() {})
	order(`{"layout":1}`)
	order(`{"b b (browser)":{"medias":{"web-1_audio_0":{"active":true}}},"version":1}`)
	h.told("jami-1", "recording, layout and who is active", func(ps map[string]confinfo.Participant, layout int) bool {
		return ps[annID].Recording && layout == 1 && ps["b b (browser)"].Active
	})

	// Who is no moderator chooses nothing for all.
	a := ann()
	a.Role = contract.RoleSpeaker
	h.event(11, contract.EventChanged, a)
	h.told("jami-1", "the role", func(ps map[string]confinfo.Participant, _ int) bool { return !ps[annID].IsModerator })
	order(`{"layout":0}`)
	a.Hand = new(time.Time)
	order(`{"handRaised":"` + annID + `","handState":"true"}`)
	h.ordered(`jami-1 hand {"participant":"jami-1","raised":true}`)
	h.event(12, contract.EventChanged, a)
	h.told("jami-1", "the hand", func(ps map[string]confinfo.Participant, layout int) bool {
		if layout != 1 {
			t.Error("a speaker chose the layout")
		}
		return ps[annID].HandRaised
	})
	select {
	case got := <-h.orders:
		t.Errorf("ordered %q too", got)
	default:
	}
}

// Of a large room each peer is told as many as it can read, itself among them, and not more
// often than what all of it takes allows.
func TestLargeRoomsInBoundedBytes(t *testing.T) {
	var ps []contract.Participant
	for i := range 500 {
		p := ann()
		p.ID, p.JamiID, p.Role, p.Joined = fmt.Sprintf("jami-%03d", i), fmt.Sprintf("%040x", i), contract.RoleSpeaker, time.Unix(int64(i), 0)
		ps = append(ps, p)
	}
	ps[400].Hand = new(time.Time)
	h := newHall(t, ps...)
	h.j.say = func(context.Context, string, sip.Message) error { return nil }
	r := newJamiRoom(h.j, "main")
	if err := r.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range ps {
		r.seats[ps[i].ID] = &jamiSeat{id: ps[i].ID, wake: make(chan struct{}, 1)}
	}
	pause, err := r.tell()
	if err != nil {
		t.Fatal(err)
	}
	bytes := 0
	for i := range ps {
		text := r.seats[ps[i].ID].info
		bytes += len(text)
		if len(text) > confinfo.MaxInfo || !strings.Contains(text, ps[i].JamiID) || !strings.Contains(text, ps[400].JamiID) {
			t.Fatalf("%s is told %s", ps[i].ID, text)
		}
	}
	if rate := float64(bytes) / pause.Seconds(); rate > infoRate*1.01 {
		t.Errorf("%d bytes every %v", bytes, pause)
	}
	t.Logf("500 Jami participants: %d bytes every %v", bytes, pause)
	for _, s := range r.seats {
		s.next()
	}
	if pause, err = r.tell(); err != nil || pause != infoPause {
		t.Errorf("nothing new: the next one waits %v, %v", pause, err)
	}
}

func TestSeatsOfCallsThatEnded(t *testing.T) {
	h := newHall(t, ann())
	h.gone["jami-1"] = true
	h.j.Entered("main", "jami-1")
	eventuallyJami(t, "the room is forgotten", func() bool { return h.j.room("main") == nil })
	h.j.Heard("main", "jami-1", sip.Message{Type: "text/plain", Body: "hi"}, func() {}) // no room: nothing
}
