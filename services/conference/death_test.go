// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
)

// The test binary runs conference as a process of its own when these are set, so
// that a test can kill it.
const (
	envData = "CONFERENCE_TEST_DATA"
	envBus  = "CONFERENCE_TEST_BUS"

	envLease = "CONFERENCE_TEST_LEASE" // not empty: other machines may have the rooms
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envData); dir != "" {
		if err := runChild(dir, os.Getenv(envBus)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runChild(dir, url string) error {
	cfg := &config.Config{Data: dir}
	cfg.Bus.URL, cfg.Rooms.Default, cfg.Media.Worker = url, "main", "m1"
	cfg.Rooms.Lease = os.Getenv(envLease) != ""
	r, err := New(&host.Env{Name: "conference", Version: "0.0.0-test", Config: cfg, Log: zap.NewNop(), Registry: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	r.(*Service).leaseTime = 4 * time.Second // the bus of a test has one server, which needs no election
	if err := r.Run(context.Background()); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// startProcess runs conference as a process.
func (w *world) startProcess() *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envData+"="+w.bus.Config().Data, envBus+"="+w.bus.URL())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			kill(w.t, cmd)
		}
	})
	w.until("conference answers", func() bool {
		// A command that went to the one before, killed and not missed yet, has no answer.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := bus.Call(ctx, w.op, contract.RoomListCmd, &contract.RoomQuery{})
		return err == nil
	})
	return cmd
}

// kill is kill -9.
func kill(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the process ended by itself")
	}
}

func TestKilledProcessKeepsTheRoom(t *testing.T) {
	w := newWorld(t)
	w.stop()
	w.ident.setBots(contract.Bot{Name: "echo", Room: "main", Rights: []contract.Right{contract.RightSpeak}})
	cmd := w.startProcess()
	for _, id := range []string{"ann", "bob", "cem"} {
		w.join("main", id)
		w.media.connect("main", id)
	}
	must(w, contract.RoomJoin, &contract.Join{Kind: contract.KindBot, Transport: contract.TransportBus}, "main", "echo")
	must(w, contract.RoomMute, &contract.MuteChange{Participant: "bob", Muted: true}, "main", contract.Operator)
	must(w, contract.RoomRole, &contract.RoleChange{Participant: "cem", Role: contract.RoleModerator}, "main", contract.Operator)
	must(w, contract.RoomLock, &contract.LockChange{Locked: true}, "main", "cem")
	must(w, contract.RoomHand, &contract.HandChange{Raised: true}, "main", "ann")
	first := must(w, contract.RoomLease, &contract.Lease{Instance: "r1", TTLMs: 30_000}, "main", "echo")
	w.until("all connected", func() bool { return connected(w.get("main")) == 4 })
	before := w.get("main")

	kill(t, cmd)
	cmd = w.startProcess()

	after := w.get("main")
	if !reflect.DeepEqual(before.Room, after.Room) || before.Seq != after.Seq {
		t.Fatalf("after the kill:\n%+v (seq %d)\nbefore:\n%+v (seq %d)", after.Room, after.Seq, before.Room, before.Seq)
	}
	if again := must(w, contract.RoomLease, &contract.Lease{Instance: "r2", TTLMs: 30_000}, "main", "echo"); again.Held || again.Epoch != first.Epoch {
		t.Fatalf("the lease went to another replica: %+v", again)
	}
	w.until("legs were compared", func() bool { _, ok := w.media.leg("bob"); return ok })
	if e := w.ev.find(func(e *contract.RoomEvent) bool { return e.Type == contract.EventLeft || e.Type == contract.EventMedia }); e != nil {
		t.Fatalf("somebody was told of the death: %+v", e)
	}
	// The next event continues the count, and replay knows all of it.
	must(w, contract.RoomLeave, &contract.Leave{}, "main", "ann")
	e := w.wait(contract.EventLeft, "ann")
	if e.Seq != before.Seq+1 {
		t.Fatalf("seq %d after %d", e.Seq, before.Seq)
	}
	noGaps(t, replayAll(w, "main"), e.Seq)
	kill(t, cmd)
	w.start()
	noGaps(t, replayAll(w, "main"), e.Seq)
}

func connected(j *contract.Joined) int {
	n := 0
	for _, p := range j.Room.Participants {
		if p.Connected {
			n++
		}
	}
	return n
}

func replayAll(w *world, room string) []contract.RoomEvent {
	w.t.Helper()
	var all []contract.RoomEvent
	from := uint64(1)
	for {
		p := must(w, contract.RoomReplay, &contract.Replay{From: from, Limit: 7}, room, contract.Operator)
		all = append(all, p.Events...)
		if !p.More {
			return all
		}
		if p.Next <= from {
			w.t.Fatalf("replay does not go on: %d after %d", p.Next, from)
		}
		from = p.Next
	}
}

func noGaps(t testing.TB, all []contract.RoomEvent, last uint64) {
	t.Helper()
	for i, e := range all {
		if e.Seq != uint64(i)+1 {
			t.Fatalf("event %d of the replay has seq %d", i+1, e.Seq)
		}
	}
	if uint64(len(all)) != last {
		t.Fatalf("replay has %d events of %d", len(all), last)
	}
}

func TestMediaDeath(t *testing.T) {
	w := newWorld(t)
	w.ident.setBots(contract.Bot{Name: "echo", Room: "main"})
	w.join("main", "ann")
	w.join("main", "bob")
	must(w, contract.RoomJoin, &contract.Join{Kind: contract.KindBot, Transport: contract.TransportBus}, "main", "echo")
	must(w, contract.RoomMute, &contract.MuteChange{Participant: "bob", Muted: true}, "main", contract.Operator)
	must(w, contract.RoomMute, &contract.MuteChange{Muted: true}, "main", "echo")
	w.until("mute reached media", func() bool { l, _ := w.media.leg("bob"); return l.Muted })

	w.media.mu.Lock()
	w.media.legs["bob"].Muted = false // the new process forgot
	w.media.mu.Unlock()
	w.media.restart("bob")

	w.wait(contract.EventMedia, "ann")
	w.until("the bot's leg is open again, muted", func() bool { l, ok := w.media.leg("echo"); return ok && l.Muted })
	w.until("bob is muted again", func() bool { l, _ := w.media.leg("bob"); return l.Muted })
	if e := w.ev.find(func(e *contract.RoomEvent) bool {
		return e.Type == contract.EventMedia && e.Participant.ID != "ann" || e.Type == contract.EventLeft
	}); e != nil {
		t.Fatalf("not to be told: %+v", e)
	}
	n := must(w, contract.RoomNegotiate, &contract.Negotiate{SDP: "new offer"}, "main", "ann")
	if n.SDP != "answer to new offer" {
		t.Fatalf("negotiated %q", n.SDP)
	}
	if _, ok := w.media.leg("ann"); !ok {
		t.Fatal("ann has no leg")
	}
}

// TestMediaEndsInOrder: the media process alone is told to end, says so of each
// leg, and is started anew without them.
func TestMediaEndsInOrder(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	q := &contract.Join{Name: "Phone", Kind: contract.KindSIP, Transport: contract.TransportRTP, Offer: "offer", Source: "192.0.2.7", Unproved: true}
	must(w, contract.RoomJoin, q, "main", "phone")
	if a := w.media.request("phone"); a.Remote != "192.0.2.7" || !a.Unproved {
		t.Errorf("media was asked for %+v", a)
	}
	must(w, contract.RoomConfirm, &contract.None{}, "main", "phone")
	w.media.mu.Lock()
	if !w.media.proved["phone"] {
		t.Error("media was not told that the address is proved")
	}
	w.media.mu.Unlock()

	w.media.closeInOrder()
	w.wait(contract.EventMedia, "ann")
	w.wait(contract.EventMedia, "phone")
	must(w, contract.RoomNegotiate, &contract.Negotiate{SDP: "new offer"}, "main", "phone")
	if a := w.media.request("phone"); a.Remote != "192.0.2.7" || a.Unproved || a.Offer != "new offer" {
		t.Errorf("the leg was made again by %+v", a)
	}
}

func TestOrderlyEnd(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	w.join("main", "bob")
	w.stop()
	w.wait(contract.EventClosed, "")
	w.media.restart("bob") // ann's leg went with the node
	w.start()
	e := w.wait(contract.EventLeft, "ann")
	if e.Reason != contract.ReasonShutdown {
		t.Errorf("reason %q", e.Reason)
	}
	if got := w.roster("main"); got != "bob:speaker " {
		t.Errorf("roster %q", got)
	}
}

func TestBusDeath(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	w.media.connect("main", "ann")
	w.wait(contract.EventChanged, "ann")
	w.bus.Stop()
	w.until("the loss was seen", func() bool { return !w.conf.s.bus.Connected() })
	// What happens while the bus is away is told after. Who reconnects later
	// than conference finds it by replay.
	w.conf.s.toRoom("main", func(l *live) { l.r.Pressed(l.s.now(), "ann", "5") })
	w.bus.Restart()
	w.until("the stream has all", func() bool {
		last, err := w.conf.s.lastStored(t.Context(), "main")
		return err == nil && last == 3
	})
	all := replayAll(w, "main")
	noGaps(t, all, 3)
	if all[2].Type != contract.EventDigit || all[2].Digit != "5" {
		t.Errorf("last event %+v", all[2])
	}
}

// TestSwarmDiesWithAMessageInHand: the message is posted again, under the same key,
// and acknowledged before its writer gives up.
func TestSwarmDiesWithAMessageInHand(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	w.swarm.mu.Lock()
	w.swarm.mute = 1
	w.swarm.mu.Unlock()
	if m := must(w, contract.RoomChat, &contract.ChatPost{Body: "hello"}, "main", "ann"); m.Body != "hello" {
		t.Errorf("%+v", m)
	}
	w.swarm.mu.Lock()
	defer w.swarm.mu.Unlock()
	if k := w.swarm.keys; len(k) != 2 || k[0] == "" || k[0] != k[1] {
		t.Errorf("posted under the keys %q", k)
	}
}
