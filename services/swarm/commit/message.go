package commit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Types of messages that Parley writes (swarm §1.6).
const (
	TypeInitial = "initial"
	TypeText    = "text/plain"
	TypeMember  = "member"
	TypeFile    = "application/data-transfer+json"
)

// Types that others write.
const (
	TypeVote    = "vote"
	TypeProfile = "application/update-profile"
	TypeEdited  = "application/edited-message"
)

// Keys of members and of files.
const (
	KeyAction  = "action"
	KeyURI     = "uri"
	KeyInvited = "invited"
	KeyTID     = "tid"
	KeyFile    = "displayName"
	KeySize    = "totalSize"
	KeySHA3    = "sha3sum"
)

// Keys of a message. Those with the prefix are Parley's own: a room's guests have
// no Jami account, so the account's device signs for them and names them here.
const (
	KeyType  = "type"
	KeyBody  = "body"
	KeyMode  = "mode"
	KeyReply = "reply-to"
	KeyFrom  = "parley-from" // participant id
	KeyName  = "parley-name" // display name of the participant
	KeyOnce  = "parley-key"  // idempotency key
)

// ModeInvitesOnly is the mode of a group conversation (swarm §1.3).
const ModeInvitesOnly = "2"

// Message is a commit message: all values as strings. "mode" is a number in JSON.
type Message map[string]string

// Encode returns the message as Jami's peers write it: compact JSON, keys in
// alphabetical order, non-ASCII as \uXXXX, no final newline (swarm §1.5).
func (m Message) Encode() []byte {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b := []byte{'{'}
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		if n, err := strconv.Atoi(m[k]); k == KeyMode && err == nil {
			b = strconv.AppendInt(b, int64(n), 10)
			continue
		}
		b = appendString(b, m[k])
	}
	return append(b, '}')
}

const hexDigits = "0123456789abcdef"

func appendString(b []byte, s string) []byte {
	unit := func(r rune) {
		b = append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
	}
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r == '\b':
			b = append(b, '\\', 'b')
		case r == '\f':
			b = append(b, '\\', 'f')
		case r >= ' ' && r < utf8.RuneSelf:
			b = append(b, byte(r))
		case r > 0xffff:
			r -= 0x10000
			unit(0xd800 + r>>10)
			unit(0xdc00 + r&0x3ff)
		default:
			unit(r)
		}
	}
	return append(b, '"')
}

// ParseMessage reads any valid JSON object with a string "type"; values that are
// not strings are kept as their JSON text.
func ParseMessage(raw []byte) (Message, error) {
	var vals map[string]json.RawMessage
	if err := json.Unmarshal(raw, &vals); err != nil {
		return nil, fmt.Errorf("%w: message: %w", ErrMalformed, err)
	}
	m := make(Message, len(vals))
	for k, v := range vals {
		if len(v) > 0 && v[0] == '"' {
			var s string
			if err := json.Unmarshal(v, &s); err != nil {
				return nil, fmt.Errorf("%w: message %q: %w", ErrMalformed, k, err)
			}
			m[k] = s
			continue
		}
		m[k] = string(bytes.TrimSpace(v))
	}
	if t, ok := vals[KeyType]; !ok || len(t) < 3 || t[0] != '"' {
		return nil, fmt.Errorf("%w: message without a type", ErrMalformed)
	}
	return m, nil
}
