package simroom

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Person is somebody in the room. Say may be called while Chat or Hand runs.
type Person interface {
	Join(ctx context.Context, name string) error
	Say(ctx context.Context, pcm []byte) error // s16le at 48 kHz
	Chat(ctx context.Context, text string) error
	Hand(ctx context.Context, raised bool) error
	Leave(ctx context.Context) error
}

// Event is what somebody did: of the script or, where the caller of [Play] adds it,
// another in the room.
type Event struct {
	At    time.Duration `json:"at_ns"`
	Who   string        `json:"who"`
	What  string        `json:"what"` // "join", "speak", "pause", "chat", "hand", "leave"
	Text  string        `json:"text,omitempty"`
	Other bool          `json:"other,omitempty"` // is not of the script
	ID    string        `json:"id,omitempty"`    // of another, in the room
}

// piece is what is said at once: 100 ms.
const piece = 100 * time.Millisecond

// leaveTime bounds the leaving after the end.
const leaveTime = 5 * time.Second

// Play plays the script for d and calls note for each thing done, from several
// goroutines. person makes the i-th one. It returns when all have left: the errors
// of all, none when ctx ended before.
func Play(ctx context.Context, s *Script, d time.Duration, person func(i int) (Person, error), note func(Event)) error {
	ctx, stop := context.WithTimeout(ctx, d)
	defer stop()
	began := time.Now()
	errs := make([]error, len(s.People))
	var wg sync.WaitGroup
	for i := range s.People {
		wg.Go(func() {
			who, err := person(i)
			if err == nil {
				p := &player{ctx: ctx, stop: stop, who: who, role: &s.People[i], began: began, tell: note}
				err = p.play()
			}
			over := ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
			if err != nil && !over {
				errs[i] = fmt.Errorf("%s: %w", s.People[i].Name, err)
				stop() // one who fails ends the play
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// player is one person at play.
type player struct {
	ctx   context.Context //nolint:containedctx // of the whole play
	stop  context.CancelFunc
	who   Person
	role  *Role
	began time.Time
	tell  func(Event)
}

func (p *player) note(what, text string) {
	p.tell(Event{At: time.Since(p.began), Who: p.role.Name, What: what, Text: text})
}

// wait returns at a time of the play, or false when it ended.
func (p *player) wait(at time.Duration) bool {
	t := time.NewTimer(time.Until(p.began.Add(at)))
	defer t.Stop()
	select {
	case <-p.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (p *player) play() (err error) {
	if !p.wait(p.role.Join) {
		return nil
	}
	if err := p.who.Join(p.ctx, p.role.Name); err != nil {
		if p.ctx.Err() != nil { // it may have been done although nobody waited for the answer
			err = errors.Join(err, p.leave())
		}
		return err
	}
	p.note("join", "")
	defer func() {
		err = errors.Join(err, p.leave())
		p.note("leave", "")
	}()
	says, does := p.role.steps()
	spoken := make(chan error, 1)
	go func() { spoken <- p.run(says) }() // waited for below
	err = p.run(does)
	if err != nil {
		p.stop()
	}
	if err = errors.Join(err, <-spoken); err != nil {
		return err
	}
	if p.role.Leave != 0 {
		p.wait(p.role.Leave)
		return nil
	}
	<-p.ctx.Done()
	return nil
}

func (p *player) leave() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), leaveTime)
	defer cancel()
	return p.who.Leave(ctx)
}

// run does steps until the person leaves or the play ends.
func (p *player) run(steps []step) error {
	for _, s := range steps {
		if p.role.Leave != 0 && s.at >= p.role.Leave || !p.wait(s.at) {
			return nil
		}
		if err := s.do(p); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) speak(sp *Speech) error {
	v := newVoice(sp)
	text := sp.WAV
	switch {
	case sp.Tone != 0:
		text = fmt.Sprintf("%g Hz", sp.Tone)
	case sp.Noise:
		text = "noise"
	}
	p.note("speak", text)
	end := sp.To
	if p.role.Leave != 0 {
		end = min(end, p.role.Leave)
	}
	// A piece is said while the one before it sounds: a late timer makes no gap.
	for at := sp.From; at < end && p.wait(max(sp.From, at-piece)); at += piece {
		// Frames of 20 ms: a last piece is rounded down to them.
		n := int(min(piece, end-at)/(20*time.Millisecond)) * rate / 50
		if n == 0 {
			break
		}
		if err := p.who.Say(p.ctx, v.next(n)); err != nil {
			return err
		}
	}
	p.note("pause", "")
	return nil
}

func (p *player) chat(text string) error {
	p.note("chat", text)
	return p.who.Chat(p.ctx, text)
}

func (p *player) hand(raised bool) error {
	p.note("hand", map[bool]string{true: "raised", false: "lowered"}[raised])
	return p.who.Hand(p.ctx, raised)
}
