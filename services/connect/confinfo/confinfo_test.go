package confinfo

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const (
	ann   = "aa23456789abcdef0123456789abcdef01234567"
	annPC = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func TestInfo(t *testing.T) {
	p := Participant{URI: URI(ann), Device: annPC, SinkID: Sink("jami-1"), W: 10, H: 10, VideoMuted: true, IsModerator: true, HandRaised: true}
	text, n, err := Info(1, []Participant{Host(ann), p})
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	want := `{"h":0,"w":0,"v":1,"layout":1,"p":[{"uri":"` + ann + `@ring.dht","device":"","sinkId":"","active":false,"x":0,"y":0,"w":0,"h":0,"videoMuted":true,"audioLocalMuted":true,` +
		`"audioModeratorMuted":false,"isModerator":true,"handRaised":false,"voiceActivity":false,"recording":false},{"uri":"` + ann + `@ring.dht","device":"` + annPC + `","sinkId":"jami-1_audio_0",` +
		`"active":false,"x":0,"y":0,"w":10,"h":10,"videoMuted":true,"audioLocalMuted":false,"audioModeratorMuted":false,"isModerator":true,"handRaised":true,"voiceActivity":false,"recording":false}]}`
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// A state of any number of participants is one message that a stock peer reads.
func TestInfoIsBounded(t *testing.T) {
	ps := make([]Participant, 500)
	for i := range ps {
		ps[i] = Participant{URI: URI(ann), Device: annPC, SinkID: Sink(fmt.Sprint("jami-0123456789abcdef", i))}
	}
	text, n, err := Info(0, ps)
	if err != nil || len(text) > MaxInfo || n < 15 {
		t.Errorf("%d bytes, %d participants, %v", len(text), n, err)
	}
	var s struct{ P []Participant }
	if err := json.Unmarshal([]byte(text), &s); err != nil || len(s.P) != n {
		t.Errorf("%d read back, %v", len(s.P), err)
	}
	t.Logf("%d participants in %d bytes", n, len(text))
	if text, n, err = Info(0, []Participant{{URI: strings.Repeat("x", 2*MaxInfo)}}); err != nil || n != 0 || text != `{"h":0,"w":0,"v":1,"layout":0}` {
		t.Errorf("%s, %d, %v", text, n, err)
	}
}

// What stock peers send (connect-and-calls §4.3).
var stockOrders = []struct {
	name, text string
	want       []Order
}{
	{"hand", `{"` + ann + `":{"devices":{"` + annPC + `":{"raiseHand":true}}},"version":1}`, []Order{{Verb: Hand, Account: ann, Device: annPC, On: true}}},
	{"hang up", `{"` + ann + `":{"devices":{"` + annPC + `":{"hangup":"true"}}},"version":1}`, []Order{{Verb: Hangup, Account: ann, Device: annPC}}},
	{"mute", `{"` + ann + `":{"devices":{"` + annPC + `":{"medias":{"s_audio_0":{"muteAudio":true}}}},"medias":{"s_audio_0":{"muteAudio":true}}},"version":1}`,
		[]Order{{Verb: Mute, Account: ann, Device: annPC, Stream: "s_audio_0", On: true}}},
	{"active", `{"` + ann + `":{"medias":{"s_video_0":{"active":true}}},"version":1}`, []Order{{Verb: Active, Account: ann, Stream: "s_video_0", On: true}}},
	{"voice", `{"` + ann + `":{"devices":{"` + annPC + `":{"medias":{"s":{"voiceActivity":false}}}}},"version":1}`, []Order{{Verb: Voice, Account: ann, Device: annPC, Stream: "s"}}},
	{"layout", `{"layout":2,"version":1}`, []Order{{Verb: Layout, Layout: 2}}},
	{"layout, old", `{"layout":1}`, []Order{{Verb: Layout, Layout: 1}}},
	{"layout of later", `{"layout":7}`, nil},
	{"hand, old", `{"handRaised":"` + ann + `","handState":"true"}`, []Order{{Verb: Hand, Account: ann, On: true}}},
	{"nobody active", `{"activeParticipant":""}`, []Order{{Verb: Active}}},
	{"active, old", `{"activeParticipant":"` + ann + `@ring.dht"}`, []Order{{Verb: Active, Account: ann, On: true}}},
	{"mute, old", `{"muteParticipant":"` + ann + `","muteState":"false"}`, []Order{{Verb: Mute, Account: ann}}},
	{"hang up, old", `{"hangupParticipant":"` + ann + `"}`, []Order{{Verb: Hangup, Account: ann}}},
	{"a later version", `{"` + ann + `":7,"version":2}`, nil},
	{"nothing", `{}`, nil},
}

func TestOrders(t *testing.T) {
	for _, c := range stockOrders {
		got, err := Orders([]byte(c.text))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	many := `{"version":1`
	for i := range maxOrders + 1 {
		many += fmt.Sprintf(`,"%d":{"devices":{"d":{"raiseHand":true}}}`, i)
	}
	for _, text := range []string{"", "[]", "7", `{"version":"x"}`, `{"layout":"x"}`, `{"handRaised":"a","handState":"maybe"}`, `{"a":7,"version":1}`, `{} {}`,
		`{"hangupParticipant":"` + strings.Repeat("x", maxWord+1) + `"}`, strings.Repeat(" ", MaxOrder) + "{}", many + "}"} {
		if got, err := Orders([]byte(text)); !errors.Is(err, ErrOrder) {
			t.Errorf("%.40q: %+v, %v", text, got, err)
		}
	}
}

func TestControl(t *testing.T) {
	const head, tail = `<?xml version="1.0" encoding="utf-8" ?><media_control><vc_primitive><to_encoder>`, `</to_encoder></vc_primitive></media_control>`
	yes, no := true, false
	for body, want := range map[string]Control{
		"<mute_state=1/>": {Muted: &yes}, "<mute_state=0/>": {Muted: &no}, "<recording_state=1/>": {Recording: &yes},
		"<voice_activity=1/>": {Voice: &yes}, "<picture_fast_update/>": {KeyFrame: true}, "<device_orientation=-90/>": {}, "<mute_state=2/>": {},
	} {
		if got := ParseControl(head + body + tail); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", body, got)
		}
	}
	for body, want := range map[string]string{"Signal=5\r\nDuration=150\r\n": "5", "Signal=#\r\nDuration=1\r\n": "#", "signal= *\n": "*", "Signal=d": "D", "Signal=12\r\n": "A",
		"Signal=16\r\n": "", "Signal=55\r\n": "", "Duration=5\r\n": "", "": ""} {
		if got, ok := ParseKey(body); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %t", body, got, ok)
		}
	}
}

func FuzzOrders(f *testing.F) {
	for _, c := range stockOrders {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Orders(b)
		if err != nil && got != nil || len(got) > maxOrders {
			t.Fatalf("%d orders, %v", len(got), err)
		}
		for _, o := range got {
			if o.Verb == 0 || o.Layout < 0 || o.Layout > 2 || len(o.Account) > maxWord {
				t.Fatalf("%+v", o)
			}
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add("<mute_state=1/>")
	f.Add("Signal=5\r\nDuration=150\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		ParseControl(s)
		if k, ok := ParseKey(s); ok != (len(k) == 1) {
			t.Fatalf("%q, %t", k, ok)
		}
	})
}
