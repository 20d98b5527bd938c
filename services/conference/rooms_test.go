// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

func TestJoinTalkLeave(t *testing.T) {
	w := newWorld(t)
	j := w.join("main", "ann")
	if j.SDP != "answer to offer of ann" || j.Participant.ID != "ann" || j.Participant.Codec != "opus" || len(j.Room.Participants) != 1 {
		t.Fatalf("joined %+v", j)
	}
	if j.Room.ModeratorToken != "" {
		t.Error("a participant sees the moderator token")
	}
	if e := w.wait(contract.EventJoined, "ann"); e.Seq != j.Seq {
		t.Errorf("joined event %d, snapshot of %d", e.Seq, j.Seq)
	}
	again := w.join("main", "ann")
	if len(again.Room.Participants) != 1 {
		t.Errorf("joined twice: %+v", again.Room.Participants)
	}
	w.media.connect("main", "ann")
	w.until("connected", func() bool { return connected(w.get("main")) == 1 })
	must(w, contract.RoomLeave, &contract.Leave{}, "main", "ann")
	if e := w.wait(contract.EventLeft, "ann"); e.Reason != contract.ReasonLeft {
		t.Errorf("reason %q", e.Reason)
	}
	w.until("the leg is closed", func() bool { _, ok := w.media.leg("ann"); return !ok })
	must(w, contract.RoomLeave, &contract.Leave{}, "main", "ann")
}

func TestGates(t *testing.T) {
	w := newWorld(t)
	made := must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "pin", PIN: "123456", SIPAuth: true, Max: 2, DefaultRole: contract.RoleListener})
	if made.ModeratorToken == "" || !made.HasPIN {
		t.Fatalf("made %+v", made)
	}
	_, err := call(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "pin"})
	wantCode(t, err, contract.ErrExists)
	_, err = call(w, contract.RoomJoin, browser("ann"), "nowhere", "ann")
	wantCode(t, err, contract.ErrNotFound)

	j := browser("ann")
	_, err = call(w, contract.RoomJoin, j, "pin", "ann")
	wantCode(t, err, contract.ErrPINRequired)
	j.PIN = "123456"
	if got := must(w, contract.RoomJoin, j, "pin", "ann"); got.Participant.Role != contract.RoleListener {
		t.Errorf("role %s", got.Participant.Role)
	}
	if l, _ := w.media.leg("ann"); l.CanSpeak {
		t.Error("a listener's leg may speak")
	}
	mod := browser("mia")
	mod.Token = made.ModeratorToken
	if got := must(w, contract.RoomJoin, mod, "pin", "mia"); got.Participant.Role != contract.RoleModerator {
		t.Errorf("role %s", got.Participant.Role)
	}
	full := browser("zoe")
	full.PIN = "123456"
	_, err = call(w, contract.RoomJoin, full, "pin", "zoe")
	wantCode(t, err, contract.ErrFull)

	must(w, contract.RoomRole, &contract.RoleChange{Participant: "ann", Role: contract.RoleSpeaker}, "pin", "mia")
	w.until("ann may speak", func() bool { l, _ := w.media.leg("ann"); return l.CanSpeak })
	must(w, contract.RoomLock, &contract.LockChange{Locked: true}, "pin", "mia")
	must(w, contract.RoomKick, &contract.Target{Participant: "ann"}, "pin", "mia")
	j2 := browser("bob")
	j2.PIN = "123456"
	_, err = call(w, contract.RoomJoin, j2, "pin", "bob")
	wantCode(t, err, contract.ErrLocked)

	w.ident.setRendezvous(false)
	w.until("rendezvous is off", func() bool { a, _ := w.conf.s.account(""); return !a.Rendezvous })
	_, err = call(w, contract.RoomJoin, browser("x"), "main", "x")
	wantCode(t, err, contract.ErrRendezvous)
	face := must(w, contract.RoomFaceCmd, &contract.RoomRef{Room: "pin"})
	if !face.PIN || !face.Locked || !face.SIPAuth {
		t.Errorf("face %+v", face)
	}
	sip := must(w, contract.RoomSIPSecret, &contract.SIPSecret{Realm: "parley"}, "pin")
	if sip.HA1 != "1acddda9f6f6bbf9abbc5f3bb08d7f83" && len(sip.HA1) != 32 || len(sip.HA1SHA256) != 64 {
		t.Errorf("secret %+v", sip)
	}
	list := must(w, contract.RoomListCmd, &contract.RoomQuery{})
	if len(list.Rooms) != 2 || list.Rooms[1].ModeratorToken != made.ModeratorToken {
		t.Errorf("list %+v", list)
	}
	must(w, contract.RoomRemoveCmd, &contract.RoomRef{Room: "pin"})
	w.wait(contract.EventClosed, "")
	_, err = call(w, contract.RoomGet, &contract.None{}, "pin", contract.Operator)
	wantCode(t, err, contract.ErrNotFound)
}

func TestWrongPINsAreSlowedForTheirSourceAlone(t *testing.T) {
	w := newWorld(t)
	must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "pin", PIN: "1234"})
	wrong := browser("eve")
	wrong.PIN = "0000"
	codes := map[string]int{}
	for range 1000 {
		_, err := call(w, contract.RoomJoin, wrong, "pin", "eve")
		code, _, _ := strings.Cut(err.Error(), ":")
		codes[code]++
	}
	if codes["pin_wrong"] > 10 || codes["slow_down"] < 990 {
		t.Errorf("answers %v", codes)
	}
	good := browser("ann")
	good.PIN, good.Source = "1234", "192.0.2.2"
	must(w, contract.RoomJoin, good, "pin", "ann")
}

func TestMediaRefusesAndNobodyStays(t *testing.T) {
	w := newWorld(t)
	w.media.mu.Lock()
	w.media.fail = contract.ErrNoCodec
	w.media.mu.Unlock()
	_, err := call(w, contract.RoomJoin, browser("ann"), "main", "ann")
	wantCode(t, err, contract.ErrNoCodec)
	if got := w.get("main"); got.Room.Total != 0 || got.Seq != 0 {
		t.Errorf("room %+v", got.Room)
	}
}

func TestLeaveWhileTheLegOpens(t *testing.T) {
	w := newWorld(t)
	hold := make(chan struct{})
	w.media.mu.Lock()
	w.media.hold = hold
	w.media.mu.Unlock()
	got := make(chan error, 1)
	go func() {
		_, err := call(w, contract.RoomJoin, browser("ann"), "main", "ann")
		got <- err
	}()
	w.until("the seat is reserved", func() bool {
		n := 0
		w.conf.s.toRoom("main", func(*live) {})
		_, _ = ask(t.Context(), w.conf.s, "main", func(l *live) (bool, error) { n = l.r.HalfOpen(); return true, nil })
		return n == 1
	})
	must(w, contract.RoomLeave, &contract.Leave{}, "main", "ann")
	close(hold)
	wantCode(t, <-got, contract.ErrGone)
	w.until("the leg is closed", func() bool { _, ok := w.media.leg("ann"); return !ok })
}

func TestChat(t *testing.T) {
	w := newWorld(t)
	_, err := call(w, contract.RoomChat, &contract.ChatPost{Body: "hi"}, "main", "ann")
	wantCode(t, err, contract.ErrForbidden)
	w.join("main", "ann")
	_, err = call(w, contract.RoomChat, &contract.ChatPost{Body: strings.Repeat("x", maxChat+1)}, "main", "ann")
	wantCode(t, err, contract.ErrBadRequest)
	m := must(w, contract.RoomChat, &contract.ChatPost{Body: "hello", From: "somebody else"}, "main", "ann")
	if m.From != "ann" || m.Name != "ann" {
		t.Errorf("posted %+v", m)
	}
	if e := w.wait(contract.EventChat, ""); e.Chat.Body != "hello" || e.By != "ann" {
		t.Errorf("event %+v", e)
	}
	if h := must(w, contract.RoomHistory, &contract.ChatQuery{}, "main", "ann"); len(h.Messages) != 1 {
		t.Errorf("history %+v", h)
	}
	w.swarm.mu.Lock()
	w.swarm.fail = contract.ErrStorage
	w.swarm.mu.Unlock()
	_, err = call(w, contract.RoomChat, &contract.ChatPost{Body: "lost"}, "main", "ann")
	wantCode(t, err, contract.ErrStorage)
	w.until("the conversation is known", func() bool { return w.get("main").Room.Conversation == "c0ffee" })
}

// TestTheSameKeyOfTwoWriters: a page may number its messages.
func TestTheSameKeyOfTwoWriters(t *testing.T) {
	w := newWorld(t)
	for _, id := range []string{"ann", "ben"} {
		w.join("main", id)
		ctx, cancel := context.WithTimeout(bus.WithKey(t.Context(), "1"), patience)
		m, err := bus.Call(ctx, w.c, contract.RoomChat, &contract.ChatPost{Body: "I am " + id}, "main", id)
		cancel()
		if err != nil || m.From != id || m.Body != "I am "+id {
			t.Errorf("%s got %+v, %v", id, m, err)
		}
	}
	if h := must(w, contract.RoomHistory, &contract.ChatQuery{}, "main", "ann"); len(h.Messages) != 2 {
		t.Errorf("history %+v", h)
	}
}

// TestChatIsSlowed: one who floods is slowed, the others are not.
func TestChatIsSlowed(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	w.join("main", "ben")
	var err error
	sent := 0
	for ; err == nil && sent < 100; sent++ {
		_, err = call(w, contract.RoomChat, &contract.ChatPost{Body: "x"}, "main", "ann")
	}
	wantCode(t, err, contract.ErrSlowDown)
	if sent < chatBurst {
		t.Errorf("%d messages at once, %d are allowed", sent, chatBurst)
	}
	must(w, contract.RoomChat, &contract.ChatPost{Body: "x"}, "main", "ben")
	w.until("she may write again", func() bool {
		_, err := call(w, contract.RoomChat, &contract.ChatPost{Body: "x"}, "main", "ann")
		return err == nil
	})
}

// TestManyRoomsAskForFewConversationsAtOnce: each is a signature, and thousands at once would be answered too late.
func TestManyRoomsAskForFewConversationsAtOnce(t *testing.T) {
	w := newWorld(t)
	const rooms = 5 * conversationsAtOnce
	hold := make(chan struct{})
	w.swarm.mu.Lock()
	w.swarm.hold = hold
	w.swarm.mu.Unlock()
	for i := range rooms {
		must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: fmt.Sprintf("r%d", i)})
	}
	opening := func() int {
		w.swarm.mu.Lock()
		defer w.swarm.mu.Unlock()
		return w.swarm.opening
	}
	w.until("swarm is asked", func() bool { return opening() == conversationsAtOnce })
	close(hold)
	w.until("all have one", func() bool {
		for i := range rooms {
			if w.get(fmt.Sprintf("r%d", i)).Room.Conversation == "" {
				return false
			}
		}
		return true
	})
	w.swarm.mu.Lock()
	defer w.swarm.mu.Unlock()
	if w.swarm.most != conversationsAtOnce {
		t.Errorf("%d conversations were asked for at once, want %d", w.swarm.most, conversationsAtOnce)
	}
}

// TestANewRoomHasNoOldChat: also when swarm was away, or this process was killed,
// before the old one was put aside.
func TestANewRoomHasNoOldChat(t *testing.T) {
	w := newWorld(t)
	op := contract.Operator
	must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "team"})
	must(w, contract.RoomChat, &contract.ChatPost{Body: "secret"}, "team", op)
	must(w, contract.RoomRemoveCmd, &contract.RoomRef{Room: "team"})
	w.swarm.mu.Lock()
	w.swarm.stuck = contract.ErrStorage
	w.swarm.mu.Unlock()
	must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "team"})
	for range 2 {
		if h := must(w, contract.RoomHistory, &contract.ChatQuery{}, "team", op); len(h.Messages) != 0 {
			t.Fatalf("the old chat: %+v", h)
		}
		_, err := call(w, contract.RoomChat, &contract.ChatPost{Body: "x"}, "team", op)
		wantCode(t, err, contract.ErrUnavailable)
		w.stop()
		w.start()
	}
	w.swarm.mu.Lock()
	w.swarm.stuck = nil
	w.swarm.mu.Unlock()
	w.until("the new chat is there", func() bool {
		_, err := call(w, contract.RoomChat, &contract.ChatPost{Body: "new"}, "team", op)
		return err == nil
	})
	if h := must(w, contract.RoomHistory, &contract.ChatQuery{}, "team", op); len(h.Messages) != 1 || h.Messages[0].Body != "new" {
		t.Fatalf("history %+v", h)
	}
	w.stop()
	w.start()
	if h := must(w, contract.RoomHistory, &contract.ChatQuery{}, "team", op); len(h.Messages) != 1 {
		t.Fatalf("history after a restart: %+v", h)
	}
	w.swarm.mu.Lock()
	defer w.swarm.mu.Unlock()
	if w.swarm.detached["team"] != 2 {
		t.Errorf("put aside %d times for 2 rooms", w.swarm.detached["team"])
	}
}

func TestBots(t *testing.T) {
	w := newWorld(t)
	w.ident.setBots(
		contract.Bot{Name: "ear", Room: "main", Rights: []contract.Right{contract.RightListen}},
		contract.Bot{Name: "boss", Room: "main", Rights: []contract.Right{contract.RightModerate}})
	w.until("bots are known", func() bool { _, ok := w.conf.s.bots.get("boss", "main"); return ok })
	ear := w.bus.Bot("ear", "main", contract.RightListen)
	boss := w.bus.Bot("boss", "main", contract.RightModerate)
	w.join("main", "ann")

	// A bot that says it was a browser gets a bot's leg or none.
	liar := browser("ear")
	body, err := json.Marshal(liar)
	check(t, err)
	m, err := ear.Request(contract.RoomJoin.Subject(bustest.Account, "main", "ear"), body, patience)
	check(t, err)
	if m.Header.Get("Nats-Service-Error-Code") != contract.ErrBadRequest.Code {
		t.Fatalf("a bot joined as a browser: %s", m.Data)
	}
	m, err = ear.Request(contract.RoomJoin.Subject(bustest.Account, "main", "ear"), []byte(`{"kind":"bot","transport":"bus"}`), patience)
	check(t, err)
	var j contract.Joined
	if check(t, json.Unmarshal(m.Data, &j)); j.Participant.Role != contract.RoleSpeaker || j.Participant.Kind != contract.KindBot || !j.Participant.Connected {
		t.Fatalf("joined %s", m.Data)
	}
	l := must(w, contract.RoomListen, &contract.Listen{Mix: contract.FormatPCM16}, "main", "ear")
	if l.TTLMs != 10_000 {
		t.Errorf("listen %+v", l)
	}
	// mute is for all bots, but muting others is for those who moderate, also
	// without having joined.
	mute := []byte(`{"participant":"ann","muted":true}`)
	m, err = ear.Request(contract.RoomMute.Subject(bustest.Account, "main", "ear"), mute, patience)
	check(t, err)
	if m.Header.Get("Nats-Service-Error-Code") != contract.ErrForbidden.Code {
		t.Fatalf("a listening bot mutes: %s", m.Data)
	}
	m, err = boss.Request(contract.RoomMute.Subject(bustest.Account, "main", "boss"), mute, patience)
	check(t, err)
	var p contract.Participant
	if check(t, json.Unmarshal(m.Data, &p)); !p.Muted || p.MutedBy != "boss" {
		t.Fatalf("muted %s", m.Data)
	}
	_, err = call(w, contract.RoomMute, &contract.MuteChange{Muted: false}, "main", "ann")
	wantCode(t, err, contract.ErrForbidden)

	now := time.Now()
	w.ident.setBots(contract.Bot{Name: "ear", Room: "main", Revoked: &now})
	if e := w.wait(contract.EventLeft, "ear"); e.Reason != contract.ReasonRevoked {
		t.Errorf("reason %q", e.Reason)
	}
}

func TestLeaseOfReplicas(t *testing.T) {
	w := newWorld(t)
	a := must(w, contract.RoomLease, &contract.Lease{Instance: "a", TTLMs: 1000}, "main", "echo")
	b := must(w, contract.RoomLease, &contract.Lease{Instance: "b", TTLMs: 1000}, "main", "echo")
	if !a.Held || b.Held || b.Holder != "a" || b.Epoch != a.Epoch {
		t.Fatalf("a %+v, b %+v", a, b)
	}
	must(w, contract.RoomLease, &contract.Lease{Instance: "a", Release: true}, "main", "echo")
	b = must(w, contract.RoomLease, &contract.Lease{Instance: "b", TTLMs: 1000}, "main", "echo")
	if !b.Held || b.Epoch != a.Epoch+1 {
		t.Fatalf("b %+v", b)
	}
	_, err := call(w, contract.RoomLease, &contract.Lease{Instance: "b", TTLMs: 1}, "main", "echo")
	wantCode(t, err, contract.ErrBadRequest)
}

func TestVoiceDigitsQuality(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	m := w.media.c
	check(t, bus.Publish(context.Background(), m, contract.MediaVoice, &contract.VoiceChange{Leg: "ann", Room: "main", Speaking: true}, "m1"))
	if e := w.wait(contract.EventVoice, "ann"); !e.Participant.Speaking || e.Seq == 0 {
		t.Errorf("event %+v", e)
	}
	check(t, bus.Publish(context.Background(), m, contract.MediaDigit, &contract.DigitPressed{Leg: "ann", Room: "main", Digit: "#"}, "m1"))
	if e := w.wait(contract.EventDigit, "ann"); e.Digit != "#" {
		t.Errorf("event %+v", e)
	}
	check(t, bus.Publish(context.Background(), m, contract.MediaStats, &contract.LegStats{Worker: "m1", Legs: []contract.LegInfo{
		{Leg: "ann", Room: "main", Transport: "webrtc", Codec: "g722", Connected: true, Quality: contract.LegQuality{LostPct: 3}}}}, "m1"))
	if e := w.wait(contract.EventQuality, ""); e.Seq != 0 || e.Qualities["ann"].LostPct != 3 {
		t.Errorf("event %+v", e)
	}
	w.until("the codec is known", func() bool { p := w.get("main").Room.Participants[0]; return p.Codec == "g722" && p.Connected })
	seq := w.get("main").Seq
	w.until("the stream has all", func() bool { last, err := w.conf.s.lastStored(t.Context(), "main"); return err == nil && last == seq })
	noGaps(t, replayAll(w, "main"), seq) // and no quality among them
}

func TestQualityInALargeRoom(t *testing.T) {
	at := time.Unix(0, 0).Add(100 * ownEvery)
	good, lossy, late := contract.LegQuality{}, contract.LegQuality{LostPct: 5}, contract.LegQuality{RTTMs: 400}
	q := new(quality)
	for i, step := range []struct {
		after    time.Duration
		of       contract.LegQuality
		speaking bool
		want     bool
	}{
		{0, good, false, true}, // the first time
		{2 * time.Second, good, false, false},
		{4 * time.Second, good, true, true},
		{6 * time.Second, lossy, false, true},
		{8 * time.Second, lossy, false, true},
		{10 * time.Second, good, false, true}, // nobody is left to believe that it is bad
		{12 * time.Second, good, false, false},
		{14 * time.Second, late, false, true},
		{16 * time.Second, good, false, true},
		{18 * time.Second, good, false, false},
		{ownEvery, good, false, true},
		{ownEvery + 2*time.Second, good, false, false},
	} {
		info := &contract.LegInfo{Speaking: step.speaking, Quality: step.of}
		if got := q.worthTelling(at.Add(step.after), info, true); got != step.want {
			t.Errorf("step %d: told %v, want %v", i, got, step.want)
		}
		if q.LegQuality != step.of {
			t.Errorf("step %d: %+v is kept", i, q.LegQuality)
		}
	}
	if !q.worthTelling(at.Add(ownEvery+4*time.Second), &contract.LegInfo{}, false) {
		t.Error("not told in a small room")
	}
}

func TestDamagedFilesAreRefusedAndKept(t *testing.T) {
	for _, file := range []string{"side.json", "side.log"} {
		t.Run(file, func(t *testing.T) {
			w := newWorld(t)
			must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "side"})
			w.join("side", "ann")
			w.stop()
			path := filepath.Join(w.bus.Config().Data, "conference", "rooms", file)
			junk := []byte("{\"junk\": true}\n")
			check(t, os.WriteFile(path, junk, 0o600))
			w.start()
			_, err := call(w, contract.RoomJoin, browser("bob"), "side", "bob")
			wantCode(t, err, contract.ErrStateDamaged)
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%v does not name %s", err, path)
			}
			_, err = call(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "side"})
			wantCode(t, err, contract.ErrStateDamaged)
			w.join("main", "bob")
			w.stop()
			if b, err := os.ReadFile(path); err != nil || string(b) != string(junk) {
				t.Errorf("the damaged file was changed: %q, %v", b, err)
			}
		})
	}
}

// More rooms than a message of the bus holds are listed by pages, each once.
func TestRoomsAreListedByPages(t *testing.T) {
	w := newWorld(t)
	w.conf.s.page = 4
	for i := range 10 {
		must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: fmt.Sprintf("room-%d", i)})
	}
	rooms, err := bus.Rooms(t.Context(), w.c)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(rooms, func(a, b contract.Room) int { return strings.Compare(a.Name, b.Name) }) || len(rooms) != 11 { // main, too
		t.Errorf("%d rooms", len(rooms))
	}
	for after, want := range map[string]struct {
		rooms int
		next  string
	}{"": {4, "room-2"}, "room-2": {4, "room-6"}, "room-22": {4, "room-6"}, "room-6": {3, ""}, "zzz": {0, ""}} {
		if got := must(w, contract.RoomListCmd, &contract.RoomQuery{After: after}); len(got.Rooms) != want.rooms || got.Next != want.next {
			t.Errorf("behind %q: %d rooms, then %q", after, len(got.Rooms), got.Next)
		}
	}
}
