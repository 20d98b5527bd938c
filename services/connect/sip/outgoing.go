package sip

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
)

// RingTime is how long a call of ours rings at most.
const RingTime = 60 * time.Second

// settleTime is between opening a channel and the INVITE on it. A stock peer (13.7) says that
// it takes a channel before it listens there, under a lock; an INVITE that waits for it then is
// handled under that lock, which it takes again: the app hangs until it is started anew.
const settleTime = 150 * time.Millisecond

// Errors of [Server.Call]; those of [Rooms] and of [Outgoing].Reach come as they are.
var (
	ErrNoAnswer = errors.New("nobody took the call")
	ErrHungUp   = errors.New("the call was given up")
	ErrStopping = errors.New("the node is stopping")
)

// Declined is how the other end turned a call down (RFC 3261 §21.4 to §21.6).
type Declined struct {
	Status int
	Reason string
}

func (d *Declined) Error() string { return fmt.Sprintf("%d %s", d.Status, d.Reason) }

// Final reports whether a person or a whole account said no; other answers are of one device
// (connect-and-calls §3.2).
func (d *Declined) Final() bool { return d.Status == 486 || d.Status >= 600 }

// Outgoing is a call that the node makes into a room.
type Outgoing struct {
	ID     string // participant
	Room   string
	Name   string // of the participant
	By     string // who calls
	Caller string // the name that is shown to who is called
	JamiID string // who is called, 40 hex; empty: a phone

	// Of a Jami peer: the account that calls, the short id of its device on this node, and what
	// opens channels to devices, one after the other or at once. Reach calls fn for each and
	// returns when all have returned.
	Account jami.ID
	Device  string
	Reach   func(ctx context.Context, fn func(channel.Channel)) error

	Phone Phone // where the phone is

	// Entered is told when the seat is reserved; Ringing and Taken with the long id of the device,
	// empty of a phone. They do not wait.
	Entered func()
	Ringing func(device string)
	Taken   func(device string)
}

// Phone is where a phone is called.
type Phone struct {
	URI       string // sip: or sips:
	Transport string // UDP, TCP or TLS
	At        string // its IP address and port
}

// Call calls somebody into a room. It returns when the call is taken, nil, or over; it goes on
// by itself then. ctx ends the ringing. A cause of its end ([context.Cause]) is returned.
func (s *Server) Call(ctx context.Context, o Outgoing) error {
	if !s.rings.begin() {
		return ErrStopping
	}
	defer s.rings.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.rings.ctx, func() { cancel(ErrStopping) })()
	s.setups.add(o.ID)
	defer s.setups.remove(o.ID)
	source := ""
	if o.JamiID == "" {
		source = sourceIP(o.Phone.At).String()
	}
	offer, err := s.cfg.Rooms.Enter(ctx, Call{ID: o.ID, Name: o.Name, Room: o.Room, JamiID: o.JamiID, Jami: o.JamiID != "", Source: source, By: o.By})
	if err != nil {
		return err
	}
	o.Entered()
	f := &fork{s: s, o: &o, offer: offer, cancel: cancel}
	if o.JamiID == "" {
		f.phone(ctx)
	} else if err = o.Reach(ctx, func(c channel.Channel) { f.device(ctx, c) }); err != nil {
		f.failed(err)
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	if f.won {
		return nil
	}
	s.leave(&dialog{record: record{Room: o.Room, ID: o.ID}}, "left")
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return f.err
}

// rings are the calls of ours that are not taken yet.
type rings struct {
	ctx  context.Context //nolint:containedctx // ends them
	stop context.CancelFunc
	mu   sync.Mutex
	wg   sync.WaitGroup
}

func newRings() *rings {
	r := &rings{}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

func (r *rings) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return false
	}
	r.wg.Add(1)
	return true
}

// end has all of them given up and waits.
func (r *rings) end() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	r.wg.Wait()
}

// fork is one call to all devices of an account: the first that takes it has it
// (connect-and-calls §3.2).
type fork struct {
	s      *Server
	o      *Outgoing
	offer  string
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer // from the first INVITE
	won   bool
	err   error // the first device's reason
}

var errOther = errors.New("another device took the call")

func (f *fork) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

// begin starts the time that it may ring.
func (f *fork) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer == nil {
		f.timer = time.AfterFunc(RingTime, func() { f.cancel(ErrNoAnswer) })
	}
}

// device calls a device on a channel of its own.
func (f *fork) device(ctx context.Context, c channel.Channel) {
	ch, err := f.s.channels.open(ctx, f.o.Account, c)
	if err != nil {
		c.Close() //nolint:errcheck // nobody has used it
		f.failed(err)
		return
	}
	select {
	case <-time.After(settleTime):
	case <-ch.gone:
	case <-ctx.Done():
	}
	if !f.ring(ctx, f.s.toDevice(f.o, ch)) {
		f.s.hangChannel(ch)
	}
}

// phone calls a phone.
func (f *fork) phone(ctx context.Context) {
	if strings.EqualFold(f.o.Phone.Transport, "UDP") {
		select {
		case <-f.s.udpUp:
		case <-ctx.Done():
			return
		}
	}
	f.ring(ctx, f.s.toPhone(f.o))
}

// ring calls one device or phone. It reports whether that one has the call.
func (f *fork) ring(ctx context.Context, d *dialog) bool {
	f.begin()
	res, err := f.s.invite(ctx, d, f.offer, func() { f.o.Ringing(d.Device) })
	if err != nil {
		if no, ok := errors.AsType[*Declined](err); ok && no.Final() {
			f.cancel(no)
		}
		f.failed(err)
		return false
	}
	f.mu.Lock()
	first := !f.won && ctx.Err() == nil
	f.won = f.won || first
	f.mu.Unlock()
	if !first {
		f.s.refuseTaken(d, res)
		return false
	}
	if err := f.s.take(d, res); err != nil {
		f.mu.Lock()
		f.won = false
		f.mu.Unlock()
		f.cancel(err)
		return false
	}
	f.o.Taken(d.Device)
	f.cancel(errOther) // the others stop ringing
	return true
}

// showName is a name as a quoted string of SIP may have it (RFC 3261 §25.1), with a blank
// after it.
func showName(name string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '"' || r == '\\' || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, name))
	if name == "" {
		return ""
	}
	return `"` + name + `" `
}

// hangChannel closes a channel that was opened for a call of ours.
func (s *Server) hangChannel(ch *channelConn) {
	if ch == nil {
		return
	}
	if err := ch.Close(); err != nil {
		s.log.Debug("channel", zap.Error(err))
	}
}
