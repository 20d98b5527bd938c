package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/parley-jami/parley/internal/jami"
)

type vector struct {
	Name, Note, Hex string
}

// vectors are packets that OpenDHT 2.4.12 sent.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile("testdata/packets.json")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(b, &vs); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, v := range vs {
		if out[v.Name], err = hex.DecodeString(v.Hex); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 22 {
		t.Fatalf("only %d packets", len(out))
	}
	return out
}

func TestVectorsRoundTrip(t *testing.T) {
	for name, b := range vectors(t) {
		var m Message
		if err := Decode(b, &m); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := m.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%s\n got %x\nwant %x", name, got, b)
		}
	}
}

func TestVectorsContent(t *testing.T) {
	vs := vectors(t)
	get := func(name string) *Message {
		t.Helper()
		var m Message
		if err := Decode(vs[name], &m); err != nil {
			t.Fatal(err)
		}
		return &m
	}
	if m := get("ping"); m.Kind != Ping || m.TID != 0x748ed784 || m.ID.String() != "7f354de1ac43199a9a3b50e65454576d60275842" {
		t.Errorf("ping %+v", m)
	}
	if m := get("pong"); m.Kind != Reply || m.Addr.String() != "127.0.0.1" {
		t.Errorf("pong %+v", m)
	}
	m := get("find_reply")
	id, addr, rest := NextNode(m.Nodes4, Node4)
	if len(rest) != 0 || id.String() != "7f354de1ac43199a9a3b50e65454576d60275842" || addr.String() != "127.0.0.1:4301" || len(m.Token) != 32 {
		t.Errorf("nodes %v %v %d, token %x", id, addr, len(rest), m.Token)
	}
	if m := get("find_want"); m.Want != Want4|Want6 {
		t.Errorf("want %b", m.Want)
	}
	m = get("put_plain")
	v, err := jami.ParseValue(m.Values.Next())
	if err != nil || string(v.Data) != "hello-plain" || m.Created != 0x6b04d4e6 || m.Values.Next() != nil {
		t.Errorf("value %+v, %v, created %x", v, err, m.Created)
	}
	m = get("put_fragmented_head")
	if n, ok := m.Values.NextUint(); !ok || !m.Sizes {
		t.Errorf("size %d, %v", n, ok)
	}
	m = get("put_fragment_1")
	if p, ok := NextPiece(&m.Pieces); !ok || p.Index != 0 || p.Offset != 1280 || len(p.Data) == 0 {
		t.Errorf("piece %+v, %v", p, ok)
	}
	m = get("get_select_reply")
	if f := m.Fields.Fields(); len(f) != 1 || f[0] != FieldID {
		t.Errorf("fields %v", f)
	}
	m = get("get_by_id")
	if w := m.Query.Where(); len(w) != 1 || w[0].Field != FieldID || w[0].Num != 0xfb90f24465fadca7 || len(m.Query.Select()) != 0 {
		t.Errorf("query %+v", m.Query)
	}
	m = get("update_refreshed")
	if id, ok := m.Refreshed.NextUint(); !ok || id != 0xf64393a5567496ac || m.SID != 0x2183ca80 {
		t.Errorf("refreshed %x, %v, sid %x", id, ok, m.SID)
	}
}

func TestErrorRoundTrip(t *testing.T) {
	m := Message{Kind: Error, TID: 7, Network: 9, Client: true, ID: jami.HashKey("x"), Code: ErrUnauthorized, Text: []byte("Put with wrong token")}
	var got Message
	if err := Decode(m.Append(nil), &got); err != nil {
		t.Fatal(err)
	}
	if got.Kind != Error || got.Code != ErrUnauthorized || got.Network != 9 || !got.Client || got.ID != m.ID || string(got.Text) != string(m.Text) {
		t.Errorf("%+v", got)
	}
}

func TestRefused(t *testing.T) {
	ping := func(change func(*Message)) []byte {
		m := Message{Kind: Ping, TID: 1, ID: jami.HashKey("a")}
		change(&m)
		return m.Append(nil)
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"not a map":         {0x93, 1, 2, 3},
		"zero id":           ping(func(m *Message) { m.ID = jami.ID{} }),
		"trailing":          append(ping(func(*Message) {}), 0),
		"put without token": ping(func(m *Message) { m.Kind = Put; m.Has = HasTarget | HasValues }),
		"long token":        ping(func(m *Message) { m.Kind = Find; m.Token = make([]byte, 65); m.Has = HasToken }),
		"odd node list":     ping(func(m *Message) { m.Kind = Reply; m.Nodes4 = make([]byte, 27); m.Has = HasNodes4 }),
		"unknown query":     bytes.Replace(ping(func(*Message) {}), []byte("ping"), []byte("pong"), 1),
		"huge map":          {0xdf, 0xff, 0xff, 0xff, 0xff},
		"deep":              append([]byte{0x81, 0xa1, 'z'}, bytes.Repeat([]byte{0x91}, 1000)...),
	} {
		var m Message
		if err := Decode(b, &m); err == nil {
			t.Errorf("%s was read as %+v", name, m)
		}
	}
}

// TestNoAllocation: neither reading nor writing takes memory.
func TestNoAllocation(t *testing.T) {
	var m Message
	buf := make([]byte, 0, MaxPacket)
	for name, b := range vectors(t) {
		if n := testing.AllocsPerRun(100, func() {
			if Decode(b, &m) != nil {
				t.Fail()
			}
			buf = m.Append(buf[:0])
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzDecode: what is read can be written and read again, with the same bytes.
func FuzzDecode(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again Message
		if Decode(b, &m) != nil {
			return
		}
		for a := m.Values; a.Len() > 0; {
			a.Next()
		}
		for a := m.Pieces; a.Len() > 0; {
			if _, ok := NextPiece(&a); !ok {
				t.Fatal("a piece that was checked does not read")
			}
		}
		one := m.Append(nil)
		if err := Decode(one, &again); err != nil {
			t.Fatalf("%v\n%x\n%x", err, b, one)
		}
		if two := again.Append(nil); !bytes.Equal(one, two) {
			t.Fatalf("unstable\n%x\n%x", one, two)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	p := vectors(b)["get_reply_value"]
	var m Message
	for b.Loop() {
		if err := Decode(p, &m); err != nil {
			b.Fatal(err)
		}
	}
}
