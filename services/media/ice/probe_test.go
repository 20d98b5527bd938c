package ice

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun"
)

// A check of ours is one to another implementation, and its answer is one to us.
func TestProbe(t *testing.T) {
	const pwd = "theirtheirtheirtheirpass"
	for _, user := range []string{"abcd:ours", "abcde:ours5678", strings.Repeat("u", 256) + ":ours5678"} {
		p := NewProbe(2)
		m := &stun.Message{Raw: p.Append([]byte("before")[:0], user, pwd)}
		if len(m.Raw) > MaxRequest {
			t.Errorf("%d bytes", len(m.Raw))
		}
		if err := m.Decode(); err != nil {
			t.Fatal(err)
		}
		var name stun.Username
		if err := name.GetFrom(m); err != nil || name.String() != user || m.Type != stun.BindingRequest || m.TransactionID != p.TxID {
			t.Errorf("%s %q %v", m.Type, name, err)
		}
		if err := stun.NewShortTermIntegrity(pwd).Check(m); err != nil {
			t.Error(err)
		}
		if err := stun.Fingerprint.Check(m); err != nil {
			t.Error(err)
		}
		role, err := m.Get(stun.AttrICEControlling)
		if err != nil || !bytes.Equal(role, bytes.Repeat([]byte{255}, 8)) || !m.Contains(stun.AttrUseCandidate) {
			t.Errorf("role %x, %v", role, err)
		}
		if v, err := m.Get(stun.AttrPriority); err != nil || !bytes.Equal(v, []byte{110, 255, 255, 254}) {
			t.Errorf("priority %x, %v", v, err)
		}
		var c Check
		if !c.Parse(m.Raw) || !c.Authentic(m.Raw, pwd) {
			t.Fatal("not a check to us")
		}
		answer := c.Append(nil, netip.MustParseAddrPort("192.0.2.7:4711"), pwd)
		if id, ok := Answered(answer); !ok || id != p.TxID || !AuthenticAnswer(answer, pwd) {
			t.Error("the answer is refused")
		}
		if AuthenticAnswer(answer, pwd+"x") || AuthenticAnswer(answer[:len(answer)-4], pwd) || AuthenticAnswer(answer[:headSize], pwd) {
			t.Error("a false answer is taken")
		}
		if _, ok := Answered(c.AppendConflict(nil, pwd)); ok {
			t.Error("an error is a success")
		}
	}
}

func FuzzAnswer(f *testing.F) {
	var c Check
	if !c.Parse(request(f, "pw")) {
		f.Fatal("no check")
	}
	f.Add(c.Append(nil, netip.MustParseAddrPort("192.0.2.7:4711"), "pw"))
	f.Add(c.AppendConflict(nil, "pw"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := Answered(b); !ok && len(b) > 1 && b[0] == 1 && b[1] == 1 && len(b) >= headSize && bytes.Equal(b[4:8], []byte{0x21, 0x12, 0xa4, 0x42}) {
			t.Fatal("a success response is none")
		}
		AuthenticAnswer(b, "pw")
	})
}

func BenchmarkProbe(b *testing.B) {
	p, out := NewProbe(1), make([]byte, 0, MaxRequest)
	b.ReportAllocs()
	for b.Loop() {
		out = p.Append(out[:0], "theirs:ours", "pw")
	}
}
