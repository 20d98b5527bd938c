// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

// Thousands who come at once get short lists, with themselves and who matters in them; who comes alone gets all.
func TestListsWhileManyCome(t *testing.T) {
	now := time.Unix(1000, 0)
	s := &Service{log: zap.NewNop(), now: func() time.Time { return now }}
	l := &live{s: s, name: "main", r: room.New(room.Settings{Name: "main", Token: "tok"})}
	come := func(id, token string) {
		t.Helper()
		if _, err := l.r.Admit(now, room.Request{ID: id, Name: id, Kind: room.Browser, Token: token, Leg: "webrtc", Rendezvous: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.r.Seat(now, id, room.Opened{Worker: "m1", Transport: "webrtc"}); err != nil {
			t.Fatal(err)
		}
	}
	const many = 1500
	for i := range many {
		come(fmt.Sprintf("p%d", i), "")
	}
	come("mod", "tok")
	now = now.Add(time.Hour)
	if j := l.entered("p7"); len(j.Room.Participants) != many+1 || j.Room.Total != many+1 {
		t.Errorf("alone: %d of %d", len(j.Room.Participants), j.Room.Total)
	}
	listed := 0
	var last *contract.Joined
	for i := range many {
		last = l.entered(fmt.Sprintf("p%d", i))
		listed += len(last.Room.Participants)
	}
	if most := listsBurst + many*listLeast; listed > most {
		t.Errorf("%d at once were told of %d, at most %d", many, listed, most)
	}
	has := map[string]bool{}
	for _, p := range last.Room.Participants {
		has[p.ID] = true
	}
	if len(has) != listLeast || !has["mod"] || !has[fmt.Sprintf("p%d", many-1)] || last.Room.Total != many+1 {
		t.Errorf("the last: %d of %d: %v", len(has), last.Room.Total, has)
	}
	now = now.Add(3 * time.Second)
	if j := l.entered("p7"); len(j.Room.Participants) != many+1 {
		t.Errorf("a moment later: %d", len(j.Room.Participants))
	}
}
