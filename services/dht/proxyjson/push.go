package proxyjson

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// MaxSubscription bounds the JSON of a subscription, in bytes.
const MaxSubscription = 8 << 10

// maxText bounds a member of a subscription; push services' addresses are the longest.
const maxText = 2048

// Platforms that OpenDHT has.
const (
	Android     = "android"
	IOS         = "ios"
	UnifiedPush = "unifiedpush"
)

// Subscription is the body of SUBSCRIBE and UNSUBSCRIBE, which needs of it Token and
// ClientID alone, and the object that permanent may be in a put.
type Subscription struct {
	Token     string `json:"key"` // of the push service: for unifiedpush an address
	ClientID  string `json:"client_id"`
	SessionID string `json:"session_id,omitempty"`
	Platform  string `json:"platform,omitempty"`
	Topic     string `json:"topic,omitempty"`
	// Refresh asks to go on without the values that are there.
	Refresh bool `json:"refresh,omitempty"`
}

// Marshal returns the body.
func (s Subscription) Marshal() ([]byte, error) { return marshal(s) }

// ParseSubscription reads a body. Which members it needs is the server's to say.
func ParseSubscription(b []byte) (*Subscription, error) {
	if len(b) > MaxSubscription {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrField, len(b), MaxSubscription)
	}
	s := new(Subscription)
	if err := unmarshal(b, s); err != nil {
		return nil, err
	}
	for _, m := range []struct{ name, text string }{{"key", s.Token}, {"client_id", s.ClientID}, {"session_id", s.SessionID}, {"platform", s.Platform}, {"topic", s.Topic}} {
		if len(m.text) > maxText {
			return nil, fmt.Errorf("%w: %s of %d bytes, at most %d", ErrField, m.name, len(m.text), maxText)
		}
	}
	return s, nil
}

// Notice is what a push service hands to a client; it has nothing of a value but its id.
// One with Timeout set says that a subscription, or with Value set a permanent value,
// ends soon.
type Notice struct {
	Key     string // hex of what changed
	Timeout string // hex of what ends
	To      string // client id
	Session string
	Time    int64  // of a change, in ms since 1970
	Expired uint64 // id of a value that expired; 0: one came or was changed
	Value   uint64
}

// notice has strings alone, as push services take them.
type notice struct {
	Key     string `json:"key,omitempty"`
	Timeout string `json:"timeout,omitempty"`
	To      string `json:"to"`
	Session string `json:"s"`
	Time    string `json:"t,omitempty"`
	Expired string `json:"exp,omitempty"`
	Value   string `json:"vid,omitempty"`
}

// Marshal returns the data of a push.
func (n Notice) Marshal() ([]byte, error) {
	w := notice{Key: n.Key, Timeout: n.Timeout, To: n.To, Session: n.Session, Expired: nonZero(n.Expired), Value: nonZero(n.Value)}
	if n.Time != 0 {
		w.Time = strconv.FormatInt(n.Time, 10)
	}
	return marshal(w)
}

func nonZero(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// ParseNotice reads the data of a push.
func ParseNotice(b []byte) (*Notice, error) {
	if len(b) > MaxSubscription {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrField, len(b), MaxSubscription)
	}
	var w struct {
		Key     string          `json:"key"`
		Timeout string          `json:"timeout"`
		To      string          `json:"to"`
		Session string          `json:"s"`
		Time    json.RawMessage `json:"t"`
		Expired json.RawMessage `json:"exp"`
		Value   json.RawMessage `json:"vid"`
	}
	if err := unmarshal(b, &w); err != nil {
		return nil, err
	}
	n := &Notice{Key: w.Key, Timeout: w.Timeout, To: w.To, Session: w.Session}
	ms, err := parseNumber(w.Time)
	if err != nil || ms > 1<<62 {
		return nil, fmt.Errorf("%w: t", ErrField)
	}
	n.Time = int64(ms)
	if n.Expired, err = parseNumber(w.Expired); err != nil {
		return nil, fmt.Errorf("exp: %w", err)
	}
	if n.Value, err = parseNumber(w.Value); err != nil {
		return nil, fmt.Errorf("vid: %w", err)
	}
	return n, nil
}
