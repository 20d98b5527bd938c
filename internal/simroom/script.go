// Package simroom plays a room with scripted people, so that the author of a bot can
// test without any. It knows no bus: a [Person] does what the script says.
package simroom

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/parley-jami/parley/sdk/go/wav"
)

// ErrScript is every refusal of a script.
var ErrScript = errors.New("the script")

// Bounds of a script.
const (
	maxPeople = 200
	maxSteps  = 10_000
	maxTime   = 24 * time.Hour
)

// Script is who does what, when. Times count from the start.
type Script struct {
	People []Role `yaml:"people"`
}

// Role is what one person does.
type Role struct {
	Name  string        `yaml:"name"`
	Join  time.Duration `yaml:"join"`
	Leave time.Duration `yaml:"leave"` // 0: at the end
	Speak []Speech      `yaml:"speak"`
	Chat  []Line        `yaml:"chat"`
	Hand  []Hand        `yaml:"hand"`
}

// Speech is sound: a tone, a WAV file (again and again) or noise.
type Speech struct {
	From  time.Duration `yaml:"from"`
	To    time.Duration `yaml:"to"`
	Tone  float64       `yaml:"tone"`  // Hz, 50 to 8,000
	WAV   string        `yaml:"wav"`   // path, from the script's folder
	Noise bool          `yaml:"noise"` // white
	Level float64       `yaml:"level"` // dBFS of tone and noise, -60 to 0; -20 when 0

	sound []int16 // of the WAV, at 48 kHz
}

// Line is a chat message.
type Line struct {
	At   time.Duration `yaml:"at"`
	Text string        `yaml:"text"`
}

// Hand raises or lowers a hand.
type Hand struct {
	At     time.Duration `yaml:"at"`
	Raised bool          `yaml:"raised"`
}

// Load reads a script file with the WAV files that it names.
func Load(path string) (*Script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrScript, err)
	}
	s, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	for i := range s.People {
		for j := range s.People[i].Speak {
			sp := &s.People[i].Speak[j]
			if sp.WAV == "" {
				continue
			}
			file := sp.WAV
			if !filepath.IsAbs(file) {
				file = filepath.Join(filepath.Dir(path), file)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrScript, err)
			}
			rate, pcm, err := wav.Parse(raw)
			if err != nil || len(pcm) == 0 {
				return nil, fmt.Errorf("%w: %s: %w", ErrScript, file, cmp.Or(err, wav.ErrFormat))
			}
			sp.sound = stretch(pcm, rate)
		}
	}
	return s, nil
}

// Parse reads a script without its WAV files. An unknown key is an error that names
// its line.
func Parse(text []byte) (*Script, error) {
	s := new(Script)
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", ErrScript, err)
	}
	return s, s.check()
}

func (s *Script) check() error {
	if len(s.People) < 1 || len(s.People) > maxPeople {
		return fmt.Errorf("%w: %d people; it takes 1 to %d", ErrScript, len(s.People), maxPeople)
	}
	names := map[string]bool{}
	for _, p := range s.People {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("%w: %.64q: %s", ErrScript, p.Name, fmt.Sprintf(format, args...))
		}
		switch {
		case p.Name == "" || len(p.Name) > 64 || names[p.Name]:
			return bad("a name has 1 to 64 bytes and is there once")
		case p.Join < 0 || p.Join > maxTime || p.Leave != 0 && p.Leave <= p.Join || p.Leave > maxTime:
			return bad("leaves at %s, joins at %s", p.Leave, p.Join)
		case len(p.Speak)+len(p.Chat)+len(p.Hand) > maxSteps:
			return bad("more than %d steps", maxSteps)
		}
		names[p.Name] = true
		for _, sp := range p.Speak {
			kinds := 0
			for _, is := range []bool{sp.Tone != 0, sp.WAV != "", sp.Noise} {
				if is {
					kinds++
				}
			}
			switch {
			case kinds != 1:
				return bad("speaks from %s with %d of tone, wav and noise; it takes one", sp.From, kinds)
			case sp.From < 0 || sp.To <= sp.From || sp.To > maxTime:
				return bad("speaks from %s to %s", sp.From, sp.To)
			case sp.Tone != 0 && !(sp.Tone >= 50 && sp.Tone <= 8000):
				return bad("a tone of %v Hz; 50 to 8000 are possible", sp.Tone)
			case !(sp.Level >= -60 && sp.Level <= 0):
				return bad("a level of %v dBFS; -60 to 0 are possible", sp.Level)
			}
		}
		for _, l := range p.Chat {
			if l.At < 0 || l.At > maxTime || l.Text == "" || len(l.Text) > 8192 {
				return bad("chats at %s with %d bytes", l.At, len(l.Text))
			}
		}
		for _, h := range p.Hand {
			if h.At < 0 || h.At > maxTime {
				return bad("raises a hand at %s", h.At)
			}
		}
	}
	return nil
}

// How people of [Turns] speak: a turn and the time in which two overlap.
const (
	turn    = 4 * time.Second
	overlap = 500 * time.Millisecond
)

// Turns makes a script of n people who speak in turns until the end, each with a
// tone of its own, 300 Hz and 150 Hz more for each.
func Turns(n int, d time.Duration) (*Script, error) {
	s := &Script{}
	for i := range n {
		p := Role{Name: fmt.Sprintf("Speaker %d", i+1)}
		for at := time.Duration(i) * turn; at < d; at += time.Duration(n) * turn {
			p.Speak = append(p.Speak, Speech{From: at, To: min(at+turn+overlap, d), Tone: 300 + 150*float64(i%50)})
		}
		s.People = append(s.People, p)
	}
	return s, s.check()
}

// End returns when the last step is over.
func (s *Script) End() time.Duration {
	var end time.Duration
	for _, p := range s.People {
		end = max(end, p.Join, p.Leave)
		for _, sp := range p.Speak {
			end = max(end, sp.To)
		}
		for _, l := range p.Chat {
			end = max(end, l.At)
		}
		for _, h := range p.Hand {
			end = max(end, h.At)
		}
	}
	return end
}

// step is one thing that somebody does.
type step struct {
	at time.Duration
	do func(p *player) error
}

// steps returns a role's steps in order of time: what it says, and what else it
// does meanwhile.
func (r *Role) steps() (says, does []step) {
	for _, sp := range r.Speak {
		says = append(says, step{sp.From, func(p *player) error { return p.speak(&sp) }})
	}
	for _, l := range r.Chat {
		does = append(does, step{l.At, func(p *player) error { return p.chat(l.Text) }})
	}
	for _, h := range r.Hand {
		does = append(does, step{h.At, func(p *player) error { return p.hand(h.Raised) }})
	}
	for _, list := range [][]step{says, does} {
		slices.SortStableFunc(list, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	}
	return says, does
}
