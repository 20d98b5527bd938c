package simroom

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const sample = `
people:
  - name: Ann
    speak: [{from: 100ms, to: 400ms, tone: 440}]
    chat: [{at: 50ms, text: hello}]
    hand: [{at: 60ms, raised: true}, {at: 450ms}]
  - name: Bob
    join: 100ms
    leave: 300ms
    speak: [{from: 200ms, to: 2s, noise: true, level: -30}]
`

// fake notes what is done; its methods may be called by several plays.
type fake struct {
	mu    sync.Mutex
	log   []string
	bytes int
	fail  error
}

func (f *fake) add(what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, what)
	return f.fail
}
func (f *fake) Join(_ context.Context, name string) error { return f.add("join " + name) }
func (f *fake) Chat(_ context.Context, text string) error { return f.add("chat " + text) }
func (f *fake) Leave(context.Context) error               { return f.add("leave") }
func (f *fake) Hand(_ context.Context, up bool) error {
	return f.add(map[bool]string{true: "up", false: "down"}[up])
}
func (f *fake) Say(_ context.Context, pcm []byte) error { f.bytes += len(pcm); return nil }

func TestPlay(t *testing.T) {
	s, err := Parse([]byte(sample))
	if err != nil || s.End() != 2*time.Second {
		t.Fatalf("%v, %v", s, err)
	}
	people := []*fake{{}, {}}
	err = Play(t.Context(), s, 700*time.Millisecond, func(i int) (Person, error) { return people[i], nil }, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(people[0].log, ","); got != "join Ann,chat hello,up,down,leave" {
		t.Errorf("Ann: %s", got)
	}
	if got := strings.Join(people[1].log, ","); got != "join Bob,leave" {
		t.Errorf("Bob: %s", got)
	}
	if people[0].bytes != 2*rate*3/10 || people[1].bytes != 2*rate/10 {
		t.Errorf("said %d and %d bytes", people[0].bytes, people[1].bytes)
	}
}

func TestOneWhoFailsEndsThePlay(t *testing.T) {
	s, err := Turns(2, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	var mu sync.Mutex
	err = Play(t.Context(), s, time.Hour, func(i int) (Person, error) {
		if i == 1 {
			return &fake{fail: broken}, nil
		}
		return &fake{}, nil
	}, func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Who == "Speaker 2" {
			t.Errorf("who never joined: %+v", e)
		}
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
}

func TestTurnsLeaveNoGap(t *testing.T) {
	s, err := Turns(3, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for at := time.Duration(0); at < 30*time.Second; at += 100 * time.Millisecond {
		n := 0
		for _, p := range s.People {
			for _, sp := range p.Speak {
				if sp.From <= at && at < sp.To {
					n++
				}
			}
		}
		if n < 1 || n > 2 {
			t.Fatalf("%d speak at %s", n, at)
		}
	}
}

func TestScriptRefuses(t *testing.T) {
	for name, tt := range map[string][2]string{
		"unknown key":   {"join: 100ms", "jion: 100ms"},
		"no unit":       {"at: 50ms", "at: fifty"},
		"same name":     {"name: Bob", "name: Ann"},
		"leaves early":  {"leave: 300ms", "leave: 50ms"},
		"two sounds":    {"tone: 440", "tone: 440, noise: true"},
		"no sound":      {", tone: 440", ""},
		"tone too high": {"tone: 440", "tone: 20000"},
		"level":         {"level: -30", "level: 3"},
		"not a number":  {"level: -30", "level: .nan"},
		"empty text":    {"text: hello", "text: ''"},
		"ends first":    {"to: 400ms", "to: 1ms"},
	} {
		if _, err := Parse([]byte(strings.Replace(sample, tt[0], tt[1], 1))); !errors.Is(err, ErrScript) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "people: []", "people: 3", "[", "people: [{name: A, speak: [{to: 1s, wav: none.wav}]}]"} {
		path := filepath.Join(t.TempDir(), "s.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !errors.Is(err, ErrScript) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestVoiceHasItsLevel(t *testing.T) {
	for _, sp := range []*Speech{{Tone: 440}, {Noise: true}, {Tone: 1000, Level: -6}} {
		v, sum := newVoice(sp), 0.0
		pcm := v.next(rate)
		for i := 0; i < len(pcm); i += 2 {
			s := float64(int16(binary.LittleEndian.Uint16(pcm[i:]))) / 32768
			sum += s * s
		}
		want := sp.Level
		if want == 0 {
			want = -20
		}
		if got := 10 * math.Log10(2*sum/rate); math.Abs(got-want) > 0.3 {
			t.Errorf("%+v: %.2f dBFS, want %v", sp, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("people: [{name: A, speak: [{to: 9999999h, tone: 1}]}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := Parse(text); err == nil && s.End() > maxTime {
			t.Fatalf("ends at %s", s.End())
		}
	})
}
