// Package parley lets a program take part in a room of a Parley node as a bot: it
// hears the mix and each speaker, speaks, chats and moderates, as far as its
// credentials allow. It needs a NATS client and the types of the bus, no more.
//
// A [Room] is safe for concurrent use. Commands are repeated while the node restarts
// one of its parts, with the same idempotency key: each has one effect.
package parley

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/lead"
	"github.com/parley-jami/parley/internal/natscreds"
	"github.com/parley-jami/parley/sdk/go/creds"
)

const (
	commandTime = 10 * time.Second // how long a command is repeated when its context has no deadline
	tryTime     = 2 * time.Second  // how long each try waits
)

// Options say who connects and where. A bot's credentials say its account, room
// and name; other users of the bus have to name them.
type Options struct {
	Creds               string // path of the credentials file
	URL                 string // when empty, that of the credentials, else nats://127.0.0.1:4223
	Account, Room, Name string
	NATS                []nats.Option // more of them
}

// Room is a connection to one room.
type Room struct {
	Account, Name, Me string // Jami Id, room, and the bot: also its participant id

	nc    *nats.Conn
	lease atomic.Pointer[contract.Leased] // while this replica leads
}

// Connect connects; the connection is kept up until Close.
func Connect(o Options) (*Room, error) {
	r := &Room{Account: o.Account, Name: o.Room, Me: o.Name}
	opts := append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond)}, o.NATS...)
	var err error
	if o.Creds != "" {
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.Account == "" {
		if r.Account, r.Name, r.Me, err = creds.Read(o.Creds); err != nil {
			return nil, err
		}
	}
	var access contract.BusAccess // where the bus is and what verifies it
	if o.Creds != "" {
		if access, err = natscreds.ReadAccess(o.Creds); err != nil {
			return nil, err
		}
	}
	secure, err := natscreds.TLS(access)
	if err != nil {
		return nil, fmt.Errorf("credentials %s: %w", o.Creds, err)
	}
	if secure != nil {
		opts = append([]nats.Option{nats.Secure(secure)}, opts...) // those of Options win
	}
	o.URL = cmp.Or(o.URL, strings.Join(access.URLs, ","), "nats://127.0.0.1:4223")
	if r.nc, err = nats.Connect(o.URL, append(opts, nats.Name(r.Me))...); err != nil {
		return nil, fmt.Errorf("bus at %s with credentials %q (is the node running, is the address right, were they revoked or made for another node?): %w", o.URL, o.Creds, err)
	}
	return r, nil
}

// Close ends the connection. Leave first, or the bot stays in the roster for 15 s more.
func (r *Room) Close() { r.nc.Close() }

// Call sends a command of the room or the account, and again while the node says that this helps.
// Refusals are *contract.Error, the last one also where ctx ends first.
func Call[Q, A any](ctx context.Context, r *Room, cmd contract.Command[Q, A], q Q) (*A, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, commandTime)
		defer cancel()
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Name, err)
	}
	m := r.message(cmd.Def, contract.HeaderKey, nuid.Next(), body)
	var refusal *contract.Error // the last one
	for {
		a := new(A)
		err := r.request(ctx, m, a)
		if err == nil {
			return a, nil
		}
		if e, ok := errors.AsType[*contract.Error](err); ok {
			refusal = e
		} else if ctx.Err() != nil && refusal != nil {
			err = fmt.Errorf("%w (%w)", refusal, err) // not only that the time is up
		}
		if !away(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", cmd.Name, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// message says also which replica speaks: the node refuses those whose lease has gone.
func (r *Room) message(d *contract.Def, header, value string, body []byte) *nats.Msg {
	m := &nats.Msg{Subject: d.For(r.Account, r.Name, r.Me), Header: nats.Header{header: {value}}, Data: body}
	if l := r.lease.Load(); l != nil {
		m.Header.Set(contract.HeaderInstance, l.Holder)
		m.Header.Set(contract.HeaderEpoch, fmt.Sprint(l.Epoch))
	}
	return m
}

func (r *Room) request(ctx context.Context, m *nats.Msg, a any) error {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	resp, err := r.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return err
	}
	if resp.Header.Get("Nats-Service-Error-Code") != "" {
		e := contract.ErrInternal.With("%s", resp.Header.Get("Nats-Service-Error"))
		return errors.Join(json.Unmarshal(resp.Data, e), e)
	}
	return json.Unmarshal(resp.Data, a)
}

// Join enters the room; name is what people see.
func (r *Room) Join(ctx context.Context, name string) (*contract.Joined, error) {
	return Call(ctx, r, contract.RoomJoin, contract.Join{Name: name, Kind: contract.KindBot, Transport: contract.TransportBus})
}

// Leave leaves it. It is for a defer: it works when the bot's context has ended.
func (r *Room) Leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), tryTime)
	defer cancel()
	_, err := Call(ctx, r, contract.RoomLeave, contract.Leave{})
	return err
}

// Chat writes a message; it is on the node's disk when this returns.
func (r *Room) Chat(ctx context.Context, body string) (*contract.ChatMessage, error) {
	return Call(ctx, r, contract.RoomChat, contract.ChatPost{Body: body, Key: nuid.Next()})
}

// Lead waits until this replica is the only one that serves the room, then runs
// fn, whose context ends before another replica can take over. When fn returns, the
// lease is given back and Lead returns its error. ttl is 1 to 60 s.
func (r *Room) Lead(ctx context.Context, ttl time.Duration, fn func(ctx context.Context) error) error {
	me := nuid.Next()
	ask := func(ctx context.Context, release bool) (*contract.Leased, error) {
		return Call(ctx, r, contract.RoomLease, contract.Lease{Instance: me, TTLMs: ttl.Milliseconds(), Release: release})
	}
	return lead.Run(ctx, ttl, ask, func(ctx context.Context, l *contract.Leased) error {
		r.lease.Store(l)
		defer r.lease.Store(nil)
		return fn(ctx)
	})
}

// Events calls fn for each event of the room, in order, without gap or duplicate,
// until ctx ends: kept ones from sequence from on (after a Join: its Seq+1; 0: from
// now on), then live ones. What the connection missed is replayed; events that are
// not kept (Seq 0: quality) come as they arrive.
func (r *Room) Events(ctx context.Context, from uint64, fn func(contract.RoomEvent)) error {
	live := make(chan *nats.Msg, 1024) // when it is full, NATS drops and the gap is replayed
	sub, err := r.nc.ChanSubscribe(contract.RoomEvents.Subject(r.Account, r.Name), live)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only with the connection closed
	again := r.nc.StatusChanged(nats.CONNECTED)
	defer r.nc.RemoveStatusListener(again)
	for behind := from > 0; ; {
		for behind {
			page, err := Call(ctx, r, contract.RoomReplay, contract.Replay{From: from, Limit: 500})
			if err != nil {
				return err
			}
			for _, e := range page.Events {
				if e.Seq >= from {
					from = e.Seq + 1
					fn(e)
				}
			}
			from, behind = max(from, page.Next), page.More
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
			behind = from > 0
		case m := <-live:
			var e contract.RoomEvent
			if err := json.Unmarshal(m.Data, &e); err != nil {
				return fmt.Errorf("event: %w", err)
			}
			from = cmp.Or(from, e.Seq)
			if behind = e.Seq > from; e.Seq == from || e.Seq == 0 {
				from = max(from, e.Seq+min(e.Seq, 1))
				fn(e)
			}
		}
	}
}

// Frame is 20 ms of audio; PCM is s16le mono.
type Frame struct {
	contract.Frame
	Mix     bool // of the whole room or of the others in it, else of Speaker alone
	Dropped int  // frames that this bot was too slow for, since the last Read
	Data    []byte
}

// Audio is what a bot hears.
type Audio struct {
	Close   context.CancelFunc // ends it; the node sends until the last renewal runs out
	ctx     context.Context    //nolint:containedctx // ends with Close, its cause is what Read says
	ring    chan Frame
	dropped atomic.Int64
}

// Listen begins to hear and renews it by itself until Close, the end of ctx or of
// the bot's stay. ring is how many frames wait for a slow reader (0: 100, two seconds
// of one source); beyond, the oldest is dropped. The bot must have joined.
func (r *Room) Listen(ctx context.Context, want contract.Listen, ring int) (*Audio, error) {
	want.TTLMs, ring = cmp.Or(want.TTLMs, 10_000), cmp.Or(max(ring, 0), 100)
	ctx, end := context.WithCancelCause(ctx)
	a := &Audio{Close: func() { end(nil) }, ctx: ctx, ring: make(chan Frame, ring)}
	for subject, format := range map[string]string{
		contract.AudioMix.Subject(r.Account, r.Name, want.Mix):             want.Mix,
		contract.AudioOthers.Subject(r.Account, r.Name, r.Me, want.Others): want.Others,
		contract.AudioFrom.Subject(r.Account, r.Name, "*", want.Speakers):  want.Speakers,
	} {
		if format == "" {
			continue
		}
		sub, err := r.nc.Subscribe(subject, a.push)
		if err != nil {
			end(err)
			return nil, fmt.Errorf("listen: %w", err)
		}
		context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // fails only with the connection closed
	}
	var renew func() error
	renew = func() error { // until ctx ends
		_, err := Call(ctx, r, contract.RoomListen, want)
		if err != nil {
			end(err)
			return err
		}
		time.AfterFunc(time.Duration(want.TTLMs)*time.Millisecond/3, func() { _ = renew() }) // Read tells
		return nil
	}
	return a, renew()
}

func (a *Audio) push(m *nats.Msg) {
	f := Frame{Frame: contract.ParseFrame(m.Header), Mix: !strings.Contains(m.Subject, ".audio.from."), Data: m.Data}
	for {
		select {
		case a.ring <- f:
			return
		default:
			select {
			case <-a.ring:
				a.dropped.Add(1)
			default:
			}
		}
	}
}

// Read returns the next frame, or why there are no more.
func (a *Audio) Read(ctx context.Context) (Frame, error) {
	select {
	case f := <-a.ring:
		f.Dropped = int(a.dropped.Swap(0))
		return f, nil
	case <-ctx.Done():
		return Frame{}, ctx.Err()
	case <-a.ctx.Done():
		return Frame{}, context.Cause(a.ctx)
	}
}

// Say queues audio to be heard and returns how long the queue is then and how many
// frames were refused so far, because 10 s waited or the bot may not speak. PCM is any
// number of 20 ms frames in up to 64 KiB, Opus one packet.
func (r *Room) Say(ctx context.Context, format string, data []byte) (queued time.Duration, refused int, err error) {
	a, err := r.say(ctx, contract.HeaderFormat, format, data)
	return time.Duration(a.QueuedMs) * time.Millisecond, a.Dropped, err
}

// Clear drops what is queued: the bot falls silent at once.
func (r *Room) Clear(ctx context.Context) error {
	_, err := r.say(ctx, contract.HeaderClear, "1", nil)
	return err
}

func (r *Room) say(ctx context.Context, header, value string, data []byte) (a contract.SayReply, err error) {
	err = r.request(ctx, r.message(contract.AudioSay.Def, header, value, data), &a)
	return a, err
}
