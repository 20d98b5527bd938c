package media

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/media/leg"
)

// pageMax is how many legs a message of the bus holds at most.
const pageMax = 1000

// described is a leg that can tell what it is, and how its packets travel.
type described struct {
	id, room string
	info     func() contract.LegInfo
	path     func() *contract.LegPath
}

// all returns the legs in the order of their ids.
func (s *Service) all() []described {
	var out []described
	for _, l := range s.host.Legs() {
		out = append(out, described{l.ID(), l.Room(), func() contract.LegInfo { return infoOf(l.Info()) }, func() *contract.LegPath { return pathOf(l.Path()) }})
	}
	s.mu.Lock()
	for id, b := range s.bots {
		out = append(out, described{id, b.info.Room, func() contract.LegInfo {
			s.mu.Lock()
			defer s.mu.Unlock()
			return b.infoNow()
		}, func() *contract.LegPath { return &contract.LegPath{Protocol: "bus"} }})
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

// page describes the legs that are asked for, and reports whether there are more.
func (s *Service) page(q *contract.MediaQuery) (out []contract.LegInfo, more bool) {
	limit := q.Limit
	if limit < 1 || limit > pageMax {
		limit = pageMax
	}
	out = []contract.LegInfo{}
	for _, l := range s.all() {
		switch {
		case l.id <= q.After, q.Room != "" && l.room != q.Room, q.Leg != "" && l.id != q.Leg:
		case len(out) == limit:
			return out, true
		default:
			i := l.info()
			if q.Paths {
				i.Path = l.path()
			}
			out = append(out, i)
		}
	}
	return out, false
}

func pathOf(p leg.Path) *contract.LegPath {
	return &contract.LegPath{Protocol: "udp", Local: addr(p.Local), LocalType: p.LocalType, Remote: addr(p.Remote), RemoteType: p.RemoteType, RTCP: addr(p.RTCP), DTLS: p.DTLS, Suite: p.Suite}
}

// addr is empty where there is none.
func addr(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
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

// seconds are what the process used since its start, as of the last sample.
func (m *meter) seconds() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.u.spent.Seconds()
}

func (m *meter) cores() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.u.used
}
