package bench

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// rooms counts those that are there.
type rooms struct {
	mu    sync.Mutex
	there map[string]bool
	most  int
	full  int // of the last one that is taken; 0: all are
}

func (r *rooms) CreateRoom(_ context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full != 0 && len(r.there) >= r.full {
		return errFull
	}
	r.there[name] = true
	r.most = max(r.most, len(r.there))
	return nil
}

func (r *rooms) RemoveRoom(_ context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.there, name)
	return nil
}

func TestSilenceIsMeasured(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	node := &relay{t: t, conn: conn, listeners: map[string]netip.AddrPort{}}
	r := &rooms{there: map[string]bool{}}
	rep, err := RunIdle(context.Background(), IdleConfig{Silent: 3, Idle: 5, Rooms: 40, Seconds: 1, Transport: RTP}, node, r)
	if err != nil {
		t.Fatal(err)
	}
	if r.most != 40 || len(r.there) != 0 || node.left != 8 {
		t.Errorf("%d rooms at most, %d are left; %d legs left", r.most, len(r.there), node.left)
	}
	var what []string
	for _, p := range rep.Phases {
		what = append(what, p.What)
		if p.CPUPerS["media"] == 0 {
			t.Errorf("%s used no CPU: %+v", p.What, p)
		}
	}
	if got := strings.Join(what, "; "); got != strings.Join([]string{PhaseNothing, PhaseSilent, PhaseIdle, PhaseRooms}, "; ") {
		t.Errorf("measured: %s", got)
	}
	var page bytes.Buffer
	if err := rep.HTML(&page, "a node"); err != nil || !strings.Contains(page.String(), PhaseRooms) {
		t.Errorf("%v: %s", err, page.String())
	}
}

func TestRoomsThatWereMadeAreRemoved(t *testing.T) {
	r := &rooms{there: map[string]bool{}, full: 10}
	err := withRooms(context.Background(), IdleConfig{Rooms: 40, Progress: func(string, int, int) {}}, r, func() error { return nil })
	if !errors.Is(err, errFull) || len(r.there) != 0 {
		t.Errorf("%v; %d rooms are left", err, len(r.there))
	}
}
