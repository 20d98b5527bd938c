package bus

import (
	"fmt"

	"github.com/nats-io/nats.go"
)

// AudioMsg is a frame as it came from a bot.
type AudioMsg struct {
	Subject string
	Header  map[string][]string
	Data    []byte
	Reply   func(body []byte) error // nil: no answer is wanted
}

// PublishAudio sends a frame on a subject of an [contract.Audio]. It does not
// wait; while the bus is away frames are refused and not buffered, as they would
// be old when it comes back.
func (c *Conn) PublishAudio(subject string, header map[string][]string, data []byte) error {
	if !c.nc.IsConnected() {
		return nats.ErrDisconnected
	}
	return c.nc.PublishMsg(&nats.Msg{Subject: subject, Header: header, Data: data})
}

// HearAudio calls fn for each frame, in order. At most limit frames wait; the
// newest are dropped beyond.
func (c *Conn) HearAudio(subject string, limit int, fn func(*AudioMsg)) (*Subscription, error) {
	sub, err := c.nc.Subscribe(subject, func(m *nats.Msg) {
		a := &AudioMsg{Subject: m.Subject, Header: m.Header, Data: m.Data}
		if m.Reply != "" {
			a.Reply = m.Respond
		}
		fn(a)
	})
	if err != nil {
		return nil, fmt.Errorf("hear %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(limit, limit*c.maxFrame()); err != nil {
		return nil, fmt.Errorf("hear %s: %w", subject, err)
	}
	return &Subscription{sub: sub}, nil
}

// maxFrame is the largest message that the server takes.
func (c *Conn) maxFrame() int { return int(max(c.nc.MaxPayload(), 1<<16)) }
