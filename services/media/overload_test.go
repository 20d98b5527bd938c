package media

import (
	"errors"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

// TestLateWorkerTakesNobody: while rooms cannot keep their time, new legs are refused with the reason and where to
// go, those that are here go on, and the beat says so.
func TestLateWorkerTakesNobody(t *testing.T) {
	r := newRig(t)
	beats := events(r, contract.MediaBeat)
	open := func(id string) error {
		_, err := ask(r, contract.MediaLegOpen, contract.LegOpen{Leg: id, Room: "main", Epoch: 1, Transport: contract.TransportBus})
		return err
	}
	if err := open("early"); err != nil {
		t.Fatal(err)
	}
	over := &r.run.hostNow().Ticks().Over
	over.Add(1)
	err := open("late")
	if !errors.Is(err, contract.ErrBusy) || !strings.Contains(err.Error(), "cannot keep its time") || !strings.Contains(err.Error(), "parley join") {
		t.Errorf("refused with %v", err)
	}
	if err := open("early"); err != nil {
		t.Errorf("who is in comes back: %v", err)
	}
	await(t, beats, "it is late", func(b contract.WorkerBeat) bool { return b.Late })
	over.Add(-1)
	await(t, beats, "it is not late any more", func(b contract.WorkerBeat) bool { return !b.Late })
	if err := open("late"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
