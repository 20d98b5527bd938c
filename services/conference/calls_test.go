package conference

import (
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

const (
	calledID     = "0123456789abcdef0123456789abcdef01234567"
	calledDevice = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func callIn(by string) *contract.Join {
	return &contract.Join{Name: "Bob", Kind: contract.KindJami, JamiID: calledID, Transport: contract.TransportJami, By: by}
}

// Who is called is in nobody's list before the answer, and then with the device that gave it.
func TestCalledIn(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	j := must(w, contract.RoomJoin, callIn(contract.Operator), "main", "bob")
	if j.SDP != "answer to " || j.Participant.ID != "" {
		t.Errorf("reserved %+v", j)
	}
	if got := w.roster("main"); got != "ann:speaker " {
		t.Errorf("while it rings: %s", got)
	}
	if q := w.media.request("bob"); q.Offer != "" || q.Transport != contract.TransportJami {
		t.Errorf("%+v", q)
	}
	by := contract.Signalled{Over: "channel", Remote: "192.0.2.7:40000", TLS: "TLS 1.3"}
	must(w, contract.RoomNegotiate, &contract.Negotiate{SDP: "their answer", Answer: true, Source: "192.0.2.7", Device: calledDevice, Signalled: &by}, "main", "bob")
	if e := w.wait(contract.EventJoined, "bob"); e.Participant.JamiID != calledID || e.Participant.JamiDevice != calledDevice || e.Participant.Kind != contract.KindJami {
		t.Errorf("joined as %+v", e.Participant)
	}
	one := must(w, contract.RoomConnections, &contract.ConnectionQuery{Participant: "bob"}, "main", contract.Operator)
	if len(one.Connections) != 1 || one.Connections[0].Signalled == nil || *one.Connections[0].Signalled != by {
		t.Errorf("connected %+v", one)
	}
	must(w, contract.RoomLeave, &contract.Leave{}, "main", "bob")
	w.wait(contract.EventLeft, "bob")
	w.until("its leg is closed", func() bool { _, ok := w.media.leg("bob"); return !ok })
}

// A call that is not taken leaves nothing behind, however it ends.
func TestCallNotTaken(t *testing.T) {
	w := newWorld(t)
	must(w, contract.RoomLock, &contract.LockChange{Locked: true}, "main", contract.Operator) // who is called gets in all the same
	for name, end := range map[string]func(){
		"refused": func() { must(w, contract.RoomLeave, &contract.Leave{}, "main", "bob") },
		"put out": func() { must(w, contract.RoomKick, &contract.Target{Participant: "bob"}, "main", contract.Operator) },
		"given up by nobody": func() {
			if _, err := ask(t.Context(), w.conf.s, "main", func(l *live) (bool, error) {
				l.forgetCalls(time.Now().Add(callTime + time.Second))
				return true, nil
			}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		must(w, contract.RoomJoin, callIn(contract.Operator), "main", "bob")
		if _, ok := w.media.leg("bob"); !ok {
			t.Fatalf("%s: no leg", name)
		}
		end()
		w.until(name+": its leg is closed", func() bool { _, ok := w.media.leg("bob"); return !ok })
		_, err := call(w, contract.RoomNegotiate, &contract.Negotiate{SDP: "their answer", Answer: true}, "main", "bob")
		wantCode(t, err, contract.ErrNotFound)
		if got := w.roster("main"); got != "" {
			t.Errorf("%s: in the room: %s", name, got)
		}
	}
}

func TestWhoMayCall(t *testing.T) {
	w := newWorld(t)
	w.join("main", "ann")
	w.ident.setBots(contract.Bot{Name: "host", Room: "main", Rights: []contract.Right{contract.RightCall}},
		contract.Bot{Name: "echo", Room: "main", Rights: []contract.Right{contract.RightSpeak}})
	w.until("bots are known", func() bool { _, ok := w.conf.s.bots.get("host", "main"); return ok })
	for by, want := range map[string]*contract.Error{"ann": contract.ErrForbidden, "echo": contract.ErrForbidden, "nobody": contract.ErrForbidden, "host": nil} {
		_, err := call(w, contract.RoomJoin, callIn(by), "main", "by-"+by)
		if want == nil && err != nil {
			t.Errorf("%s: %v", by, err)
		} else if want != nil {
			wantCode(t, err, want)
		}
	}
	must(w, contract.RoomRole, &contract.RoleChange{Participant: "ann", Role: contract.RoleModerator}, "main", contract.Operator)
	must(w, contract.RoomJoin, callIn("ann"), "main", "bob")
	odd := callIn(contract.Operator)
	odd.Offer = "offer"
	_, err := call(w, contract.RoomJoin, odd, "main", "odd")
	wantCode(t, err, contract.ErrBadRequest)
	b := browser("cat")
	b.By = contract.Operator
	_, err = call(w, contract.RoomJoin, b, "main", "cat")
	wantCode(t, err, contract.ErrBadRequest)
	_, err = call(w, contract.RoomNegotiate, &contract.Negotiate{SDP: "their answer", Answer: true, Device: "dd"}, "main", "bob")
	wantCode(t, err, contract.ErrBadRequest)
}
