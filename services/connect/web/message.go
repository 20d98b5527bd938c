package web

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a socket may send, in bytes.
const (
	maxMessage = 64 << 10 // a whole message; Chromium's offer for one audio stream is some 3 KiB
	maxSDP     = 48 << 10
	maxChat    = 8 << 10
	maxName    = 64 // characters
	maxText    = 128
)

// message is one message in either direction. ID is chosen by the client; its
// reply carries the same one.
type message struct {
	ID   int64           `json:"id,omitempty"`
	Type string          `json:"type"`
	Data json.RawMessage `json:"data,omitempty"`
}

// request is the body of a message that was checked.
type request interface {
	check() *Refusal
}

type (
	joinRequest struct {
		Room  string `json:"room"`
		Name  string `json:"name"`
		PIN   string `json:"pin,omitempty"`
		Token string `json:"token,omitempty"`
		Offer string `json:"offer"`
		Muted bool   `json:"muted"`
	}
	resumeRequest struct {
		Session string `json:"session"`
	}
	negotiateRequest struct {
		SDP    string `json:"sdp"`
		Answer bool   `json:"answer,omitempty"`
	}
	muteRequest struct {
		Participant string `json:"participant,omitempty"`
		Muted       bool   `json:"muted"`
	}
	handRequest struct {
		Participant string `json:"participant,omitempty"`
		Raised      bool   `json:"raised"`
	}
	roleRequest struct {
		Participant string `json:"participant"`
		Role        string `json:"role"`
	}
	kickRequest struct {
		Participant string `json:"participant"`
	}
	lockRequest struct {
		Locked bool `json:"locked"`
	}
	chatRequest struct {
		Body  string `json:"body"`
		Reply string `json:"reply_to,omitempty"`
		Key   string `json:"key,omitempty"`
	}
	historyRequest struct {
		Before string `json:"before,omitempty"`
		Limit  int    `json:"limit,omitempty"`
	}
	emptyRequest struct{}
)

// bodies makes the body of each type of message.
var bodies = map[string]func() request{
	"join":      func() request { return new(joinRequest) },
	"resume":    func() request { return new(resumeRequest) },
	"negotiate": func() request { return new(negotiateRequest) },
	"leave":     func() request { return new(emptyRequest) },
	"get":       func() request { return new(emptyRequest) },
	"mute":      func() request { return new(muteRequest) },
	"hand":      func() request { return new(handRequest) },
	"role":      func() request { return new(roleRequest) },
	"kick":      func() request { return new(kickRequest) },
	"lock":      func() request { return new(lockRequest) },
	"chat":      func() request { return new(chatRequest) },
	"history":   func() request { return new(historyRequest) },
	"relays":    func() request { return new(emptyRequest) },
	"ping":      func() request { return new(emptyRequest) },
}

// decode parses and checks one message. With a refusal the message's id is
// still returned when it could be read. Unknown fields are passed over, so that
// newer pages talk to older nodes.
func decode(b []byte) (int64, string, request, *Refusal) {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return 0, "", nil, badRequest("a message is a JSON object with id, type and data")
	}
	mk, ok := bodies[m.Type]
	if !ok {
		return m.ID, "", nil, badRequest("unknown type of message; docs/http-api.md lists them")
	}
	r := mk()
	if len(m.Data) > 0 && !bytes.Equal(m.Data, []byte("null")) {
		if err := json.Unmarshal(m.Data, r); err != nil {
			return m.ID, m.Type, nil, badRequest("data of " + m.Type + " has a field of the wrong type")
		}
	}
	if ref := r.check(); ref != nil {
		return m.ID, m.Type, nil, ref
	}
	return m.ID, m.Type, r, nil
}

// cleanName makes a display name fit for a roster: valid UTF-8 on one line, no
// control or text-direction characters, single spaces, at most maxName
// characters. What is left may be empty.
func cleanName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), r == utf8.RuneError,
			r >= 0x200e && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // UAX #9 explicit directions
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if n := 0; utf8.RuneCountInString(s) > maxName {
		for i := range s {
			if n == maxName {
				return strings.TrimSpace(s[:i])
			}
			n++
		}
	}
	return s
}

func checkSDP(s string) *Refusal {
	if len(s) > maxSDP || !strings.HasPrefix(s, "v=0") || !utf8.ValidString(s) {
		return badRequest("the SDP must begin with v=0 and have at most 48 KiB")
	}
	return nil
}

func checkTarget(id string, optional bool) *Refusal {
	if id == "" && optional || validID(id) {
		return nil
	}
	return badRequest("participant must be the id of somebody in the room")
}

// printable reports whether a short secret or key holds only ASCII that can
// stand in a header.
func printable(s string) bool {
	if len(s) > maxText {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func (r *joinRequest) check() *Refusal {
	r.Name = cleanName(r.Name)
	switch {
	case !validRoom(r.Room):
		return badRequest("a room's name has 1 to 64 of a-z, 0-9 and -")
	case r.Name == "":
		return badRequest("say your name: 1 to 64 characters")
	case !printable(r.PIN), !printable(r.Token):
		return badRequest("pin and token have at most 128 printable characters")
	}
	return checkSDP(r.Offer)
}

func (r *resumeRequest) check() *Refusal {
	if r.Session == "" || len(r.Session) > maxSession {
		return badRequest("session must be what joined gave")
	}
	return nil
}

func (r *negotiateRequest) check() *Refusal { return checkSDP(r.SDP) }
func (r *muteRequest) check() *Refusal      { return checkTarget(r.Participant, true) }
func (r *handRequest) check() *Refusal      { return checkTarget(r.Participant, true) }
func (r *kickRequest) check() *Refusal      { return checkTarget(r.Participant, false) }
func (r *lockRequest) check() *Refusal      { return nil }
func (r *emptyRequest) check() *Refusal     { return nil }

func (r *roleRequest) check() *Refusal {
	switch r.Role {
	case "moderator", "speaker", "listener":
		return checkTarget(r.Participant, false)
	}
	return badRequest("role is moderator, speaker or listener")
}

func (r *chatRequest) check() *Refusal {
	if len(r.Body) > maxChat || !utf8.ValidString(r.Body) || strings.TrimSpace(r.Body) == "" {
		return badRequest("a chat message has 1 to 8192 bytes of text")
	}
	if !printable(r.Key) || !commitID(r.Reply) {
		return badRequest("reply_to is the id of a message, key has at most 128 printable characters")
	}
	return nil
}

func (r *historyRequest) check() *Refusal {
	if !commitID(r.Before) || r.Limit < 0 || r.Limit > 200 {
		return badRequest("before is the id of a message, limit 1 to 200")
	}
	return nil
}

// commitID reports whether s is empty or the id of a chat message.
func commitID(s string) bool {
	if s == "" {
		return true
	}
	if len(s) != 40 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}
