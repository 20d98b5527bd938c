package confinfo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Verb is what an order asks for.
type Verb uint8

// The verbs.
const (
	Mute   Verb = iota + 1 // On: be silent
	Hangup                 // put out
	Hand                   // On: raised
	Active                 // On: its stream is the one shown large; without an Account: none is
	Layout                 // Layout
	Voice                  // On: speaks; said of oneself
)

// Order is one order. Whom it is about is an account, or what [URI] was made of, and where
// they are given a device and a stream of it.
type Order struct {
	Verb    Verb
	Account string
	Device  string
	Stream  string
	On      bool
	Layout  int
}

// Bounds of one document.
const (
	MaxOrder  = 7_900 // bytes
	maxOrders = 64
	maxWord   = 256 // bytes of a name in it
)

// ErrOrder is what an order is refused with that cannot be read.
var ErrOrder = errors.New("confinfo: not an order")

// flag is a boolean that stock peers also write as a word (§4.3).
type flag bool

// UnmarshalJSON implements [json.Unmarshaler].
func (f *flag) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true", `"true"`:
		*f = true
	case "false", `"false"`:
		*f = false
	default:
		return fmt.Errorf("%w: %.32s is not true or false", ErrOrder, b)
	}
	return nil
}

// orders0 are those without a version.
type orders0 struct {
	HandRaised *string `json:"handRaised"`
	HandState  *flag   `json:"handState"`
	Layout     *int    `json:"layout"`
	Active     *string `json:"activeParticipant"`
	Mute       *string `json:"muteParticipant"`
	MuteState  *flag   `json:"muteState"`
	Hangup     *string `json:"hangupParticipant"`
}

type media struct {
	Mute   *flag `json:"muteAudio"`
	Active *flag `json:"active"`
	Voice  *flag `json:"voiceActivity"`
}

type device struct {
	RaiseHand *flag            `json:"raiseHand"`
	Hangup    *flag            `json:"hangup"`
	Medias    map[string]media `json:"medias"`
}

type account struct {
	Devices map[string]device `json:"devices"`
	Medias  map[string]media  `json:"medias"`
}

// Orders reads the orders of a document, of either version. One of a version that is not
// known is none (§4.3).
func Orders(text []byte) ([]Order, error) {
	if len(text) > MaxOrder {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrOrder, MaxOrder)
	}
	var top map[string]json.RawMessage
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&top); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows it", ErrOrder)
	}
	version := 0
	if v, ok := top["version"]; ok {
		if err := json.Unmarshal(v, &version); err != nil {
			return nil, fmt.Errorf("%w: version: %w", ErrOrder, err)
		}
	}
	var out []Order
	var err error
	switch version {
	case 0:
		out, err = version0(text)
	case 1:
		out, err = version1(top)
	}
	switch {
	case err != nil:
		return nil, err
	case len(out) > maxOrders:
		return nil, fmt.Errorf("%w: more than %d in one", ErrOrder, maxOrders)
	case slices.ContainsFunc(out, func(o Order) bool {
		return len(o.Account) > maxWord || len(o.Device) > maxWord || len(o.Stream) > maxWord
	}):
		return nil, fmt.Errorf("%w: a name of more than %d bytes", ErrOrder, maxWord)
	}
	return out, nil
}

func version0(text []byte) ([]Order, error) {
	var q orders0
	if err := json.Unmarshal(text, &q); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	var out []Order
	if q.HandRaised != nil && q.HandState != nil {
		out = append(out, Order{Verb: Hand, Account: user(*q.HandRaised), On: bool(*q.HandState)})
	}
	if q.Layout != nil {
		out = append(out, layout(*q.Layout)...)
	}
	if q.Active != nil {
		out = append(out, Order{Verb: Active, Account: user(*q.Active), On: *q.Active != ""})
	}
	if q.Mute != nil && q.MuteState != nil {
		out = append(out, Order{Verb: Mute, Account: user(*q.Mute), On: bool(*q.MuteState)})
	}
	if q.Hangup != nil {
		out = append(out, Order{Verb: Hangup, Account: user(*q.Hangup)})
	}
	return out, nil
}

func layout(n int) []Order {
	if n < 0 || n > 2 {
		return nil
	}
	return []Order{{Verb: Layout, Layout: n}}
}

// user is the part of a URI before the "@".
func user(uri string) string {
	u, _, _ := strings.Cut(uri, "@")
	return u
}

// version1 reads orders by account and device. What stands at the account level repeats what
// its device says, in the order in which stock peers send and read it (§4.3): streams count
// once.
func version1(top map[string]json.RawMessage) ([]Order, error) {
	var out []Order
	keys := make([]string, 0, len(top))
	for k := range top {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		switch k {
		case "version":
			continue
		case "layout":
			var n int
			if err := json.Unmarshal(top[k], &n); err != nil {
				return nil, fmt.Errorf("%w: layout: %w", ErrOrder, err)
			}
			out = append(out, layout(n)...)
			continue
		}
		var a account
		if err := json.Unmarshal(top[k], &a); err != nil {
			return nil, fmt.Errorf("%w: %.64q: %w", ErrOrder, k, err)
		}
		out = append(out, a.orders(user(k))...)
		if len(out) > maxOrders {
			break
		}
	}
	return out, nil
}

func (a *account) orders(id string) []Order {
	var out []Order
	seen := map[string]bool{}
	for _, name := range sorted(a.Devices) {
		d := a.Devices[name]
		if d.RaiseHand != nil {
			out = append(out, Order{Verb: Hand, Account: id, Device: name, On: bool(*d.RaiseHand)})
		}
		if d.Hangup != nil && bool(*d.Hangup) {
			out = append(out, Order{Verb: Hangup, Account: id, Device: name})
		}
		for _, stream := range sorted(d.Medias) {
			seen[stream] = true
			out = append(out, d.Medias[stream].orders(id, name, stream)...)
		}
	}
	for _, stream := range sorted(a.Medias) {
		if !seen[stream] {
			out = append(out, a.Medias[stream].orders(id, "", stream)...)
		}
	}
	return out
}

func (m media) orders(id, device, stream string) []Order {
	var out []Order
	for _, x := range []struct {
		verb Verb
		on   *flag
	}{{Mute, m.Mute}, {Active, m.Active}, {Voice, m.Voice}} {
		if x.on != nil {
			out = append(out, Order{Verb: x.verb, Account: id, Device: device, Stream: stream, On: bool(*x.on)})
		}
	}
	return out
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
