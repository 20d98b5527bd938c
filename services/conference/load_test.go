// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// TestThousandJoin has a large room fill at once, and looks at what the last ones
// get.
func TestThousandJoin(t *testing.T) {
	const n = 1000
	w := newWorld(t)
	must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "hall", DefaultRole: contract.RoleListener})
	took := make([]time.Duration, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	start := time.Now()
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			id := fmt.Sprint("p", i)
			begin := time.Now()
			j := browser(id)
			if i%10 != 0 { // most are phones, as in a load test
				j.Kind, j.Transport = contract.KindSIP, contract.TransportRTP
			}
			if _, err := call(w, contract.RoomJoin, j, "hall", id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
			took[i] = time.Since(begin)
		})
	}
	wg.Wait()
	slices.Sort(took)
	t.Logf("%d joins in %s; p50 %s, p99 %s", n, time.Since(start), took[n/2], took[n*99/100])
	j := w.get("hall")
	if len(j.Room.Participants) != n || j.Seq < n {
		t.Fatalf("%d participants, seq %d", len(j.Room.Participants), j.Seq)
	}
	body, err := json.Marshal(j)
	check(t, err)
	t.Logf("the room's state is %d KiB", len(body)>>10)
	if len(body) > 1<<20/2 { // RosterMax of them have to fit into 1 MiB
		t.Errorf("%d bytes for %d participants", len(body), n)
	}
	check(t, w.conf.s.rooms.Tell("hall", func(_ context.Context, l *live) {
		for i := range n {
			l.quality[fmt.Sprint("p", i)] = &quality{LegQuality: contract.LegQuality{PacketsIn: 1 << 40, PacketsOut: 1 << 40, LostIn: 1 << 30, LostPct: 12.345678, FarLostPct: 12.345678,
				JitterMs: 12.345678, RTTMs: 123.456789, BufferMs: 34.567891, Level: 127, Remote: "[2001:db8:1234:5678:9abc:def0:1234:5678]:40000", Cipher: "AES_CM_128_HMAC_SHA1_80"}}
		}
	}))
	list, err := json.Marshal(must(w, contract.RoomListCmd, &contract.RoomQuery{}))
	check(t, err)
	t.Logf("the list of rooms is %d KiB", len(list)>>10)
	if all := len(list) + (contract.RosterMax-n)*len(body)/n; all > 1<<20-4096 {
		t.Errorf("the list of %d participants would have %d bytes", contract.RosterMax, all)
	}
	w.until("the stream has all", func() bool {
		last, err := w.conf.s.lastStored(t.Context(), "hall")
		return err == nil && last == w.get("hall").Seq
	})
	w.stop()
	begin := time.Now()
	w.start()
	t.Logf("started again with %d participants in %s", n, time.Since(begin))
	if got := w.get("hall").Room.Total; got != n {
		t.Errorf("%d participants after a start", got)
	}
}

func BenchmarkJoinLeave(b *testing.B) {
	w := newWorld(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := call(w, contract.RoomJoin, browser("ann"), "main", "ann"); err != nil {
			b.Fatal(err)
		}
		if _, err := call(w, contract.RoomLeave, &contract.Leave{}, "main", "ann"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMuteByModerator(b *testing.B) {
	w := newWorld(b)
	if _, err := call(w, contract.RoomJoin, browser("ann"), "main", "ann"); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if _, err := call(w, contract.RoomMute, &contract.MuteChange{Participant: "ann", Muted: i%2 == 0}, "main", contract.Operator); err != nil {
			b.Fatal(err)
		}
	}
}

func TestHalfOpenJoinsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.conf.s.halfOpen.Add(maxHalfOpen)
	_, err := call(w, contract.RoomJoin, browser("ann"), "main", "ann")
	wantCode(t, err, contract.ErrBusy)
	w.conf.s.halfOpen.Add(-maxHalfOpen)
	w.join("main", "ann")
	if got := w.conf.s.halfOpen.Load(); got != 1 {
		t.Errorf("%d half-open", got)
	}
	must(w, contract.RoomLeave, &contract.Leave{}, "main", "ann")
	w.until("the seat is free", func() bool { return w.conf.s.halfOpen.Load() == 0 })
}

func TestFullDiskDoesNotStopTheRoom(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	_, err := ask(t.Context(), w.conf.s, "main", func(l *live) (bool, error) { return true, l.j.Close() })
	check(t, err) // every write fails from here on, as on a full disk
	w.join("main", "bob")
	_, err = call(w, contract.RoomMute, &contract.MuteChange{Participant: "bob", Muted: true}, "main", contract.Operator)
	wantCode(t, err, contract.ErrStorage)
	if e := w.wait(contract.EventChanged, "bob"); !e.Participant.Muted {
		t.Errorf("event %+v", e)
	}
	w.until("bob is muted", func() bool { l, _ := w.media.leg("bob"); return l.Muted })
	// The next second writes the journal anew.
	w.until("it can be written again", func() bool {
		_, err := call(w, contract.RoomRole, &contract.RoleChange{Participant: "bob", Role: contract.RoleListener}, "main", contract.Operator)
		return err == nil
	})
	w.stop()
	w.start()
	if got := w.roster("main"); got != "ann:speaker bob:listener " {
		t.Errorf("roster %q", got)
	}
}

// TestOrdersKeepTheirOrder: of many orders for a leg the last one is what media has
// in the end, and a close never overtakes the leg's next life.
func TestOrdersKeepTheirOrder(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.join("main", "ann")
		for j := range 5 {
			must(w, contract.RoomMute, &contract.MuteChange{Muted: j%2 == i%2}, "main", "ann")
		}
		w.until("the last one counts", func() bool { l, ok := w.media.leg("ann"); return ok && l.Muted == (i%2 == 0) })
		must(w, contract.RoomLeave, &contract.Leave{}, "main", "ann")
	}
	w.join("main", "ann")
	w.conf.s.orders.drain(t.Context())
	if _, ok := w.media.leg("ann"); !ok {
		t.Error("the leg of somebody who came back was closed")
	}
}

func TestStrangersReplayAndBadRequests(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	now := time.Now()
	for name, err := range map[string]error{
		"both":       second(call(w, contract.RoomReplay, &contract.Replay{From: 1, Since: &now}, "main", "ann")),
		"limit":      second(call(w, contract.RoomReplay, &contract.Replay{Limit: 501}, "main", "ann")),
		"format":     second(call(w, contract.RoomListen, &contract.Listen{Mix: "mp3"}, "main", "ann")),
		"kind":       second(call(w, contract.RoomJoin, &contract.Join{Name: "x", Kind: "ufo"}, "main", "x")),
		"no offer":   second(call(w, contract.RoomJoin, &contract.Join{Name: "x", Kind: contract.KindBrowser, Transport: contract.TransportWebRTC}, "main", "x")),
		"operator":   second(call(w, contract.RoomJoin, browser("x"), "main", contract.Operator)),
		"empty SDP":  second(call(w, contract.RoomNegotiate, &contract.Negotiate{}, "main", "ann")),
		"room name":  second(call(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "../etc"})),
		"PIN":        second(call(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "a", PIN: "12a4"})),
		"no PIN":     second(call(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "a", SIPAuth: true})),
		"role":       second(call(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "a", DefaultRole: contract.RoleModerator})),
		"max":        second(call(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "a", Max: -1})),
		"long title": second(call(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "a", Title: string(make([]byte, 500))})),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, err, contract.ErrBadRequest) })
	}
	p := must(w, contract.RoomReplay, &contract.Replay{Since: &now}, "main", "ann")
	if len(p.Events) != 0 || p.More {
		t.Errorf("replay from now on: %+v", p)
	}
	from := must(w, contract.RoomReplay, &contract.Replay{From: p.Next + 10}, "main", "ann")
	if len(from.Events) != 0 || from.More {
		t.Errorf("replay of the future: %+v", from)
	}
}

func second[A any](_ A, err error) error { return err }

// TestReplayFromTheStream asks for events that the process does not have at hand.
func TestReplayFromTheStream(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	const n = 2000
	for range n / 2 {
		w.conf.s.toRoom("main", func(l *live) { l.r.Pressed(l.s.now(), "ann", "1") })
		w.conf.s.toRoom("main", func(l *live) { l.r.Pressed(l.s.now(), "ann", "2") })
	}
	w.until("the stream has all", func() bool {
		last, err := w.conf.s.lastStored(t.Context(), "main")
		return err == nil && last == n+1
	})
	check(t, second(ask(t.Context(), w.conf.s, "main", func(l *live) (bool, error) { l.drop(len(l.recent) - 10); return true, nil })))
	var all []contract.RoomEvent
	for from := uint64(1); ; {
		p := must(w, contract.RoomReplay, &contract.Replay{From: from, Limit: 500}, "main", "ann")
		all = append(all, p.Events...)
		if from = p.Next; !p.More {
			break
		}
	}
	noGaps(t, all, n+1)
	since := all[1500].Time
	begin := time.Now()
	p := must(w, contract.RoomReplay, &contract.Replay{Since: &since, Limit: 3}, "main", "ann")
	t.Logf("replay since a time took %s", time.Since(begin))
	if len(p.Events) != 3 || p.Events[0].Time.Before(since) || p.Events[0].Seq > 1501 || !p.More {
		t.Errorf("since: %+v", p)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := bus.Call(ctx, w.c, contract.RoomReplay, &contract.Replay{From: 1}, "nowhere", "ann"); err == nil {
		t.Error("replay of no room")
	}
}

// TestChatIsForWhoMayReadIt: a bot without that right learns from a replay that
// something was said, and not what.
func TestChatIsForWhoMayReadIt(t *testing.T) {
	w := newWorld(t)
	w.ident.setBots(contract.Bot{Name: "deaf", Room: "main", Rights: []contract.Right{contract.RightListen}},
		contract.Bot{Name: "reader", Room: "main", Rights: []contract.Right{contract.RightChat}})
	w.join("main", "ann")
	must(w, contract.RoomChat, &contract.ChatPost{Body: "secret"}, "main", "ann")
	w.wait(contract.EventChat, "")
	for _, c := range []struct {
		who  string
		want string
	}{{"ann", "secret"}, {contract.Operator, "secret"}, {"reader", "secret"}, {"deaf", ""}, {"nobody", ""}} {
		w.until(c.who+" is known", func() bool {
			_, isBot := w.conf.s.bots.get(c.who, "main")
			return isBot || c.who != "deaf" && c.who != "reader"
		})
		p := must(w, contract.RoomReplay, &contract.Replay{From: 1}, "main", c.who)
		got, last := "", uint64(0)
		for _, e := range p.Events {
			if e.Seq != last+1 {
				t.Errorf("%s: event %d after %d", c.who, e.Seq, last)
			}
			if last = e.Seq; e.Chat != nil {
				got = e.Chat.Body
			}
		}
		if got != c.want {
			t.Errorf("%s reads %q, want %q", c.who, got, c.want)
		}
	}
}
