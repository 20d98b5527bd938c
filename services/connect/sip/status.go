package sip

import "strings"

// Refusal is how a call is turned down.
type Refusal struct {
	Status     int
	Reason     string
	RetryAfter int // seconds, 0: not given
	Challenge  bool
}

// Refusals by the stable error codes of the node. A code that isn't here is 500.
var refusals = map[string]Refusal{
	"bad_request":    {Status: 400, Reason: "Bad Request"},
	"not_found":      {Status: 404, Reason: "No Such Room"},
	"pin_required":   {Status: 401, Reason: "Unauthorized", Challenge: true},
	"pin_wrong":      {Status: 401, Reason: "Unauthorized", Challenge: true},
	"slow_down":      {Status: 503, Reason: "Too Many Tries", RetryAfter: 10},
	"forbidden":      {Status: 403, Reason: "Forbidden"},
	"locked":         {Status: 403, Reason: "Room Is Locked"},
	"full":           {Status: 486, Reason: "Room Is Full"},
	"rendezvous_off": {Status: 480, Reason: "Rendezvous Is Off"},
	"busy":           {Status: 503, Reason: "Busy", RetryAfter: 2},
	"unavailable":    {Status: 503, Reason: "Service Unavailable", RetryAfter: 2},
	"timeout":        {Status: 504, Reason: "Server Time-out"},
	"gone":           {Status: 481, Reason: "Call/Transaction Does Not Exist"},
	"no_codec":       {Status: 488, Reason: "Not Acceptable Here"},
}

// jamiRefusal is the answer for a Jami peer: it knows no PIN, so it is not asked for one, and
// an offer that cannot be used is 488 whatever is wrong with it.
func jamiRefusal(code string) Refusal {
	switch code {
	case "pin_required", "pin_wrong":
		return Refusal{Status: 403, Reason: "The Room Has a PIN"}
	case "bad_request":
		code = "no_codec"
	}
	return RefusalFor(code)
}

// warning says to a person why, as Warning has it (RFC 3261 §20.43).
func warning(err error) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == '\\' || r > '~' {
			return ' '
		}
		return r
	}, err.Error())
	return `399 parley "` + text[:min(len(text), 256)] + `"`
}

// RefusalFor returns the SIP answer for an error code.
func RefusalFor(code string) Refusal {
	if r, ok := refusals[code]; ok {
		return r
	}
	return Refusal{Status: 500, Reason: "Server Internal Error"}
}
