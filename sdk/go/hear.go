package parley

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus/contract"
)

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
	if from == 0 {
		now, err := Call(ctx, r, contract.RoomGet, contract.None{})
		if err != nil {
			return err
		}
		from = now.Seq + 1
	}
	for behind := true; ; {
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
			behind = true
		case m := <-live:
			var e contract.RoomEvent
			if err := json.Unmarshal(m.Data, &e); err != nil {
				return fmt.Errorf("event: %w", err)
			}
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
	if want.TTLMs == 0 {
		want.TTLMs = 10_000
	}
	if ring <= 0 {
		ring = 100
	}
	ctx, end := context.WithCancelCause(ctx)
	a := &Audio{Close: func() { end(nil) }, ctx: ctx, ring: make(chan Frame, ring)}
	for format, subject := range map[*string]string{&want.Mix: contract.AudioMix.Subject(r.Account, r.Name, want.Mix),
		&want.Others:   contract.AudioOthers.Subject(r.Account, r.Name, r.Me, want.Others),
		&want.Speakers: contract.AudioFrom.Subject(r.Account, r.Name, "*", want.Speakers)} {
		if *format == "" {
			continue
		}
		sub, err := r.nc.Subscribe(subject, a.push)
		if err != nil {
			end(err)
			return nil, fmt.Errorf("listen: %w", err)
		}
		context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // fails only with the connection closed
	}
	if _, err := Call(ctx, r, contract.RoomListen, want); err != nil {
		end(err)
		return nil, err
	}
	go func() { // ends with ctx
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(want.TTLMs) * time.Millisecond / 3):
				if _, err := Call(ctx, r, contract.RoomListen, want); err != nil {
					end(err)
				}
			}
		}
	}()
	return a, nil
}

func (a *Audio) push(m *nats.Msg) {
	f := Frame{Frame: contract.ParseFrame(m.Header), Mix: !strings.Contains(m.Subject, ".audio.from."), Data: m.Data}
	for {
		select {
		case a.ring <- f:
			return
		default:
		}
		select {
		case <-a.ring:
			a.dropped.Add(1)
		default:
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
	return r.say(ctx, nats.Header{contract.HeaderFormat: {format}}, data)
}

// Clear drops what is queued: the bot falls silent at once.
func (r *Room) Clear(ctx context.Context) error {
	_, _, err := r.say(ctx, nats.Header{contract.HeaderClear: {"1"}}, nil)
	return err
}

func (r *Room) say(ctx context.Context, h nats.Header, data []byte) (time.Duration, int, error) {
	var a contract.SayReply
	m := &nats.Msg{Subject: contract.AudioSay.Subject(r.Account, r.Name, r.Me), Header: h, Data: data}
	r.sign(m)
	if err := r.request(ctx, m, &a); err != nil {
		return 0, 0, fmt.Errorf("say: %w", err)
	}
	return time.Duration(a.QueuedMs) * time.Millisecond, a.Dropped, nil
}
