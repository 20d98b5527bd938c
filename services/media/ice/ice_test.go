package ice

import (
	"net/netip"
	"testing"

	"github.com/pion/stun"
)

func request(t testing.TB, pwd string, extra ...stun.Setter) []byte {
	t.Helper()
	set := append([]stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername("ours:theirs")}, extra...)
	m, err := stun.Build(append(set, stun.NewShortTermIntegrity(pwd), stun.Fingerprint)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

func TestCheckAndAnswer(t *testing.T) {
	const pwd = "secretsecretsecretsecret"
	use := stun.RawAttribute{Type: stun.AttrUseCandidate}
	raw := request(t, pwd, use)
	var c Check
	if !c.Parse(raw) {
		t.Fatal("check not parsed")
	}
	if string(c.Local) != "ours" || string(c.Remote) != "theirs" || !c.UseCandidate || c.Controlled {
		t.Fatalf("parsed %+v", c)
	}
	if !c.Authentic(raw, pwd) {
		t.Error("integrity refused")
	}
	if c.Authentic(raw, pwd+"x") {
		t.Error("wrong password taken")
	}
	for _, addr := range []string{"192.0.2.7:4711", "[2001:db8::7]:4711"} {
		want := netip.MustParseAddrPort(addr)
		m := &stun.Message{Raw: c.Append(nil, want, pwd)}
		if len(m.Raw) > MaxResponse {
			t.Errorf("answer of %d bytes", len(m.Raw))
		}
		if err := m.Decode(); err != nil {
			t.Fatal(err)
		}
		var got stun.XORMappedAddress
		if err := got.GetFrom(m); err != nil {
			t.Fatal(err)
		}
		if ip, _ := netip.AddrFromSlice(got.IP); ip.Unmap() != want.Addr() || got.Port != int(want.Port()) {
			t.Errorf("address %s, want %s", got, want)
		}
		if err := stun.NewShortTermIntegrity(pwd).Check(m); err != nil {
			t.Error(err)
		}
		if err := stun.Fingerprint.Check(m); err != nil {
			t.Error(err)
		}
		if m.Type != stun.BindingSuccess || m.TransactionID != c.txid {
			t.Errorf("type %s", m.Type)
		}
	}
}

// Who takes itself for the controlled side is told to take the other role (RFC 8445 §7.3.1.1).
func TestConflict(t *testing.T) {
	const pwd = "secretsecretsecretsecret"
	raw := request(t, pwd, stun.RawAttribute{Type: stun.AttrICEControlled, Value: make([]byte, 8)})
	var c Check
	if !c.Parse(raw) || !c.Controlled || !c.Authentic(raw, pwd) {
		t.Fatalf("parsed %+v", c)
	}
	m := &stun.Message{Raw: c.AppendConflict(nil, pwd)}
	if len(m.Raw) > MaxResponse {
		t.Errorf("answer of %d bytes", len(m.Raw))
	}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	var code stun.ErrorCodeAttribute
	if err := code.GetFrom(m); err != nil || code.Code != stun.CodeRoleConflict || string(code.Reason) != "Role Conflict" {
		t.Errorf("%v, %v", code, err)
	}
	if err := stun.NewShortTermIntegrity(pwd).Check(m); err != nil {
		t.Error(err)
	}
	if err := stun.Fingerprint.Check(m); err != nil {
		t.Error(err)
	}
	if m.Type != stun.BindingError || m.TransactionID != c.txid {
		t.Errorf("type %s", m.Type)
	}
}

func TestRefused(t *testing.T) {
	good := request(t, "pw")
	flip := func(i int) []byte { b := append([]byte{}, good...); b[i] ^= 1; return b }
	noInt, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername("a:b"), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "short": good[:19], "cut": good[:len(good)-4], "type": flip(1), "magic": flip(4),
		"fingerprint": flip(len(good) - 1), "no integrity": noInt.Raw,
	} {
		var c Check
		if c.Parse(b) {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(request(f, "pw"))
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Check
		if c.Parse(b) {
			c.Authentic(b, "pw")
			c.Append(nil, netip.MustParseAddrPort("192.0.2.1:9"), "pw")
			c.AppendConflict(nil, "pw")
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	raw := request(b, "pw")
	addr := netip.MustParseAddrPort("192.0.2.7:4711")
	out := make([]byte, 0, MaxResponse)
	b.ReportAllocs()
	for b.Loop() {
		var c Check
		if !c.Parse(raw) || !c.Authentic(raw, "pw") {
			b.Fatal("refused")
		}
		out = c.Append(out[:0], addr, "pw")
	}
}
