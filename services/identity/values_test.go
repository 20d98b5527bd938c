package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// ask has a peer put a value with a user type for a device.
func (p *peer) ask(to *x509.Certificate, userType string, data []byte) {
	p.t.Helper()
	v, err := (&jami.Value{ID: valueIDs.Add(1), Data: data, UserType: userType}).EncryptTo(to.PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := v.Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	short, _ := jami.CertIDs(to)
	p.over.put(contract.DHTValue{Key: jami.PeerKey(short).String(), ID: v.ID, Data: b, Writer: p.from})
}

// asked are the values at the key where a peer is asked for connections, that it can open.
func (p *peer) asked() (out []*jami.Value) {
	p.t.Helper()
	for _, dv := range p.over.get(jami.PeerKey(p.chain.DeviceShort).String()) {
		v, err := jami.ParseValue(dv.Data)
		if err != nil {
			p.t.Fatal(err)
		}
		clear, err := v.Decrypt(p.key)
		if err != nil {
			p.t.Fatal(err)
		}
		out = append(out, clear)
	}
	return out
}

// gotAddresses is the last that a peer was told.
func (p *peer) gotAddresses() (last *jami.Addresses) {
	p.t.Helper()
	for _, v := range p.asked() {
		if v.UserType == jami.UserTypeAddresses {
			a, err := jami.ParseAddresses(v.Data)
			if err != nil {
				p.t.Fatal(err)
			}
			last = a
		}
	}
	return last
}

func pack(t *testing.T, a jami.Addresses) []byte {
	t.Helper()
	b, err := a.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAddressesAreExchanged(t *testing.T) {
	f := newField(t)
	came := make(chan *contract.PeerAddresses, 16)
	sub, err := bus.Subscribe(f.cli, contract.AddressEvents, func(_ context.Context, _ []string, e *contract.PeerAddresses) { came <- e })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Stop)
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	theirs := netip.MustParseAddr("198.51.100.7")
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	ask := func(id string) (*contract.AddressAsked, error) {
		return bus.Call(t.Context(), f.cli, contract.AddressAskCmd, &contract.AddressAsk{To: id})
	}
	if _, err := ask(alice.id()); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("of no contact: %v", err)
	}
	alice.publish()
	alice.ask(f.cert(), jami.UserTypeAddresses, pack(t, jami.Addresses{ID: 1, List: []netip.Addr{theirs}}))
	eventually(t, "who is no contact is told nothing", func() bool { return f.counted(verdictDropped) == 1 })
	f.set(alice.id(), "add")

	// We ask.
	if a, err := ask(alice.id()); err != nil || a.Devices != 1 || !slices.Equal(a.Told, []string{"192.0.2.1", "2001:db8::1"}) {
		t.Errorf("%+v, %v", a, err)
	}
	q := alice.gotAddresses()
	if q == nil || q.Answer || !slices.Equal(q.List, own) {
		t.Fatalf("asked %+v", q)
	}
	alice.ask(f.cert(), jami.UserTypeAddresses, pack(t, jami.Addresses{ID: q.ID + 1, Answer: true, List: []netip.Addr{theirs}}))
	eventually(t, "an answer to nothing", func() bool { return f.counted(verdictDropped) == 2 })
	alice.ask(f.cert(), jami.UserTypeAddresses, pack(t, jami.Addresses{ID: q.ID, Answer: true, List: []netip.Addr{theirs}}))
	if e := next(t, "the answer", came); e.From != alice.id() || e.Device != alice.chain.DeviceID.String() || !e.Answer || !slices.Equal(e.Addresses, []string{"198.51.100.7"}) {
		t.Errorf("%+v", e)
	}

	// A contact asks: it is told, but not without end.
	for i := range 10 {
		alice.ask(f.cert(), jami.UserTypeAddresses, pack(t, jami.Addresses{ID: 100 + uint64(i), List: []netip.Addr{theirs}}))
		if e := next(t, "a question", came); e.Answer || e.From != alice.id() {
			t.Errorf("%+v", e)
		}
	}
	eventually(t, "answers", func() bool { a := alice.gotAddresses(); return a != nil && (a.Answer || len(alice.asked()) > 1) })
	if n := len(alice.asked()); n > 1+tellBurst+1 {
		t.Errorf("%d answers", n-1)
	}
	for _, v := range alice.asked() {
		if a, err := jami.ParseAddresses(v.Data); err != nil || a.Answer && (a.ID < 100 || !slices.Equal(a.List, own)) {
			t.Errorf("%+v, %v", a, err)
		}
	}
}
