package confinfo

import (
	"regexp"
	"strings"
)

// Content types of INFO requests (§3.5).
const (
	ControlType = "application/media_control+xml"
	KeyType     = "application/dtmf-relay"
)

// Control is what a peer says of its own media. Nil: it says nothing of that.
type Control struct {
	Muted     *bool
	Recording *bool
	Voice     *bool
	KeyFrame  bool // it asks for one
}

var controlRE = regexp.MustCompile(`<(mute_state|recording_state|voice_activity)=([01])/>`)

// ParseControl reads a media_control body. Stock peers write a form that is not XML, and look
// for its parts alone, so nothing is an error.
func ParseControl(body string) Control {
	c := Control{KeyFrame: strings.Contains(body, "<picture_fast_update/>")}
	for _, m := range controlRE.FindAllStringSubmatch(body, 16) {
		on := m[2] == "1"
		switch m[1] {
		case "mute_state":
			c.Muted = &on
		case "recording_state":
			c.Recording = &on
		case "voice_activity":
			c.Voice = &on
		}
	}
	return c
}

var keyRE = regexp.MustCompile(`(?i)^\s*Signal\s*=\s*([0-9*#ABCD]|1[0-6])\s*(?:[\r\n]|$)`)

// ParseKey reads a dtmf-relay body; false: it names none of the keys of a telephone.
func ParseKey(body string) (string, bool) {
	m := keyRE.FindStringSubmatch(body)
	if m == nil {
		return "", false
	}
	switch k := strings.ToUpper(m[1]); k {
	case "10":
		return "*", true
	case "11":
		return "#", true
	case "12", "13", "14", "15":
		return string("ABCD"[k[1]-'2']), true
	case "16": // flash
		return "", false
	default:
		return k, true
	}
}
