package conference

import (
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

// Who proved to be a Jami account is known by it, also to those who read the room later;
// others can't say that they are one.
func TestJamiIDs(t *testing.T) {
	w := newWorld(t)
	const id = "0123456789abcdef0123456789abcdef01234567"
	phone := func(id string) *contract.Join {
		return &contract.Join{Name: "Phone", Kind: contract.KindSIP, JamiID: id, Transport: contract.TransportRTP, Offer: "offer"}
	}
	if j := must(w, contract.RoomJoin, phone(id), "main", "phone"); j.Participant.JamiID != id {
		t.Errorf("joined as %+v", j.Participant)
	}
	must(w, contract.RoomJoin, phone(""), "main", "stranger")
	if e := w.wait(contract.EventJoined, "phone"); e.Participant.JamiID != id {
		t.Errorf("told of %+v", e.Participant)
	}
	if e := w.wait(contract.EventJoined, "stranger"); e.Participant.JamiID != "" {
		t.Errorf("told of %+v", e.Participant)
	}
	_, err := call(w, contract.RoomJoin, phone("me"), "main", "odd")
	wantCode(t, err, contract.ErrBadRequest)
	b := browser("ann")
	b.JamiID = id
	_, err = call(w, contract.RoomJoin, b, "main", "ann")
	wantCode(t, err, contract.ErrBadRequest)
	for _, p := range w.get("main").Room.Participants {
		if (p.JamiID == id) != (p.ID == "phone") {
			t.Errorf("in the roster: %+v", p)
		}
	}
	must(w, contract.RoomLeave, &contract.Leave{Reason: contract.ReasonBanned}, "main", "phone")
	if e := w.wait(contract.EventLeft, "phone"); e.Reason != contract.ReasonBanned || e.Participant.JamiID != id {
		t.Errorf("left: %s, %+v", e.Reason, e.Participant)
	}
}

// A Jami peer comes with its account and device, and is a moderator where the operator says
// so of its account or of everybody.
func TestJamiPeers(t *testing.T) {
	w := newWorld(t)
	const id, device = "0123456789abcdef0123456789abcdef01234567", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	peer := func(id, device string) *contract.Join {
		return &contract.Join{Name: "Peer", Kind: contract.KindJami, JamiID: id, JamiDevice: device, Transport: contract.TransportJami, Offer: "offer"}
	}
	rooms := &w.conf.s.env.Config.Rooms
	rooms.Moderators = []string{id}
	j := must(w, contract.RoomJoin, peer(id, device), "main", "ann")
	if p := j.Participant; p.Role != contract.RoleModerator || p.JamiDevice != device || p.Kind != contract.KindJami {
		t.Errorf("joined as %+v", p)
	}
	if len(j.Room.Participants) != 1 {
		t.Errorf("%d participants in the answer", len(j.Room.Participants))
	}
	if p := must(w, contract.RoomJoin, peer("ff23456789abcdef0123456789abcdef01234567", device), "main", "bob").Participant; p.Role != contract.RoleSpeaker {
		t.Errorf("a stranger is %s", p.Role)
	}
	rooms.AllModerators = true
	if p := must(w, contract.RoomJoin, browser("cat"), "main", "cat").Participant; p.Role != contract.RoleModerator {
		t.Errorf("with all_moderators: %s", p.Role)
	}
	for name, q := range map[string]*contract.Join{
		"a device of nobody": peer("", device), "half a device": peer(id, device[:40]),
		"no offer": {Name: "Peer", Kind: contract.KindJami, JamiID: id, JamiDevice: device, Transport: contract.TransportJami},
	} {
		if _, err := call(w, contract.RoomJoin, q, "main", "odd"); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	must(w, contract.RoomPress, &contract.KeyPress{Digit: "#"}, "main", "ann")
	if e := w.wait(contract.EventDigit, "ann"); e.Digit != "#" {
		t.Errorf("key %q", e.Digit)
	}
	_, err := call(w, contract.RoomPress, &contract.KeyPress{Digit: "##"}, "main", "ann")
	wantCode(t, err, contract.ErrBadRequest)
}
