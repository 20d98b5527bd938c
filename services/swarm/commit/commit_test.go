package commit

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

const device = "9079124a2ae2b461110b6442ee9704f26c5647a357d9cd39b188e0608485eb76"

func sample() *Commit {
	return &Commit{Tree: plumbing.NewHash("73a845aeb18d35557e6a76685929726fcc798d67"), Parents: []plumbing.Hash{plumbing.NewHash("ddf6dfb319f74a778abee7ba7f549090bec69d21")},
		Name: "Alice", Device: device, Time: time.Unix(1700000000, 0).UTC(), Signature: []byte("sig"), Message: []byte(`{"body":"hi","type":"text/plain"}`)}
}

// want is the layout of swarm §1.8.
const want = "tree 73a845aeb18d35557e6a76685929726fcc798d67\n" +
	"parent ddf6dfb319f74a778abee7ba7f549090bec69d21\n" +
	"author Alice <" + device + "> 1700000000 +0000\n" +
	"committer Alice <" + device + "> 1700000000 +0000\n" +
	"signature c2ln\n" +
	"\n" +
	`{"body":"hi","type":"text/plain"}`

func TestLayout(t *testing.T) {
	if got := string(sample().Raw()); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	c, signed, err := Parse([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.Raw(), []byte(want)) || !bytes.Equal(signed, sample().Unsigned()) || string(c.Signature) != "sig" {
		t.Fatalf("round trip: %+v\n%s", c, signed)
	}
}

func TestNamesDoNotBreakTheHeader(t *testing.T) {
	for in, out := range map[string]string{"": device, "<>": device, "A <b>\nparent x": "A bparent x", " Zoë ": "Zoë"} {
		c := sample()
		c.Name = in
		p, _, err := Parse(c.Raw())
		if err != nil || p.Name != out {
			t.Errorf("%q became %q, %v; want %q", in, p.Name, err, out)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, edit := range map[string][2]string{
		"no blank line":      {"\n\n", "\n"},
		"no tree":            {"tree 73a845aeb18d35557e6a76685929726fcc798d67\n", ""},
		"short tree":         {"tree 73", "tree "},
		"upper-case parent":  {"parent ddf6", "parent DDF6"},
		"author after":       {"author Alice", "x Alice"},
		"other committer":    {"committer Alice", "committer Bob"},
		"no committer":       {"committer Alice <" + device + "> 1700000000 +0000\n", ""},
		"zone":               {"1700000000 +0000\ncommitter", "1700000000 +0100\ncommitter"},
		"time with sign":     {"1700000000 +0000\ncommitter", "+1700000000 +0000\ncommitter"},
		"short device":       {"<90", "<"},
		"bad base64":         {"signature c2ln", "signature c2l!"},
		"empty signature":    {"signature c2ln", "signature "},
		"second signature":   {"signature c2ln", "signature c2ln\nsignature c2ln"},
		"second tree":        {"signature", "tree 73a845aeb18d35557e6a76685929726fcc798d67\nsignature"},
		"stray continuation": {"\nparent", "\n x\nparent"},
		"too long":           {"hi", strings.Repeat("x", MaxSize)},
	} {
		raw := strings.Replace(want, edit[0], edit[1], 1)
		if c, _, err := Parse([]byte(raw)); !errors.Is(err, ErrMalformed) || c != nil {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

func TestMessage(t *testing.T) {
	m := Message{"type": "text/plain", "mode": "2", "body": "a\"\\\n\t\b\f\r\x01 é 😀 <&>/"}
	raw := `{"body":"a\"\\\n\t\b\f\r\u0001 \u00e9 \ud83d\ude00 <&>/","mode":2,"type":"text/plain"}`
	if got := string(m.Encode()); got != raw {
		t.Fatalf("got  %s\nwant %s", got, raw)
	}
	back, err := ParseMessage([]byte(raw))
	if err != nil || back["body"] != m["body"] || back["mode"] != "2" || len(back) != 3 {
		t.Fatalf("%v, %v", back, err)
	}
	for _, bad := range []string{``, `null`, `[]`, `{}`, `{"type":""}`, `{"type":1}`, `{"type":"x"`, `{"type":"x"} x`, "Merge commit 'x'"} {
		if m, err := ParseMessage([]byte(bad)); !errors.Is(err, ErrMalformed) || m != nil {
			t.Errorf("%s: %v, %v", bad, m, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(want))
	f.Add(sample().Unsigned())
	f.Add([]byte(strings.Replace(want, "signature c2ln", "gpgsig x\n y\nsignature c2\n ln", 1)))
	f.Add([]byte("tree \n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, signed, err := Parse(raw)
		if err != nil {
			if c != nil || signed != nil {
				t.Fatal("a result beside an error")
			}
			return
		}
		again, signed2, err := Parse(c.Raw())
		if err != nil {
			t.Fatalf("what was parsed does not parse again: %v", err)
		}
		if !bytes.Equal(signed2, c.Unsigned()) || again.Tree != c.Tree || again.Device != c.Device || !again.Time.Equal(c.Time) || !bytes.Equal(again.Message, c.Message) {
			t.Fatalf("round trip changed %+v to %+v", c, again)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"body":"hi","type":"text/plain"}`))
	f.Add([]byte(`{"mode":2,"type":"initial"}`))
	f.Add([]byte(`{"mode":{"a":[1, null]},"type":"\ud800"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := ParseMessage(raw)
		if err != nil {
			return
		}
		again, err := ParseMessage(m.Encode())
		if err != nil {
			t.Fatalf("%q: %v", m.Encode(), err)
		}
		if len(again) != len(m) || again[KeyType] != m[KeyType] || again[KeyBody] != m[KeyBody] {
			t.Fatalf("round trip changed %v to %v", m, again)
		}
	})
}
