package media

import (
	"sync"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/media/leg"
)

// infos describes all legs.
func (s *Service) infos() []contract.LegInfo {
	out := []contract.LegInfo{}
	for _, l := range s.host.Legs() {
		out = append(out, infoOf(l.Info()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.bots {
		out = append(out, b.infoNow())
	}
	return out
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
