package wire

import (
	"bytes"
	"testing"
)

// What a program calls itself is read where it is a short text, and passed over else:
// nobody checks it (§1.1).
func TestAgent(t *testing.T) {
	m := Message{Kind: Ping, TID: 1, ID: [20]byte{1}}
	packet := m.Append(nil)
	old := AppendStr(AppendStr(nil, "v"), Agent)
	for value, want := range map[string]string{
		"\xa2o2":                "o2",
		"\xc4\x04RNG1":          "RNG1", // bin
		"\xa0":                  "",
		"\x07":                  "", // a number
		"\xc0":                  "",
		"\x92\x01\x02":          "", // a list
		"\xb1seventeen letters": "",
		"\xb0sixteen letters!":  "sixteen letters!",
	} {
		b := bytes.Replace(packet, old, append([]byte("\xa1v"), value...), 1)
		var got Message
		if err := Decode(b, &got); err != nil || string(got.Agent) != want || got.ID != m.ID {
			t.Errorf("%q: %q, %v", value, got.Agent, err)
		}
	}
}
