package media

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/media/leg"
)

// pageMax is how many legs a message of the bus holds at most.
const pageMax = 1000

// described is a leg that can tell what it is.
type described struct {
	id   string
	info func() contract.LegInfo
}

// all returns the legs in the order of their ids.
func (s *Service) all() []described {
	var out []described
	for _, l := range s.host.Legs() {
		out = append(out, described{l.ID(), func() contract.LegInfo { return infoOf(l.Info()) }})
	}
	s.mu.Lock()
	for id, b := range s.bots {
		out = append(out, described{id, func() contract.LegInfo {
			s.mu.Lock()
			defer s.mu.Unlock()
			return b.infoNow()
		}})
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b described) int { return strings.Compare(a.id, b.id) })
	return out
}

// infos describes all legs.
func (s *Service) infos() []contract.LegInfo {
	legs := s.all()
	out := make([]contract.LegInfo, len(legs))
	for i, l := range legs {
		out[i] = l.info()
	}
	return out
}

// page describes the legs after one, and reports whether there are more.
func (s *Service) page(after string, limit int) (out []contract.LegInfo, more bool) {
	if limit < 1 || limit > pageMax {
		limit = pageMax
	}
	out = []contract.LegInfo{}
	for _, l := range s.all() {
		switch {
		case l.id <= after:
		case len(out) == limit:
			return out, true
		default:
			out = append(out, l.info())
		}
	}
	return out, false
}

func infoOf(i leg.Info) contract.LegInfo {
	return contract.LegInfo{
		Leg: i.ID, Room: i.Room, Transport: i.Transport, Codec: i.Codec,
		Connected: i.Connected, CanSpeak: i.CanSpeak, Muted: i.Muted, Speaking: i.Mix.Speaking,
		Quality: contract.LegQuality{
			PacketsIn: i.Received, PacketsOut: i.Out, LostIn: i.Lost, LostPct: i.LostPct, FarLostPct: i.FarLostPct,
			JitterMs: i.JitterMs, RTTMs: i.RTTMs, BufferMs: i.Mix.BufferMs, Level: i.Mix.Level,
			Remote: i.Remote, Cipher: i.Cipher,
		},
	}
}

func (b *bot) infoNow() contract.LegInfo {
	i, m := b.info, b.leg.Stats()
	i.Speaking = m.Speaking
	i.Quality.PacketsIn, i.Quality.PacketsOut, i.Quality.Level, i.Quality.BufferMs = m.Received, m.FramesOut, m.Level, m.BufferMs
	return i
}

// meter is the CPU use of the last interval, in cores; it is safe for concurrent use.
type meter struct {
	mu sync.Mutex
	u  usage
}

func (m *meter) sample(now time.Time) {
	m.mu.Lock()
	m.u.sample(now)
	m.mu.Unlock()
}

func (m *meter) cores() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.u.used
}
