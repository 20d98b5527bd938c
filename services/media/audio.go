package media

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/media/buslegs"
)

// sayBytes bounds what waits of one bot's voice: a second of 48 kHz PCM, ten times.
const sayBytes = 1 << 20

// newBusLegs carries the audio of bots over conn, a connection of its own: what a
// slow or flooding bot does to it doesn't reach the commands. The account must be
// known to conn.
func newBusLegs(conn *bus.Conn) *buslegs.Legs {
	account := conn.Account()
	return buslegs.New(audioBus{conn}, buslegs.Subjects{
		Mix:  func(room, format string) string { return contract.AudioMix.Subject(account, room, format) },
		From: func(room, who, format string) string { return contract.AudioFrom.Subject(account, room, who, format) },
		Say:  func(room, bot string) string { return contract.AudioSay.Subject(account, room, bot) },
	})
}

// audioBus is the bus as bus legs need it.
type audioBus struct{ conn *bus.Conn }

func (b audioBus) Publish(subject string, h buslegs.Header, data []byte) error {
	if !b.conn.Connected() {
		return nats.ErrDisconnected // else old sound would be sent when it is back
	}
	return b.conn.NATS().PublishMsg(&nats.Msg{Subject: subject, Header: nats.Header(h), Data: data})
}

func (b audioBus) Subscribe(subject string, limit int, fn func(*buslegs.Message)) (func(), error) {
	sub, err := b.conn.NATS().Subscribe(subject, func(m *nats.Msg) {
		fn(&buslegs.Message{Subject: m.Subject, Header: buslegs.Header(m.Header), Data: m.Data, Reply: b.reply(m)})
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(limit, sayBytes); err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", subject, err)
	}
	return func() {
		if err := sub.Unsubscribe(); err != nil {
			b.conn.Log().Debug("unsubscribe", zap.String("subject", subject), zap.Error(err))
		}
	}, nil
}

// reply answers only where an asker waits: a reply subject of the sender's
// choice would be published to with this process's permissions.
func (b audioBus) reply(m *nats.Msg) func(queuedMs, dropped int) {
	if !strings.HasPrefix(m.Reply, "_INBOX") && !strings.HasPrefix(m.Reply, "_R_.") {
		return nil
	}
	return func(queuedMs, dropped int) {
		body, err := json.Marshal(contract.SayReply{QueuedMs: queuedMs, Dropped: dropped})
		if err == nil {
			err = m.Respond(body)
		}
		if err != nil {
			b.conn.Log().Debug("answer to a bot's voice", zap.Error(err))
		}
	}
}
