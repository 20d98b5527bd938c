// Package parley lets a program take part in a room of a Parley node as a bot: it
// hears the mix and each speaker, speaks, chats and moderates, as far as its
// credentials allow. It needs a NATS client and the types of the bus, no more.
//
//	room, err := parley.Connect(parley.Options{Creds: "echo.creds"})
//	joined, err := room.Join(ctx, "Echo")
//	audio, err := room.Listen(ctx, contract.Listen{Speakers: contract.FormatPCM48}, 0)
//	frame, err := audio.Read(ctx)
//	queued, err := room.Say(ctx, frame.Format, frame.Data)
//	_, err = parley.Call(ctx, room, contract.RoomKick, contract.Target{Participant: frame.Speaker})
//
// A [Room] is safe for concurrent use. Commands are repeated while the node restarts
// one of its parts, with the same idempotency key: each has one effect.
package parley

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/lead"
)

const (
	commandTime = 10 * time.Second       // how long a command is repeated when its context has no deadline
	tryTime     = 2 * time.Second        // how long each try waits
	tryPause    = 100 * time.Millisecond // between two
)

// Options say who connects and where. A bot's credentials say its account, room
// and name; other users of the bus have to name them.
type Options struct {
	Creds               string // path of the credentials file
	URL                 string // nats://127.0.0.1:4223 when empty
	Account, Room, Name string
	NATS                []nats.Option // more of them
}

// Room is a connection to one room.
type Room struct {
	Account, Name, Me string // Jami Id, room, and the bot: also its participant id

	nc    *nats.Conn
	lease atomic.Pointer[contract.Leased] // with this replica as holder, while it leads
}

// Connect connects; the connection is kept up until Close.
func Connect(o Options) (*Room, error) {
	r := &Room{Account: o.Account, Name: o.Room, Me: o.Name}
	opts := append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond)}, o.NATS...)
	if o.URL == "" {
		o.URL = "nats://127.0.0.1:4223"
	}
	if o.Creds != "" {
		if err := r.fromCreds(o.Creds); err != nil && r.Account == "" {
			return nil, fmt.Errorf("credentials %s: %w", o.Creds, err)
		}
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	var err error
	if r.nc, err = nats.Connect(o.URL, append(opts, nats.Name(r.Me))...); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.URL, err)
	}
	return r, nil
}

// fromCreds reads account, room and name from the permissions in the JWT.
func (r *Room) fromCreds(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	tok, err := jwt.ParseDecoratedJWT(text)
	if err != nil {
		return err
	}
	claims, err := jwt.DecodeUserClaims(tok)
	if err != nil {
		return err
	}
	for _, s := range claims.Pub.Allow {
		if p, ok := contract.RoomGet.Match(s); ok && p[0] != "*" {
			r.Account, r.Name, r.Me = p[0], p[1], p[2]
			return nil
		}
	}
	return errors.New("not of a bot: name account, room and bot")
}

// Close ends the connection. Leave first, or the bot stays in the roster for 15 s more.
func (r *Room) Close() { r.nc.Close() }

// Call sends a command of the room, and again while the node says that this helps.
// Refusals are *contract.Error.
func Call[Q, A any](ctx context.Context, r *Room, cmd contract.Command[Q, A], q Q) (*A, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, commandTime)
		defer cancel()
	}
	m := nats.NewMsg(cmd.Subject(r.Account, r.Name, r.Me))
	m.Header.Set(contract.HeaderKey, nuid.Next())
	r.sign(m)
	var err error
	if m.Data, err = json.Marshal(q); err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Name, err)
	}
	for {
		a := new(A)
		err := r.request(ctx, m, a)
		again := errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
			errors.Is(err, contract.ErrUnavailable) || errors.Is(err, contract.ErrTimeout) || errors.Is(err, contract.ErrBusy)
		if err == nil {
			return a, nil
		} else if !again || ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", cmd.Name, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(tryPause):
		}
	}
}

// sign says which replica speaks: the node refuses those whose lease has gone.
func (r *Room) sign(m *nats.Msg) {
	if l := r.lease.Load(); l != nil {
		m.Header.Set(contract.HeaderInstance, l.Holder)
		m.Header.Set(contract.HeaderEpoch, fmt.Sprint(l.Epoch))
	}
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
	ask := func(ctx context.Context, release bool) (bool, uint64, error) {
		l, err := Call(ctx, r, contract.RoomLease, contract.Lease{Instance: me, TTLMs: ttl.Milliseconds(), Release: release})
		if err != nil {
			return false, 0, err
		}
		return l.Held, l.Epoch, nil
	}
	refused := func(err error) bool { e, ok := errors.AsType[*contract.Error](err); return ok && !e.Retry }
	return lead.Run(ctx, ttl, ask, refused, func(ctx context.Context, epoch uint64) error {
		r.lease.Store(&contract.Leased{Holder: me, Epoch: epoch})
		defer r.lease.Store(nil)
		return fn(ctx)
	})
}
