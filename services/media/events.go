package media

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/media/buslegs"
)

// Pauses between what is published by itself.
const (
	beatEvery  = 400 * time.Millisecond
	statsEvery = 5 // beats
)

// later queues an event; it never waits.
func (s *Service) later(fn func(*bus.Conn)) {
	select {
	case s.events <- fn:
	default:
		s.metrics.eventsLost.Inc()
	}
}

func publish[E any](s *Service, ev contract.Event[E], e E) {
	s.later(func(c *bus.Conn) {
		if err := bus.Publish(context.Background(), c, ev, &e, s.worker); err != nil {
			s.metrics.eventsLost.Inc()
		}
	})
}

func (s *Service) onChange(id, room, state, reason string) {
	s.log.Info("leg "+state, zap.String("leg", id), zap.String("room", room), zap.String("reason", reason))
	publish(s, contract.MediaLeg, contract.LegChange{Leg: id, Room: room, State: state, Reason: reason})
}

func (s *Service) onDigit(id, room, digit string, ms int) {
	publish(s, contract.MediaDigit, contract.DigitPressed{Leg: id, Room: room, Digit: digit, MS: ms})
}

func (s *Service) onVoice(id, room string, speaking bool, level int) {
	publish(s, contract.MediaVoice, contract.VoiceChange{Leg: id, Room: room, Speaking: speaking, Level: level})
}

// publisher sends the queued events, the beat and the statistics until ctx ends,
// then what is still queued.
func (s *Service) publisher(ctx context.Context, c *bus.Conn) {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	last := map[string]contract.LegInfo{}
	s.beat(c) // who waits for this process, as the room's other workers do, learns of it now
	for n := 0; ; {
		select {
		case fn := <-s.events:
			fn(c)
		case <-t.C:
			n++
			s.beat(c)
			if n%statsEvery == 0 {
				last = s.stats(c, s.infos(), last)
			}
		case <-ctx.Done():
			for {
				select {
				case fn := <-s.events:
					fn(c)
				default:
					return
				}
			}
		}
	}
}

func (s *Service) beat(c *bus.Conn) {
	s.cpu.sample(time.Now())
	s.mu.Lock()
	legs := len(s.bots)
	s.mu.Unlock()
	legs += s.host.Len()
	publishNow(s, c, contract.MediaBeat, contract.WorkerBeat{
		Worker: s.worker, Started: s.started, Legs: legs, MaxLegs: s.env.Config.Media.MaxLegs, Late: s.host.Late(), Near: s.env.Config.Media.Near,
		Contract: contract.Version, CPU: s.cpu.cores(), At: time.Since(s.born).Seconds(), CPUS: s.cpu.seconds(), RSS: residentBytes(),
		TrunkKey: s.trunk.Public(), TrunkAddress: s.trunkAddress(),
	})
}

// residentBytes is the memory of the process (proc(5)), 0 when the system does not tell.
func residentBytes() int64 {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(raw), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}

func publishNow[E any](s *Service, c *bus.Conn, ev contract.Event[E], e E) {
	if err := bus.Publish(context.Background(), c, ev, &e, s.worker); err != nil {
		s.metrics.eventsLost.Inc()
	}
}

// statsBatch bounds the legs in one message, which the bus takes up to 1 MiB.
const statsBatch = 500

// stats publishes the legs that differ from what was published last.
func (s *Service) stats(c *bus.Conn, infos []contract.LegInfo, last map[string]contract.LegInfo) map[string]contract.LegInfo {
	next := make(map[string]contract.LegInfo, len(infos))
	var changed []contract.LegInfo
	for _, i := range infos {
		next[i.Leg] = i
		if last[i.Leg] != i {
			changed = append(changed, i)
		}
	}
	for len(changed) > 0 {
		n := min(len(changed), statsBatch)
		publishNow(s, c, contract.MediaStats, contract.LegStats{Worker: s.worker, Legs: changed[:n]})
		changed = changed[n:]
	}
	return maps.Clone(next)
}

// usage measures the CPU time of the process.
type usage struct {
	at    time.Time
	spent time.Duration
	used  float64
}

func (u *usage) sample(now time.Time) {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) != nil {
		return
	}
	spent := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	if !u.at.IsZero() && now.After(u.at) {
		u.used = float64(spent-u.spent) / float64(now.Sub(u.at))
	}
	u.at, u.spent = now, spent
}

// audioConn is the bus as buslegs uses it: a connection of its own, whose frames may
// be dropped.
type audioConn struct{ c *bus.Conn }

func (a audioConn) Publish(subject string, h buslegs.Header, data []byte) error {
	return a.c.PublishAudio(subject, h, data)
}

func (a audioConn) Subscribe(subject string, limit int, fn func(*buslegs.Message)) (func(), error) {
	sub, err := a.c.HearAudio(subject, limit, func(m *bus.AudioMsg) {
		b := &buslegs.Message{Subject: m.Subject, Header: m.Header, Data: m.Data}
		if m.Reply != nil {
			b.Reply = func(queued, dropped int) {
				body, err := json.Marshal(contract.SayReply{QueuedMs: queued, Dropped: dropped})
				if err == nil {
					err = m.Reply(body)
				}
				if err != nil {
					a.c.Log().Debug("say not answered", zap.Error(err))
				}
			}
		}
		fn(b)
	})
	if err != nil {
		return nil, err
	}
	return sub.Stop, nil
}

func audioSubjects(c *bus.Conn) buslegs.Subjects {
	return buslegs.Subjects{
		Mix: func(room, format string) string { return contract.AudioMix.Subject(c.Account(), room, format) },
		Others: func(room, bot, format string) string {
			return contract.AudioOthers.Subject(c.Account(), room, bot, format)
		},
		From: func(room, p, format string) string { return contract.AudioFrom.Subject(c.Account(), room, p, format) },
		Say:  func(room, bot string) string { return contract.AudioSay.Subject(c.Account(), room, bot) },
	}
}
