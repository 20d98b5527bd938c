// SPDX-License-Identifier: Apache-2.0

package room

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// t0 is the time at which tests begin; only they move it.
var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const token = "00112233445566778899aabbccddeeff"

func alive(string) bool { return true }

func newRoom(change func(s *Settings)) *Room {
	s := Settings{Name: "main", DefaultRole: Speaker, Token: token}
	if change != nil {
		change(&s)
	}
	return New(s)
}

func ask(id string) Request {
	return Request{ID: id, Name: id, Kind: Browser, Leg: "webrtc", Offer: id, Rendezvous: true}
}

// enter joins and connects somebody.
func enter(t *testing.T, r *Room, now time.Time, q Request) Member {
	t.Helper()
	if _, err := r.Admit(now, q); err != nil {
		t.Fatalf("%s: %v", q.ID, err)
	}
	m, err := r.Seat(now, q.ID, Opened{Worker: "m1", Transport: q.Leg, Codec: "opus"})
	if err != nil {
		t.Fatalf("%s: %v", q.ID, err)
	}
	r.LegState(now, "m1", q.ID, "connected")
	return m
}

// told is the outcome in short: "joined ann; set ann".
func told(r *Room) string {
	var out []string
	o := r.Take()
	for _, e := range o.Events {
		s := string(e.Type)
		if e.Member != nil {
			s += " " + e.Member.ID
		}
		if e.Reason != "" {
			s += " " + e.Reason
		}
		out = append(out, s)
	}
	for _, ord := range o.Orders {
		out = append(out, fmt.Sprintf("%s %s", [...]string{"set", "open", "close"}[ord.Verb], ord.Leg))
	}
	return strings.Join(out, "; ")
}

func TestAdmit(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(s *Settings)
		ask  func(q *Request)
		err  error
		role Role
	}{
		"open room":                       {role: Speaker},
		"large room":                      {set: func(s *Settings) { s.DefaultRole = Listener }, role: Listener},
		"moderator's token":               {ask: func(q *Request) { q.Token = token }, role: Moderator},
		"another token":                   {ask: func(q *Request) { q.Token = "ffffffffffffffffffffffffffffffff" }, role: Speaker},
		"no PIN":                          {set: pin, err: ErrPINRequired},
		"wrong PIN":                       {set: pin, ask: func(q *Request) { q.PIN = "12345" }, err: ErrPINWrong},
		"right PIN":                       {set: pin, ask: func(q *Request) { q.PIN = "1234" }, role: Speaker},
		"digest instead of PIN":           {set: pin, ask: func(q *Request) { q.Verified = true }, role: Speaker},
		"bot without PIN":                 {set: pin, ask: bot, role: Speaker},
		"moderating bot":                  {ask: func(q *Request) { bot(q); q.Moderates = true }, role: Moderator},
		"locked":                          {set: locked, err: ErrLocked},
		"locked, and the PIN is no help":  {set: func(s *Settings) { pin(s); locked(s) }, ask: func(q *Request) { q.PIN = "1234" }, err: ErrLocked},
		"locked, with token":              {set: locked, ask: func(q *Request) { q.Token = token }, role: Moderator},
		"locked, a bot":                   {set: locked, ask: bot, role: Speaker},
		"no rendezvous":                   {ask: func(q *Request) { q.Rendezvous = false }, err: ErrRendezvous},
		"no rendezvous, with token":       {ask: func(q *Request) { q.Rendezvous = false; q.Token = token }, role: Moderator},
		"no rendezvous, a bot":            {ask: func(q *Request) { bot(q); q.Rendezvous = false }, role: Speaker},
		"no name":                         {ask: func(q *Request) { q.Name = " \t " }, err: ErrBad},
		"a line break in the name":        {ask: func(q *Request) { q.Name = "a\nb" }, err: ErrBad},
		"a name that turns around":        {ask: func(q *Request) { q.Name = "a\u202eb" }, err: ErrBad},
		"a name of 65 characters":         {ask: func(q *Request) { q.Name = strings.Repeat("ü", 65) }, err: ErrBad},
		"a name of 64 characters":         {ask: func(q *Request) { q.Name = strings.Repeat("ü", 64) }, role: Speaker},
		"a name that is no UTF-8":         {ask: func(q *Request) { q.Name = "\xff" }, err: ErrBad},
		"an empty token of a damaged one": {set: func(s *Settings) { s.Token = "" }, role: Speaker},
	} {
		t.Run(name, func(t *testing.T) {
			r, q := newRoom(c.set), ask("ann")
			if c.ask != nil {
				c.ask(&q)
			}
			ticket, err := r.Admit(t0, q)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err == nil && ticket.Member.Role != c.role {
				t.Errorf("role %s, want %s", ticket.Member.Role, c.role)
			}
			if r.Seq() != 0 || r.Len() != 0 {
				t.Error("a reserved seat is in the roster")
			}
		})
	}
}

func pin(s *Settings)    { s.PIN = "1234" }
func locked(s *Settings) { s.Locked = true }
func bot(q *Request)     { q.Kind, q.Leg, q.Trusted = Bot, TransportBus, true }

func TestMaxCountsReservedSeats(t *testing.T) {
	r := newRoom(func(s *Settings) { s.Max = 1 })
	if _, err := r.Admit(t0, ask("ann")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Admit(t0, ask("bob")); !errors.Is(err, ErrFull) {
		t.Fatalf("error %v", err)
	}
	if _, err := r.Admit(t0, ask("ann")); !errors.Is(err, ErrJoining) {
		t.Fatalf("error %v", err)
	}
	r.Abort("ann")
	enter(t, r, t0, ask("bob"))
	mod := ask("mia")
	mod.Token = token
	enter(t, r, t0, mod) // a moderator always gets in
}

func TestJoinAgain(t *testing.T) {
	r := newRoom(pin)
	q := ask("ann")
	q.PIN = "1234"
	enter(t, r, t0, q)
	if got := told(r); got != "joined ann; changed ann" {
		t.Error(got)
	}
	q.PIN = ""
	ticket, err := r.Admit(t0, q)
	if err != nil || !ticket.Again || ticket.Fresh {
		t.Fatalf("the same offer: %+v, %v", ticket, err)
	}
	r.Abort("ann")
	q.Offer = "another"
	if ticket, err = r.Admit(t0, q); err != nil || !ticket.Fresh {
		t.Fatalf("another offer: %+v, %v", ticket, err)
	}
	if _, err := r.Seat(t0, "ann", Opened{Worker: "m1", Transport: "webrtc"}); err != nil {
		t.Fatal(err)
	}
	if got := told(r); got != "changed ann" || r.Len() != 1 {
		t.Error(got)
	}
}

func TestPutOutWhileJoining(t *testing.T) {
	for name, out := range map[string]func(r *Room){
		"leave":  func(r *Room) { r.Leave(t0, "ann", ReasonLeft) },
		"kick":   func(r *Room) { _ = r.Kick(t0, Caller{Operator: true}, "ann") },
		"remove": func(r *Room) { r.Close(t0, "", ReasonRemoved) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(nil)
			if _, err := r.Admit(t0, ask("ann")); err != nil {
				t.Fatal(err)
			}
			out(r)
			told(r)
			if _, err := r.Seat(t0, "ann", Opened{Worker: "m1"}); !errors.Is(err, ErrGone) {
				t.Fatalf("error %v", err)
			}
			if got := told(r); got != "close ann" {
				t.Error(got)
			}
		})
	}
}

// TestRights is who may do what to whom: ann speaks, bob speaks, mia moderates.
func TestRights(t *testing.T) {
	op, trusted := Caller{ID: "operator", Operator: true}, Caller{ID: "boss", Trusted: true}
	ann, mia, stranger := Caller{ID: "ann"}, Caller{ID: "mia"}, Caller{ID: "eve"}
	mute := func(c Caller, whom string, on bool) func(r *Room) error {
		return func(r *Room) error { _, err := r.Mute(t0, c, whom, on); return err }
	}
	both := func(fns ...func(r *Room) error) func(r *Room) error {
		return func(r *Room) error {
			var err error
			for _, fn := range fns {
				err = fn(r)
			}
			return err
		}
	}
	role := func(c Caller, whom string, to Role) func(r *Room) error {
		return func(r *Room) error { _, err := r.SetRole(t0, c, whom, to); return err }
	}
	hand := func(c Caller, whom string, up bool) func(r *Room) error {
		return func(r *Room) error { _, err := r.Hand(t0, c, whom, up); return err }
	}
	for name, c := range map[string]struct {
		do   func(r *Room) error
		err  error
		told string
	}{
		"mute oneself":                         {mute(ann, "", true), nil, "changed ann; set ann"},
		"mute oneself twice":                   {both(mute(ann, "", true), mute(ann, "", true)), nil, "changed ann; set ann"},
		"mute and unmute oneself":              {both(mute(ann, "", true), mute(ann, "", false)), nil, "changed ann; changed ann; set ann; set ann"},
		"mute another":                         {mute(ann, "bob", true), ErrForbidden, ""},
		"moderator mutes":                      {mute(mia, "bob", true), nil, "changed bob; set bob"},
		"operator mutes":                       {mute(op, "bob", true), nil, "changed bob; set bob"},
		"moderating bot mutes":                 {mute(trusted, "bob", true), nil, "changed bob; set bob"},
		"stranger mutes":                       {mute(stranger, "bob", true), ErrForbidden, ""},
		"unmute what a moderator muted":        {both(mute(mia, "ann", true), mute(ann, "", false)), ErrForbidden, "changed ann; set ann"},
		"own mute does not lift a moderator's": {both(mute(mia, "ann", true), mute(ann, "", true), mute(ann, "", false)), ErrForbidden, "changed ann; changed ann; set ann; set ann"},
		"moderator lifts the mute":             {both(mute(mia, "ann", true), mute(mia, "ann", false)), nil, "changed ann; changed ann; set ann; set ann"},
		"nobody is unmuted unasked":            {both(mute(ann, "", true), mute(mia, "ann", false)), ErrForbidden, "changed ann; set ann"},
		"muted moderator unmutes":              {both(mute(op, "mia", true), mute(mia, "", false)), nil, "changed mia; changed mia; set mia; set mia"},
		"mute nobody":                          {mute(mia, "zoe", true), ErrNoMember, ""},
		"kick":                                 {func(r *Room) error { return r.Kick(t0, mia, "bob") }, nil, "left bob kicked; close bob"},
		"kick without right":                   {func(r *Room) error { return r.Kick(t0, ann, "bob") }, ErrForbidden, ""},
		"kick nobody":                          {func(r *Room) error { return r.Kick(t0, mia, "zoe") }, ErrNoMember, ""},
		"role":                                 {role(mia, "bob", Listener), nil, "changed bob; set bob"},
		"role without right":                   {role(ann, "ann", Moderator), ErrForbidden, ""},
		"no such role":                         {role(mia, "bob", "king"), ErrBad, ""},
		"same role":                            {role(mia, "bob", Speaker), nil, ""},
		"hand":                                 {hand(ann, "", true), nil, "changed ann"},
		"another's hand":                       {hand(mia, "bob", true), ErrForbidden, ""},
		"lower another's":                      {both(hand(ann, "", true), hand(mia, "ann", false)), nil, "changed ann; changed ann"},
		"lower another's without right":        {both(hand(ann, "", true), hand(Caller{ID: "bob"}, "ann", false)), ErrForbidden, "changed ann"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(nil)
			enter(t, r, t0, ask("ann"))
			enter(t, r, t0, ask("bob"))
			q := ask("mia")
			q.Token = token
			enter(t, r, t0, q)
			told(r)
			if err := c.do(r); !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if got := told(r); got != c.told {
				t.Errorf("told %q, want %q", got, c.told)
			}
		})
	}
}

// TestBothMutes: a moderator's mute goes without taking one's own with it.
func TestBothMutes(t *testing.T) {
	r := newRoom(nil)
	enter(t, r, t0, ask("ann"))
	op, ann := Caller{ID: "operator", Operator: true}, Caller{ID: "ann"}
	for i, c := range []struct {
		who         Caller
		muted, want bool
		by          string
	}{
		{ann, true, true, ""}, {op, true, true, "operator"}, {op, false, true, ""}, {ann, false, false, ""},
		{op, true, true, "operator"}, {ann, true, true, "operator"}, {op, false, true, ""}, {ann, false, false, ""},
	} {
		m, err := r.Mute(t0, c.who, "ann", c.muted)
		if err != nil || m.Muted != c.want || m.MutedBy != c.by {
			t.Errorf("step %d: muted %t by %q, %v; want %t by %q", i, m.Muted, m.MutedBy, err, c.want, c.by)
		}
	}
}

func TestPromotedListenerMaySpeak(t *testing.T) {
	r := newRoom(func(s *Settings) { s.DefaultRole = Listener })
	enter(t, r, t0, ask("ann"))
	if _, err := r.Hand(t0, Caller{ID: "ann"}, "", true); err != nil {
		t.Fatal(err)
	}
	r.Heard(t0, "ann", true) // media is wrong: it may not
	r.Take()
	m, err := r.SetRole(t0, Caller{Operator: true}, "ann", Speaker)
	if err != nil || m.Hand != nil || m.Speaking {
		t.Fatalf("%+v, %v", m, err)
	}
	if o := r.Take(); len(o.Orders) != 1 || !o.Orders[0].CanSpeak {
		t.Errorf("orders %+v", o.Orders)
	}
}

func TestSeatsRunOut(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(r *Room)
		gone time.Duration // 0: never
	}{
		"no audio after the join": {func(*Room) {}, ConnectTime},
		"audio came":              {func(r *Room) { r.LegState(t0, "m1", "ann", "connected") }, 0},
		"browser lost": {func(r *Room) {
			r.LegState(t0, "m1", "ann", "connected")
			r.LegState(t0, "m1", "ann", "lost")
		}, BrowserGrace},
		"browser lost and back": {func(r *Room) {
			r.LegState(t0, "m1", "ann", "connected")
			r.LegState(t0, "m1", "ann", "lost")
			r.Stats(t0, "m1", Leg{ID: "ann", Connected: true, Packets: 7})
		}, 0},
		"browser lost, old statistics": {func(r *Room) {
			r.LegState(t0, "m1", "ann", "connected")
			r.Stats(t0, "m1", Leg{ID: "ann", Connected: true, Packets: 7})
			r.LegState(t0, "m1", "ann", "lost")
			r.Stats(t0, "m1", Leg{ID: "ann", Connected: true, Packets: 7})
		}, BrowserGrace},
		"leg gone with its worker": {func(r *Room) {
			r.LegState(t0, "m1", "ann", "connected")
			r.Reconcile(t0.Add(1), t0.Add(1), "m1", nil, false)
		}, ConnectTime + 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(nil)
			if _, err := r.Admit(t0, ask("ann")); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Seat(t0, "ann", Opened{Worker: "m1"}); err != nil {
				t.Fatal(err)
			}
			c.do(r)
			if c.gone == 0 {
				r.Tick(t0.Add(time.Hour), alive)
				if r.Len() != 1 {
					t.Fatal("put out")
				}
				return
			}
			r.Tick(t0.Add(c.gone-1), alive)
			if r.Len() != 1 {
				t.Fatal("put out too early")
			}
			r.Take()
			r.Tick(t0.Add(c.gone), alive)
			if got := told(r); got != "left ann lost; close ann" {
				t.Error(got)
			}
		})
	}
	t.Run("phones have less time", func(t *testing.T) {
		r, q := newRoom(nil), ask("tel")
		q.Kind, q.Leg = SIP, "rtp"
		enter(t, r, t0, q)
		r.LegState(t0, "m1", "tel", "lost")
		r.Tick(t0.Add(LostGrace), alive)
		if r.Len() != 0 {
			t.Error("still in")
		}
	})
	t.Run("nobody is put out while the worker is away", func(t *testing.T) {
		r := newRoom(nil)
		enter(t, r, t0, ask("ann"))
		r.LegState(t0, "m1", "ann", "lost")
		r.Tick(t0.Add(time.Minute), func(string) bool { return false })
		r.Tick(t0.Add(time.Minute+LostGrace-1), alive)
		if r.Len() != 1 {
			t.Error("put out")
		}
	})
}

func TestReconcile(t *testing.T) {
	setup := func(t *testing.T) *Room {
		r := newRoom(nil)
		enter(t, r, t0, ask("ann"))
		q := ask("echo")
		bot(&q)
		enter(t, r, t0, q)
		if _, err := r.Mute(t0, Caller{ID: "operator", Operator: true}, "ann", true); err != nil {
			t.Fatal(err)
		}
		r.Take()
		return r
	}
	annLeg := Leg{ID: "ann", Connected: true, CanSpeak: true, Muted: true, Transport: "webrtc", Codec: "opus"}
	echoLeg := Leg{ID: "echo", Connected: true, CanSpeak: true, Transport: "bus", Codec: "opus"}
	for name, c := range map[string]struct {
		asked   time.Time
		worker  string
		legs    []Leg
		orderly bool
		told    string
	}{
		"all as it should be": {t0.Add(1), "m1", []Leg{annLeg, echoLeg}, false, ""},
		"all lost":            {t0.Add(1), "m1", nil, false, "media ann media_restarted; open echo"},
		"all lost, orderly":   {t0.Add(1), "m1", nil, true, "left ann shutdown; left echo shutdown; close ann; close echo"},
		"asked before":        {t0.Add(-1), "m1", nil, false, ""},
		"another worker":      {t0.Add(1), "m2", nil, false, ""},
		"a leg of nobody":     {t0.Add(1), "m1", []Leg{annLeg, echoLeg, {ID: "zoe"}}, false, "close zoe"},
		"an old leg elsewhere": {t0.Add(1), "m2", []Leg{{ID: "ann"}}, false,
			"close ann"},
		"flags forgotten": {t0.Add(1), "m1", []Leg{{ID: "ann", Connected: true, CanSpeak: true}, echoLeg}, false, "set ann"},
		"codec changed": {t0.Add(1), "m1", []Leg{{ID: "ann", Connected: true, CanSpeak: true, Muted: true, Codec: "pcmu"}, echoLeg}, false,
			"changed ann"},
	} {
		t.Run(name, func(t *testing.T) {
			r := setup(t)
			r.Reconcile(t0.Add(1), c.asked, c.worker, c.legs, c.orderly)
			if got := told(r); got != c.told {
				t.Errorf("told %q, want %q", got, c.told)
			}
			r.Reconcile(t0.Add(2), t0.Add(2), "m9", nil, false)
			if got := told(r); got != "" {
				t.Errorf("another worker: %q", got)
			}
		})
	}
}

func TestMovedToAnotherWorker(t *testing.T) {
	r := newRoom(nil)
	enter(t, r, t0, ask("ann"))
	q := ask("echo")
	bot(&q)
	enter(t, r, t0, q)
	enter(t, r, t0, ask("zoe"))
	r.Heard(t0, "zoe", true)
	r.Take()
	r.Moved(t0, "m1", "m2")
	if got := told(r); got != "media zoe media_restarted; media ann media_restarted; changed echo; open echo" { // who speaks first
		t.Error(got)
	}
	r.Moved(t0, "m1", "m2")
	if got := told(r); got != "" {
		t.Error("told twice: " + got)
	}
	m, err := r.Reopened(t0, "ann", Opened{Worker: "m2", Transport: "webrtc"}, true)
	if err != nil || m.Worker != "m2" || m.Missing() {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestVoiceIsCoalescedInLargeRooms(t *testing.T) {
	r := newRoom(nil)
	for i := range Large + 1 {
		enter(t, r, t0, ask(fmt.Sprint("p", i)))
	}
	r.Take()
	at := func(d time.Duration) time.Time { return t0.Add(time.Minute + d) }
	r.Heard(at(0), "p1", true)
	r.Heard(at(100*time.Millisecond), "p1", false)
	r.Heard(at(200*time.Millisecond), "p1", true)
	r.Heard(at(300*time.Millisecond), "p1", false)
	if got := told(r); got != "voice p1" {
		t.Error(got)
	}
	r.Tick(at(time.Second), alive)
	if got := told(r); got != "voice p1" {
		t.Errorf("at the end: %q", got)
	}
	if m, _ := r.Member("p1"); m.Speaking {
		t.Error("still speaking")
	}
}

func TestLease(t *testing.T) {
	r := newRoom(nil)
	r.Start(t0)
	claim := func(at time.Duration, who string, release bool) (string, uint64) {
		l, _, err := r.Claim(t0.Add(at), "echo", who, 2*time.Second, release)
		if err != nil {
			t.Fatal(err)
		}
		return l.Holder, l.Epoch
	}
	for i, c := range []struct {
		at      time.Duration
		who     string
		release bool
		holder  string
		epoch   uint64
	}{
		{0, "a", false, "a", 1},
		{time.Second, "b", false, "a", 1},
		{time.Second, "a", false, "a", 1}, // renewed to 3 s
		{2500 * time.Millisecond, "b", false, "a", 1},
		{3 * time.Second, "b", false, "b", 2},
		{4 * time.Second, "a", true, "b", 2}, // not its own
		{4 * time.Second, "b", true, "", 2},
		{4 * time.Second, "a", false, "a", 3},
		{7 * time.Second, "a", false, "a", 4}, // it had run out: nobody knows who served
	} {
		if h, e := claim(c.at, c.who, c.release); h != c.holder || e != c.epoch {
			t.Errorf("step %d: %s %d, want %s %d", i, h, e, c.holder, c.epoch)
		}
	}
}

func TestABotThatIsNotConnectedLeaves(t *testing.T) {
	r := newRoom(nil)
	r.Start(t0)
	for _, name := range []string{"dead", "alive", "leased"} {
		q := ask(name)
		bot(&q)
		enter(t, r, t0, q)
	}
	enter(t, r, t0, ask("ann"))
	if _, _, err := r.Claim(t0, "leased", "a", MaxLease, false); err != nil {
		t.Fatal(err)
	}
	at := 0
	tell := func(life string, seconds int, names ...string) {
		for range seconds {
			at++
			r.Connections(t0.Add(time.Duration(at)*time.Second), life, func(id string) bool { return slices.Contains(names, id) }, BotGrace)
		}
	}
	has := func(want string) {
		t.Helper()
		var ids []string
		for _, m := range r.Members() {
			ids = append(ids, m.ID)
		}
		slices.Sort(ids)
		if got := strings.Join(ids, " "); got != want {
			t.Fatalf("after %d s: %s, want %s", at, got, want)
		}
	}
	all := "alive ann dead leased"
	tell("one", 15, "alive")
	has(all)
	tell("one", 1, "alive", "dead") // it came back
	tell("one", 15, "alive")
	has(all)
	tell("two", 15) // the bus was killed: all have the whole time to come back
	has(all)
	tell("two", 5, "alive")
	has("alive ann leased")
	tell("two", 10)
	has("alive ann leased")
	at += 10 // the bus hangs
	tell("two", 15)
	has("alive ann leased")
	tell("two", 1)
	has("ann leased")
	if _, _, err := r.Claim(t0, "leased", "a", 0, true); err != nil {
		t.Fatal(err)
	}
	tell("two", 1)
	has("ann")
}

func TestDeadBotsLeaseEndsItsStay(t *testing.T) {
	r, q := newRoom(nil), ask("echo")
	bot(&q)
	enter(t, r, t0, q)
	if _, _, err := r.Claim(t0, "echo", "a", time.Second, false); err != nil {
		t.Fatal(err)
	}
	r.Tick(t0.Add(time.Second+LeaseGrace), alive)
	if r.Len() != 1 {
		t.Fatal("put out too early")
	}
	r.Tick(t0.Add(time.Second+LeaseGrace+1), alive)
	if r.Len() != 0 {
		t.Error("still in")
	}
}

// TestJournalIsTheState replays the events of a busy room, from any snapshot on.
func TestJournalIsTheState(t *testing.T) {
	r := newRoom(nil)
	var snaps []Snapshot
	var events []Event
	step := func(fn func()) {
		fn()
		o := r.Take()
		events = append(events, o.Events...)
		snaps = append(snaps, r.Snapshot())
	}
	op := Caller{ID: "operator", Operator: true}
	step(func() { enter(t, r, t0, ask("ann")) })
	step(func() { enter(t, r, t0.Add(1), ask("bob")) })
	step(func() { _, _ = r.Mute(t0, op, "bob", true) })
	step(func() { _, _ = r.Hand(t0, Caller{ID: "ann"}, "", true) })
	step(func() { r.Heard(t0, "ann", true) })
	step(func() { r.Pressed(t0, "ann", "1") })
	step(func() { r.Said(t0, "ann", []byte(`{}`)) })
	step(func() { _, _ = r.SetRole(t0, op, "ann", Listener) })
	step(func() { r.Leave(t0, "bob", ReasonLeft) })
	step(func() { r.Close(t0, "", ReasonShutdown) })
	want := r.Snapshot()
	for i, s := range append([]Snapshot{{}}, snaps...) {
		got := newRoom(nil)
		got.Restore(s)
		for _, e := range events {
			got.Apply(e)
		}
		if g := got.Snapshot(); !reflect.DeepEqual(clean(g), clean(want)) {
			t.Errorf("from snapshot %d:\n%+v\nwant\n%+v", i, g, want)
		}
	}
	for i, e := range events {
		if e.Seq != uint64(i)+1 {
			t.Errorf("event %d has seq %d", i+1, e.Seq)
		}
	}
}

// clean forgets what is not kept.
func clean(s Snapshot) Snapshot {
	for i := range s.Members {
		m := &s.Members[i]
		m.offer, m.missing, m.lost, m.packets, m.deadline, m.legAt, m.voiceAt, m.voiceShown = [32]byte{}, false, false, 0, time.Time{}, time.Time{}, time.Time{}, false
	}
	return s
}

// TestMove: who has to leave a worker that goes on is told so, keeps the leg there until the new
// one is connected, and is not disturbed by what the old worker says; a bot's leg is opened by the room.
func TestMove(t *testing.T) {
	r := newRoom(func(*Settings) {})
	enter(t, r, t0, ask("ann"))
	bot := ask("bot")
	bot.Kind, bot.Leg, bot.Trusted = Bot, TransportBus, true
	enter(t, r, t0, bot)
	r.Take()
	if left := r.Move(t0, "m1", "m2", 10); left != 2 {
		t.Errorf("%d members at m1", left)
	}
	o := r.Take()
	if got := fmt.Sprint(o.Orders); got != fmt.Sprint([]Order{{Verb: LegOpen, Leg: "bot", Worker: "m2", CanSpeak: true}, {Verb: LegClose, Leg: "bot", Worker: "m1", Reason: ReasonMoved, Former: true}}) {
		t.Errorf("orders %s", got)
	}
	if len(o.Events) != 2 || o.Events[0].Type != Media || o.Events[0].Reason != ReasonMoved || o.Events[0].Member.ID != "ann" {
		t.Errorf("events %+v", o.Events)
	}
	if left := r.Move(t0.Add(time.Second), "m1", "m2", 10); left != 1 || len(r.Take().Events) != 0 {
		t.Errorf("%d left; told again after a second", left)
	}
	if m, err := r.Reopened(t0.Add(2*time.Second), "ann", Opened{Worker: "m2", Transport: "webrtc"}, true); err != nil || m.Worker != "m2" || m.Connected {
		t.Fatalf("%+v %v", m, err)
	}
	r.LegState(t0.Add(3*time.Second), "m1", "ann", "lost")
	r.Stats(t0.Add(3*time.Second), "m1", Leg{ID: "ann", Connected: true, Packets: 9})
	r.Reconcile(t0.Add(3*time.Second), t0.Add(3*time.Second), "m1", []Leg{{ID: "ann", Connected: true}}, false)
	for _, o := range r.Take().Orders {
		if o.Verb == LegClose {
			t.Errorf("ordered before the new leg is connected: %+v", o)
		}
	}
	r.LegState(t0.Add(4*time.Second), "m2", "ann", "connected")
	if got := fmt.Sprint(r.Take().Orders); got != fmt.Sprint([]Order{{Verb: LegClose, Leg: "ann", Worker: "m1", Reason: ReasonMoved, Former: true}}) {
		t.Errorf("orders %s", got)
	}
	if left := r.Move(t0.Add(5*time.Second), "m1", "m2", 10); left != 0 {
		t.Errorf("%d members at m1", left)
	}
	// Who leaves between two workers leaves both.
	r.Move(t0.Add(time.Minute), "m2", "m1", 10)
	if _, err := r.Reopened(t0.Add(time.Minute), "ann", Opened{Worker: "m1", Transport: "webrtc"}, true); err != nil {
		t.Fatal(err)
	}
	r.Take()
	r.Leave(t0.Add(time.Minute), "ann", ReasonLeft)
	closed := 0
	for _, o := range r.Take().Orders {
		if o.Verb == LegClose {
			closed++
		}
	}
	if closed != 2 {
		t.Errorf("%d legs closed", closed)
	}
}
