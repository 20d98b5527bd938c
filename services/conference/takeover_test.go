// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/services/conference/room"
)

// holder starts conference on a machine with that data, as one of several; it serves when it has the lease.
func (w *world) holder(data string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envData+"="+data, envBus+"="+w.bus.URL(), envLease+"=1")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			kill(w.t, cmd)
		}
	})
	return cmd
}

func (w *world) answers() time.Duration {
	w.t.Helper()
	began := time.Now()
	w.until("conference answers", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := bus.Call(ctx, w.op, contract.RoomListCmd, &contract.RoomQuery{})
		return err == nil
	})
	return time.Since(began)
}

// TestAnotherMachineTakesTheRooms: two machines with a disk each; whoever has the rooms is killed, and the
// other one has all that was acknowledged, secrets too; the first, started again, stands by and takes them back
// as they became meanwhile.
func TestAnotherMachineTakesTheRooms(t *testing.T) {
	w := newWorldAt(t, bustest.StartWith(t, func(c *config.Config) { c.Rooms.Lease = true }))
	w.stop()
	here, there := w.bus.Config().Data, t.TempDir()
	creds, err := bustest.AddWorker(t.Context(), w.bus.Conn("cli"), contract.WorkerAdd{Name: "spare", Service: "conference"}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(there, "creds"), 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{creds: "conference.creds", host.RoomsKey(w.bus.Config()): "rooms.key"} {
		raw, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(there, "creds", to), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	first := w.holder(here)
	w.answers()
	second := w.holder(there)
	for _, id := range []string{"ann", "bob"} {
		w.join("main", id)
		w.media.connect("main", id)
	}
	w.until("both connected", func() bool { return connected(w.get("main")) == 2 })
	must(w, contract.RoomMute, &contract.MuteChange{Participant: "bob", Muted: true}, "main", contract.Operator)
	must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "vault", PIN: "4711"})
	must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "gone"})
	must(w, contract.RoomRemoveCmd, &contract.RoomRef{Room: "gone"})
	w.join("main", "last") // acknowledged a moment before the end
	before := w.get("main")

	kill(t, first)
	fmt.Printf("takeover: conference is killed: the other machine answers after %v\n", w.answers().Round(time.Millisecond))
	if l := must(w, contract.WorkerList, &contract.None{}); l.Rooms != "spare" {
		t.Errorf("the rooms are said to be at %q", l.Rooms)
	}
	after := w.get("main")
	if !reflect.DeepEqual(names(before), names(after)) || after.Seq < before.Seq {
		t.Fatalf("taken over:\n%+v (seq %d)\nbefore:\n%+v (seq %d)", after.Room, after.Seq, before.Room, before.Seq)
	}
	if s, err := bus.Call(t.Context(), w.bus.Conn("connect"), contract.RoomSIPSecret, &contract.SIPSecret{Realm: "r"}, "vault"); err != nil || s.HA1 == "" {
		t.Errorf("the PIN of a room: %+v, %v", s, err)
	}
	if _, err := bus.Call(t.Context(), w.op, contract.RoomGet, &contract.None{}, "gone", contract.Operator); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("a removed room is back: %v", err)
	}
	w.until("legs of everybody are ordered by the new one", func() bool { _, ok := w.media.leg("bob"); return ok })

	first = w.holder(here)
	must(w, contract.RoomKick, &contract.Target{Participant: "ann"}, "main", contract.Operator)
	kill(t, second)
	fmt.Printf("takeover: and back after %v\n", w.answers().Round(time.Millisecond))
	if got := names(w.get("main")); !reflect.DeepEqual(got, []string{"bob", "last"}) {
		t.Errorf("the first has them back as %v", got)
	}
	_ = first
}

func names(j *contract.Joined) (out []string) {
	for _, p := range j.Room.Participants {
		out = append(out, p.ID)
	}
	return out
}

// memory is a bucket without a bus.
type memory struct {
	value    []byte
	revision uint64
}

func (m *memory) Get(context.Context, string) ([]byte, uint64, error) {
	if m.value == nil {
		return nil, 0, contract.ErrNotFound
	}
	return m.value, m.revision, nil
}

func (m *memory) Update(_ context.Context, _ string, value []byte, revision uint64, _ time.Duration) (uint64, error) {
	if revision != m.revision {
		return 0, contract.ErrStale
	}
	m.value = value
	m.revision++
	return m.revision, nil
}

func (m *memory) Keys(context.Context) ([]string, error) { return []string{"main"}, nil }

// A former holder that writes late changes nothing, and one that takes over need not know the last revision.
func TestCopiesOfAFormerHolderAreRefused(t *testing.T) {
	m := new(memory)
	at := func(term uint64, title string) *copies {
		c, err := newCopies(m, make([]byte, 32), term, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		c.take = func(context.Context, string) (*copied, error) {
			return &copied{Settings: &room.Settings{Name: "main", Title: title}}, nil
		}
		return c
	}
	old, now := at(1, "old"), at(2, "new")
	rev, err := old.write(t.Context(), "main", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := now.write(t.Context(), "main", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := old.write(t.Context(), "main", rev); !errors.Is(err, contract.ErrStale) {
		t.Errorf("the former holder writes: %v", err)
	}
	if r, _, err := now.read(t.Context(), "main"); err != nil || r.Settings.Title != "new" || r.Term != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := now.unpack("other", m.value); !errors.Is(err, errCopy) {
		t.Errorf("a copy of another room is taken: %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	c, err := newCopies(nil, make([]byte, 32), 1, zap.NewNop())
	if err != nil {
		f.Fatal(err)
	}
	good, err := c.pack("main", &copied{Settings: &room.Settings{Name: "main"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		if _, err := c.unpack("main", value); err != nil && !errors.Is(err, errCopy) {
			t.Fatal(err)
		}
	})
}
