package identity

import (
	"testing"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// A device that appears while its account is being written to is written to as well: it may
// have come after that looked for devices.
func TestADeviceThatAppearsDuringADelivery(t *testing.T) {
	f := newField(t)
	r, err := jami.NewReceipt(pool()[0], pool()[1].Public(), "")
	if err != nil {
		t.Fatal(err)
	}
	ann, err := r.Announcement.Pack()
	if err != nil {
		t.Fatal(err)
	}
	id := r.Account
	for _, kind := range []string{sentRequest, sentConfirm} {
		o := newOutbox(f.host().inbox)
		o.send(id, kind)
		_, w, _ := o.next() // is being delivered
		if !o.appeared(id)(contract.DHTValue{Data: ann}, false) {
			t.Fatal("not an announcement")
		}
		if got := o.want[id].kind; got != kind {
			t.Errorf("%s became %s", kind, got)
		}
		o.tried(id, w, nil)
		if _, again, _ := o.next(); kind == sentRequest && again == nil {
			t.Error("the device is forgotten")
		}
	}
}
