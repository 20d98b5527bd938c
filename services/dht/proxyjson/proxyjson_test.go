package proxyjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// The files in testdata were made by jamid 13.7.0.
func vector(t testing.TB, name string) *jami.Value {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".value.bin"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jami.ParseValue(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var names = []string{"signed_text", "device_announcement", "certificate", "enc_im_message", "enc_trust_request_confirm"}

// What stock made comes back as the same bytes, by JSON and by the overlay.
func TestVectors(t *testing.T) {
	for _, name := range names {
		v := vector(t, name)
		want, err := v.Pack()
		if err != nil {
			t.Fatal(err)
		}
		for _, expired := range []bool{false, true} {
			b, err := Line{v, expired}.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			l, err := ParseLine(b)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got, err := l.Value.Pack(); err != nil || !bytes.Equal(got, want) || l.Expired != expired {
				t.Errorf("%s: another value, %v", name, err)
			}
		}
		o, err := ToOverlay(overlay.Key{1}, v)
		if err != nil || o.ID != v.ID || o.Key != (overlay.Key{1}) {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := FromOverlay(o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := back.Pack(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the overlay has another value, %v", name, err)
		}
	}
}

func TestFormOfSigned(t *testing.T) {
	v := vector(t, "signed_text")
	v.To = jami.ID{0xab}
	b, err := Line{Value: v}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	if m["id"] != "16826173070136313877" || m["seq"] != 0.0 || m["type"] != 0.0 || m["utype"] != "text/plain" || m["data"] != "aGVsbG8tc2lnbmVk" ||
		m["to"] != "ab"+strings.Repeat("0", 38) || !strings.HasPrefix(m["owner"].(string), "-----BEGIN PUBLIC KEY-----\n") {
		t.Errorf("%s", b)
	}
	m["owner"] = m["owner"].(string) + "\x00" // as servers before 4.3.0
	b, _ = json.Marshal(m)
	if l, err := ParseLine(b); err != nil || !reflect.DeepEqual(l.Value, v) {
		t.Errorf("with a NUL: %v", err)
	}
	delete(m, "seq")
	b, _ = json.Marshal(m)
	if _, err := ParseLine(b); !errors.Is(err, ErrField) {
		t.Errorf("without a sequence: %v", err)
	}
}

func TestForged(t *testing.T) {
	v := vector(t, "signed_text")
	v.Data = []byte("other")
	o, err := ToOverlay(overlay.Key{1}, v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FromOverlay(o); !errors.Is(err, jami.ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func TestParsePut(t *testing.T) {
	for _, tt := range []struct {
		body string
		want *Put
		err  error
	}{
		{`{}`, &Put{Value: &jami.Value{Data: []byte{}}}, nil},
		{` {"data":"aGk=","id":"77","type":3,"utype":"a<b","prio":1,"seq":9,"more":[{}]}`, &Put{Value: &jami.Value{ID: 77, Type: 3, UserType: "a<b", Priority: 1, Data: []byte("hi")}}, nil},
		{`{"id":18446744073709551615,"data":"","permanent":true}`, &Put{Value: &jami.Value{ID: 1<<64 - 1, Data: []byte{}}, Permanent: true}, nil},
		{`{"cypher":"AAE=","id":"5","data":"!","prio":2}`, &Put{Value: &jami.Value{ID: 5, Priority: 2, Cipher: []byte{0, 1}}}, nil},
		{`{"permanent":false}`, &Put{Value: &jami.Value{Data: []byte{}}}, nil},
		{`{"permanent":{"key":"https://p","client_id":"c","session_id":"s","platform":"unifiedpush","topic":"t"}}`,
			&Put{Value: &jami.Value{Data: []byte{}}, Permanent: true, Push: &Subscription{Token: "https://p", ClientID: "c", SessionID: "s", Platform: UnifiedPush, Topic: "t"}}, nil},
		{`{"permanent":3}`, nil, ErrJSON},
		{`{"permanent":{"key":3}}`, nil, ErrField},
		{``, nil, ErrJSON},
		{`[]`, nil, ErrJSON},
		{`nope`, nil, ErrJSON},
		{`{"data":"aGk="`, nil, ErrJSON},
		{`{}{}`, nil, ErrJSON},
		{`{"data":5}`, nil, ErrField},
		{`{"data":"!!!"}`, nil, ErrField},
		{`{"id":"zz"}`, nil, ErrField},
		{`{"id":"18446744073709551616"}`, nil, ErrField},
		{`{"id":1.5}`, nil, ErrField},
		{`{"id":[1]}`, nil, ErrField},
		{`{"type":65536}`, nil, ErrField},
		{`{"type":-1}`, nil, ErrField},
		{`{"owner":"x"}`, nil, ErrField},
		{`{"owner":"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}`, nil, ErrField},
		{`{"data":"` + strings.Repeat("A", 65536/3*4+8) + `"}`, nil, jami.ErrTooLarge},
		{`{"data":"` + strings.Repeat("A", MaxValue) + `"}`, nil, jami.ErrTooLarge},
	} {
		got, err := ParsePut([]byte(tt.body))
		if !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%.80s: %+v, %v", tt.body, got, err)
		}
		if got == nil {
			continue
		}
		b, err := got.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParsePut(b); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s: again %+v, %v", b, again, err)
		}
	}
}

func TestLargest(t *testing.T) {
	v := &jami.Value{ID: 1<<64 - 1, Data: make([]byte, jami.MaxValue)}
	b, err := Put{Value: v, Permanent: true, Push: &Subscription{Token: strings.Repeat("t", maxText)}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ParsePut(b); err != nil || len(p.Value.Data) != jami.MaxValue {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	if _, err := ToOverlay(overlay.Key{1}, v); !errors.Is(err, jami.ErrTooLarge) { // its names count there
		t.Error(err)
	}
}

func TestNotice(t *testing.T) {
	for _, n := range []Notice{
		{Key: "ab", To: "c", Session: "s", Time: 1795479091000},
		{Key: "ab", To: "c", Session: "s", Time: 1, Expired: 1<<64 - 1},
		{Timeout: "ab", To: "c", Session: "s", Value: 7},
	} {
		b, err := n.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var texts map[string]string
		if err := json.Unmarshal(b, &texts); err != nil {
			t.Errorf("not strings alone: %s", b)
		}
		if got, err := ParseNotice(b); err != nil || *got != n {
			t.Errorf("%s: %+v, %v", b, got, err)
		}
	}
}

func TestSubscriptionBounds(t *testing.T) {
	for _, body := range []string{`{"key":"` + strings.Repeat("k", maxText+1) + `"}`, `{"client_id":["a"]}`, `"a"`, `{"x":"` + strings.Repeat("k", MaxSubscription) + `"}`} {
		if _, err := ParseSubscription([]byte(body)); err == nil {
			t.Errorf("%.40s: taken", body)
		}
	}
}

func TestNodeInfo(t *testing.T) {
	want := &NodeInfo{NodeID: "ab", IPv4: Table{Good: 1, Incoming: 1}, Ops: 2, PublicIP: "::ffff:127.0.0.1"}
	b, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseNodeInfo(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, %v", b, got, err)
	}
	if _, err := ParseNodeInfo([]byte(`{"ipv4":{}}`)); err == nil {
		t.Error("taken without an id")
	}
}

func TestKey(t *testing.T) {
	for text, want := range map[string]string{
		"foo": "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33",
		"0BEEC7b5ea3f0fdbc95d0dd47f3c5bc275da8a33": "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33",
	} {
		if k, err := ParseKey(text); err != nil || k.String() != want {
			t.Errorf("%s: %v, %v", text, k, err)
		}
	}
	for _, text := range []string{"", strings.Repeat("k", MaxKey+1)} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%d bytes: taken", len(text))
		}
	}
}

func FuzzParsePut(f *testing.F) {
	for _, name := range names {
		b, err := Put{Value: vector(f, name), Permanent: true, Push: &Subscription{Token: "t"}}.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"data":"aGk=","id":"77","type":3,"utype":"text/plain","prio":1,"permanent":true,"expired":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseLine(b); err != nil {
			if _, err := ParsePut(b); err == nil {
				t.Error("a put is no value")
			}
			return
		}
		p, err := ParsePut(b)
		if err != nil { // what permanent is
			return
		}
		if _, err := p.Value.Pack(); err != nil {
			t.Fatal(err)
		}
		out, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParsePut(out); err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("%s: %v", out, err)
		}
	})
}

func FuzzParseSubscription(f *testing.F) {
	f.Add([]byte(`{"key":"https://push.example/up?token=1","client_id":"c","session_id":"abcdefgh","platform":"unifiedpush","topic":"cx.ring","refresh":true}`))
	f.Add([]byte(`{"key":"ab","to":"c","t":"1","s":"s","exp":"9"}`))
	f.Add([]byte(`{"node_id":"ab","ipv4":{"good":1}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseSubscription(b); err == nil {
			out, err := s.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if len(out) <= MaxSubscription {
				if again, err := ParseSubscription(out); err != nil || *again != *s {
					t.Errorf("%s: %v", out, err)
				}
			}
		}
		if n, err := ParseNotice(b); err == nil {
			out, err := n.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if again, err := ParseNotice(out); len(out) <= MaxSubscription && (err != nil || *again != *n) {
				t.Errorf("%s: %v", out, err)
			}
		}
		if n, err := ParseNodeInfo(b); err == nil && n.NodeID == "" {
			t.Error("no id")
		}
	})
}

// TestNoDataIsNotWritten: stock peers would read it as two zero bytes.
func TestNoDataIsNotWritten(t *testing.T) {
	for _, data := range [][]byte{nil, {}} {
		b, err := Put{Value: &jami.Value{ID: 1, Data: data}}.Marshal()
		if err != nil || bytes.Contains(b, []byte("data")) {
			t.Errorf("%s, %v", b, err)
		}
		if p, err := ParsePut(b); err != nil || p.Value.Data == nil || len(p.Value.Data) != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	}
}
