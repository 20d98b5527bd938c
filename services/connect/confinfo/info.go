// Package confinfo has the two documents by which a conference's host and a Jami
// participant speak of it inside a call: the state that the host sends and the orders that
// it gets (connect-and-calls §4.2, §4.3). It knows bytes only.
//
//	application/confInfo+json    host → participant: the whole state, {} when it is over
//	application/confOrder+json   participant → host: one order or several
package confinfo

import (
	"encoding/json"
	"strings"
)

// Content types of the MESSAGE requests.
const (
	InfoType  = "application/confInfo+json"
	OrderType = "application/confOrder+json"
)

// MaxInfo bounds a state in bytes, so that its MESSAGE stays below the 8,000 that a stock
// peer reads (§3.1). Some 20 participants fit.
const MaxInfo = 7_000

// Over is the state of a conference that has ended.
const Over = "{}"

// Participant is one stream of a conference. All keys are always sent.
type Participant struct {
	URI                 string `json:"uri"`
	Device              string `json:"device"`
	SinkID              string `json:"sinkId"`
	Active              bool   `json:"active"`
	X                   int    `json:"x"`
	Y                   int    `json:"y"`
	W                   int    `json:"w"`
	H                   int    `json:"h"`
	VideoMuted          bool   `json:"videoMuted"`
	AudioLocalMuted     bool   `json:"audioLocalMuted"`
	AudioModeratorMuted bool   `json:"audioModeratorMuted"`
	IsModerator         bool   `json:"isModerator"`
	HandRaised          bool   `json:"handRaised"`
	VoiceActivity       bool   `json:"voiceActivity"`
	Recording           bool   `json:"recording"`
}

// Host is the entry of a host without streams of its own.
func Host(account string) Participant {
	return Participant{URI: URI(account), VideoMuted: true, AudioLocalMuted: true, IsModerator: true}
}

// URI is an account, or who stands for one, as a state names it. A peer reads up to the "@".
func URI(user string) string { return strings.ReplaceAll(user, "@", " ") + "@ring.dht" }

// Sink is the id of a participant's audio stream.
func Sink(id string) string { return id + "_audio_0" }

// state is the top of a document. Width and height are those of the mixed picture: none.
type state struct {
	H       int               `json:"h"`
	W       int               `json:"w"`
	Version int               `json:"v"`
	Layout  int               `json:"layout"`
	P       []json.RawMessage `json:"p,omitempty"`
}

// Info writes a state with as many of the participants, the first ones, as fit, and says how
// many those are.
func Info(layout int, ps []Participant) (text string, n int, err error) {
	s := state{Version: 1, Layout: layout}
	left := MaxInfo - 64
	for i := range ps {
		b, err := json.Marshal(&ps[i])
		if err != nil {
			return "", 0, err
		}
		if left -= len(b) + 1; left < 0 {
			break
		}
		s.P = append(s.P, b)
	}
	b, err := json.Marshal(&s)
	return string(b), len(s.P), err
}
