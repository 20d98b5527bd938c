package connect

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/sip"
)

// rooms plays conference: what it lists, and who is in.
type rooms struct {
	mu   sync.Mutex
	list contract.RoomList
	in   map[string]bool
	errs map[string]error
	left []string
}

func (r *rooms) leave(_ context.Context, q *bus.Request[contract.Leave]) (*contract.None, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = append(r.left, q.Param(2))
	return &contract.None{}, nil
}

func (r *rooms) get(_ context.Context, q *bus.Request[contract.None]) (*contract.Joined, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := q.Param(2)
	if err := r.errs[id]; err != nil {
		return nil, err
	}
	j := &contract.Joined{Room: contract.Room{Participants: []contract.Participant{}}}
	if r.in[id] {
		j.Participant = contract.Participant{ID: id, Kind: contract.KindSIP}
	}
	return j, nil
}

// phonesTest is a SIP server with these calls, on a bus with r.
func phonesTest(t *testing.T, r *rooms, ids ...string) (*sip.Server, phones) {
	t.Helper()
	b := bustest.Start(t)
	svc, err := bus.NewService(b.Conn("conference"), "conference", "0.0.0-test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	for _, err := range []error{
		bus.Serve(svc, contract.RoomListCmd, func(context.Context, *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return &r.list, nil
		}),
		bus.Serve(svc, contract.RoomGet, r.get),
		bus.Serve(svc, contract.RoomLeave, r.leave),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, id := range ids {
		rec := fmt.Sprintf(`{"id":%q,"room":"main","call_id":%q,"local_tag":"l","remote_tag":"r","local":"<sip:main@x>;tag=l","remote":"<sip:a@x>;tag=r",`+
			`"target":"sip:a@127.0.0.1:9","transport":"UDP","source":"127.0.0.1:9"}`, id, id)
		if err := os.WriteFile(filepath.Join(dir, id+".json"), []byte(rec), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := phones{bus: b.Conn("connect"), signalling: "connect"}
	s, err := sip.New(sip.Config{UDP: udp, Dir: dir, Rooms: p, Code: errorCode, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, p
}

func part(id string) contract.Participant {
	return contract.Participant{ID: id, Kind: contract.KindSIP, Signalling: "connect"}
}

func TestReconcile(t *testing.T) {
	other := part("sip-elsewhere")
	other.Signalling = "connect-2"
	peer := part("jami-ghost")
	peer.Kind = contract.KindJami
	r := &rooms{
		// One room is not listed at all, one is busy, of one the list is short.
		list: contract.RoomList{Rooms: []contract.Room{{RoomSettings: contract.RoomSettings{Name: "main"},
			Participants: []contract.Participant{part("sip-listed"), part("sip-ghost"), peer, other}}}},
		in:   map[string]bool{"sip-beyond": true},
		errs: map[string]error{"sip-busy": contract.ErrBusy},
	}
	s, p := phonesTest(t, r, "sip-listed", "sip-beyond", "sip-busy", "sip-gone")
	err := reconcilePhones(t.Context(), p, s)
	if e, ok := err.(*contract.Error); !ok || !e.Retry {
		t.Errorf("a room that was busy is not worth another try: %v", err)
	}
	for i := 0; s.Has("sip-gone"); i++ {
		if i > 200 {
			t.Fatal("a phone without a seat was not hung up on")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, id := range []string{"sip-listed", "sip-beyond", "sip-busy"} {
		if !s.Has(id) {
			t.Errorf("%s was hung up on", id)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.left {
		if id != "sip-ghost" && id != "jami-ghost" && id != "sip-gone" {
			t.Errorf("%s was taken out of the room", id)
		}
	}
	if len(r.left) < 2 || r.left[0] != "sip-ghost" || r.left[1] != "jami-ghost" {
		t.Errorf("left: %v", r.left)
	}
}

// A seat that comes after the caller gave up is given back.
func TestLateSeat(t *testing.T) {
	r := &rooms{}
	s, _ := phonesTest(t, r, "sip-here")
	for _, id := range []string{"sip-here", "sip-late"} {
		p := part(id)
		phoneEvent(s, "connect", &contract.RoomEvent{Type: contract.EventJoined, Room: "main", Participant: &p})
	}
	for i := 0; ; i++ {
		r.mu.Lock()
		left := len(r.left)
		if left > 0 && (left != 1 || r.left[0] != "sip-late") {
			t.Errorf("left: %v", r.left)
		}
		r.mu.Unlock()
		if left > 0 {
			return
		}
		if i > 200 {
			t.Fatal("the seat was kept")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
