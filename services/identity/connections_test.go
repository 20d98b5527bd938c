package identity

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// ring puts a value where the account's device listens for requests for connections.
func (p *peer) ring(f *field, typ uint16, userType string, data []byte) {
	p.t.Helper()
	v, err := (&jami.Value{ID: valueIDs.Add(1), Type: typ, UserType: userType, Data: data}).EncryptTo(f.cert().PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := v.Pack()
	if err != nil {
		p.t.Fatal(err)
	}
	p.over.put(contract.DHTValue{Key: jami.PeerKey(f.host().acc.Chain.DeviceShort).String(), ID: v.ID, Data: b, Writer: p.from})
}

// ears hears what connect hears.
func (f *field) ears() chan *contract.PeerMessage {
	f.t.Helper()
	conn := f.srv.Conn("connect")
	conn.SetAccount(f.acc.ID)
	heard := make(chan *contract.PeerMessage, 64)
	sub, err := bus.Subscribe(conn, contract.PeerMessages, func(_ context.Context, _ []string, m *contract.PeerMessage) { heard <- m })
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(sub.Stop)
	if err := conn.NATS().Flush(); err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, "requests are listened to", func() bool { return f.over.listened(jami.PeerKey(f.host().acc.Chain.DeviceShort).String()) })
	return heard
}

// TestADeviceAsksForAConnection: what a good device signed is told, and nothing else.
func TestADeviceAsksForAConnection(t *testing.T) {
	f := newField(t)
	heard := f.ears()
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	alice.publish()
	blocked := newPeer(t, f.over, pool()[2], pool()[3])
	blocked.publish()
	f.set(blocked.id(), "block")
	revoked := newPeer(t, f.over, pool()[4], pool()[5])
	revoked.publish()
	revoked.revoke()
	hidden := newPeer(t, f.over, pool()[6], pool()[2])

	alice.ring(f, jami.TypeData, "other_type", []byte("other"))
	alice.ring(f, jami.TypeTrustRequest, jami.UserTypePeerRequest, []byte("other"))
	alice.ring(f, jami.TypeData, jami.UserTypePeerRequest, make([]byte, contract.MaxPeerMessage+1))
	blocked.ring(f, jami.TypeData, jami.UserTypePeerRequest, []byte("blocked"))
	revoked.ring(f, jami.TypeData, jami.UserTypePeerRequest, []byte("revoked"))
	hidden.ring(f, jami.TypeData, jami.UserTypePeerRequest, []byte("nobody knows whose"))
	f.over.put(contract.DHTValue{Key: jami.PeerKey(f.host().acc.Chain.DeviceShort).String(), ID: 1, Data: []byte("garbage")})
	for _, text := range []string{"one", "two"} { // the second one's sender is known
		alice.ring(f, jami.TypeData, jami.UserTypePeerRequest, []byte(text))
		m := <-heard
		if m.Chain != string(alice.chain.PEM()) || string(m.Message) != text {
			t.Fatalf("%q of %s", m.Message, m.Chain)
		}
	}
	f.set(alice.id(), "block")
	alice.ring(f, jami.TypeData, jami.UserTypePeerRequest, []byte("three"))
	select {
	case m := <-heard:
		t.Errorf("told too: %q", m.Message)
	case <-time.After(200 * time.Millisecond):
	}
}

// TestADeviceIsAsked: it gets what connect sends, signed by the account's device.
func TestADeviceIsAsked(t *testing.T) {
	f := newField(t)
	conn := f.srv.Conn("connect")
	conn.SetAccount(f.acc.ID)
	bob := newPeer(t, f.over, pool()[0], pool()[1])
	bob.publish()
	found, err := bus.Call(t.Context(), conn, contract.PeerFind, &contract.PeerAccount{ID: bob.id()})
	if err != nil || len(found.Chains) != 1 || found.Chains[0] != string(bob.chain.PEM()) || found.Missing != 0 {
		t.Fatalf("%+v, %v", found, err)
	}
	if _, err := bus.Call(t.Context(), conn, contract.PeerSend, &contract.PeerMessage{Chain: found.Chains[0], Message: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	got := f.over.get(jami.PeerKey(bob.chain.DeviceShort).String())
	if len(got) != 1 {
		t.Fatalf("%d values", len(got))
	}
	v, err := jami.ParseValue(got[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := v.Decrypt(bob.key)
	if err != nil || string(clear.Data) != "hello" || clear.UserType != jami.UserTypePeerRequest || clear.Type != jami.TypeData || clear.Signer() != f.host().acc.Chain.DeviceShort {
		t.Errorf("%+v, %v", clear, err)
	}
	f.set(bob.id(), "block")
	for name, m := range map[string]*contract.PeerMessage{
		"blocked":     {Chain: found.Chains[0], Message: []byte("x")},
		"empty":       {Chain: found.Chains[0]},
		"too large":   {Chain: found.Chains[0], Message: make([]byte, contract.MaxPeerMessage+1)},
		"not a chain": {Chain: "x", Message: []byte("x")},
	} {
		if _, err := bus.Call(t.Context(), conn, contract.PeerSend, m); !errors.Is(err, contract.ErrForbidden) && !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := bus.Call(t.Context(), conn, contract.PeerFind, &contract.PeerAccount{ID: bob.id()}); !errors.Is(err, contract.ErrForbidden) {
		t.Errorf("a blocked account's devices: %v", err)
	}
}
