package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"

	"github.com/parley-jami/parley/bus/contract"
)

// Feed publishes events that a JetStream stream keeps, without waiting for it, beside delivering them
// at once, and reads them back. It creates nothing: the stream is the bus
// process's. Reading is by single messages (STREAM.MSG.GET), the only way that the
// permissions of services leave open.
type Feed struct {
	c      *Conn
	stream string
	inbox  string
	sub    *nats.Subscription
}

// FeedEvent is what the stream keeps of an event. Pos is its place in the
// stream, which holds the events of all topics.
type FeedEvent struct {
	Pos  uint64
	Time time.Time
	Data []byte
}

// NewFeed returns the log of a stream. confirmed is called, on one goroutine,
// for each answer of the stream to [Feed.Publish]; err is nil when the event
// is on the stream's disk (as far as its sync interval goes).
func NewFeed(c *Conn, stream string, confirmed func(topic string, seq uint64, err error)) (*Feed, error) {
	l := &Feed{c: c, stream: stream, inbox: InboxPrefix(c.name) + ".log."}
	sub, err := c.nc.Subscribe(l.inbox+"*.*", func(m *nats.Msg) {
		topic, num, _ := strings.Cut(strings.TrimPrefix(m.Subject, l.inbox), ".")
		seq, err := strconv.ParseUint(num, 10, 64)
		if err != nil {
			return
		}
		confirmed(topic, seq, l.ack(m))
	})
	if err != nil {
		return nil, fmt.Errorf("feed %s: %w", stream, err)
	}
	if err := sub.SetPendingLimits(pendingLimit, pendingLimit<<10); err != nil {
		return nil, fmt.Errorf("feed %s: %w", stream, err)
	}
	l.sub = sub
	return l, nil
}

// ack returns nil when m says that the stream has the event.
func (l *Feed) ack(m *nats.Msg) error {
	var a struct {
		Stream string `json:"stream"`
		Error  *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &a); {
	case m.Header.Get("Status") != "":
		return contract.ErrUnavailable.With("no stream %s", l.stream)
	case err != nil:
		return fmt.Errorf("feed %s: %w", l.stream, err)
	case a.Error != nil:
		return contract.ErrStorage.With("stream %s: %s", l.stream, a.Error.Description)
	case a.Stream != l.stream:
		return fmt.Errorf("feed %s: answer of %q", l.stream, a.Stream)
	}
	return nil
}

// Publish sends an event, with the trace of ctx, and the stream keeps it: once, however often the same
// id comes within its window for duplicates (2 min). It does not wait. topic is a
// single token.
func (l *Feed) Publish(ctx context.Context, subject, id, topic string, seq uint64, body []byte) error {
	m := nats.NewMsg(subject)
	m.Reply = l.inbox + topic + "." + strconv.FormatUint(seq, 10)
	m.Header.Set(nats.MsgIdHdr, id)
	propagator.Inject(ctx, propagation.HeaderCarrier(m.Header))
	m.Data = body
	if err := l.c.nc.PublishMsg(m); err != nil {
		return fmt.Errorf("feed %s: %w", l.stream, err)
	}
	return nil
}

type msgGet struct {
	Seq       uint64     `json:"seq,omitempty"`
	Last      string     `json:"last_by_subj,omitempty"`
	Next      string     `json:"next_by_subj,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
}

// Last returns the last event on a subject, which may hold wildcards; nil when
// there is none.
func (l *Feed) Last(ctx context.Context, subject string) (*FeedEvent, error) {
	return l.get(ctx, msgGet{Last: subject})
}

// Next returns the first event on a subject at pos or later; nil when there is
// none.
func (l *Feed) Next(ctx context.Context, subject string, pos uint64) (*FeedEvent, error) {
	return l.get(ctx, msgGet{Seq: max(pos, 1), Next: subject})
}

// NextSince returns the first event on a subject that was stored at t or later;
// nil when there is none.
func (l *Feed) NextSince(ctx context.Context, subject string, t time.Time) (*FeedEvent, error) {
	return l.get(ctx, msgGet{StartTime: &t, Next: subject})
}

// codeNoMessage is JetStream's JSNoMessageFoundErr.
const codeNoMessage = 10037

func (l *Feed) get(ctx context.Context, q msgGet) (*FeedEvent, error) {
	var a struct {
		Message *struct {
			Seq  uint64    `json:"seq"`
			Data []byte    `json:"data"`
			Time time.Time `json:"time"`
		} `json:"message"`
	}
	code, err := l.api(ctx, "$JS.API.STREAM.MSG.GET."+l.stream, q, &a)
	switch {
	case code == codeNoMessage:
		return nil, nil
	case err != nil:
		return nil, err
	case a.Message == nil:
		return nil, fmt.Errorf("feed %s: an answer without a message", l.stream)
	}
	return &FeedEvent{Pos: a.Message.Seq, Time: a.Message.Time, Data: a.Message.Data}, nil
}

// Purge forgets all events on a subject, which may hold wildcards.
func (l *Feed) Purge(ctx context.Context, subject string) error {
	var a struct{}
	_, err := l.api(ctx, "$JS.API.STREAM.PURGE."+l.stream, map[string]string{"filter": subject}, &a)
	return err
}

// api asks JetStream; code is its error code.
func (l *Feed) api(ctx context.Context, subject string, q, a any) (code int, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	body, err := json.Marshal(q)
	if err != nil {
		return 0, fmt.Errorf("feed %s: %w", l.stream, err)
	}
	r, err := l.c.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return 0, contract.ErrUnavailable.With("stream %s: %v", l.stream, err)
	}
	var e struct {
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(r.Data, &e); err != nil {
		return 0, fmt.Errorf("feed %s: %w", l.stream, err)
	}
	if e.Error != nil {
		return e.Error.Code, contract.ErrUnavailable.With("stream %s: %s", l.stream, e.Error.Description)
	}
	if err := json.Unmarshal(r.Data, a); err != nil {
		return 0, fmt.Errorf("feed %s: %w", l.stream, err)
	}
	return 0, nil
}

// Stop ends the confirmations.
func (l *Feed) Stop() {
	if err := l.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
		l.c.log.Debug("feed stop")
	}
}
