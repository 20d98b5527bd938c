package media

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-jami/parley/services/media/leg"
)

// metrics are what /metrics shows of media. Packets are counted by the legs' host
// and read when somebody asks.
type metrics struct {
	eventsLost prometheus.Counter
	refused    *prometheus.CounterVec
}

func newMetrics(reg *prometheus.Registry, s *Service) *metrics {
	m := &metrics{eventsLost: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "parley_media_events_lost_total", Help: "Events that the bus could not take.",
	}), refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "parley_media_legs_refused_total", Help: "Legs that were refused, by reason: max_legs, or late since the worker cannot keep its time.",
	}, []string{"reason"})}
	for _, r := range []string{"max_legs", "late"} {
		m.refused.WithLabelValues(r).Add(0)
	}
	reg.MustRegister(m.eventsLost, m.refused, collector{s})
	return m
}

var (
	descPackets = prometheus.NewDesc("parley_media_packets_total", "RTP and RTCP packets.", []string{"kind"}, nil)
	descDropped = prometheus.NewDesc("parley_media_dropped_total", "Packets dropped, by reason.", []string{"reason"}, nil)
	descLegs    = prometheus.NewDesc("parley_media_legs", "Legs of browsers and phones.", nil, nil)
	descResumed = prometheus.NewDesc("parley_media_resumed_legs", "Legs taken over from the process before.", nil, nil)
	descTrunks  = prometheus.NewDesc("parley_media_trunks", "Trunks of rooms to other workers.", nil, nil)
	descTrunked = prometheus.NewDesc("parley_media_trunk_packets", "Packets on the trunks that are there.", []string{"direction"}, nil)
	descTicks   = prometheus.NewDesc("parley_media_ticks_total", "20 ms of a room: mixed, or missed since the machine had other work.", []string{"result"}, nil)
	descSpent   = prometheus.NewDesc("parley_media_tick_seconds_total", "Time spent in ticks.", nil, nil)
	descMost    = prometheus.NewDesc("parley_media_max_legs", "How many legs this worker takes (media.max_legs), 0: as many as come.", nil, nil)
	descSheds   = prometheus.NewDesc("parley_media_shedding_rooms", "Rooms that cannot keep their time and give who only listens longer packets.", nil, nil)
	descLate    = prometheus.NewDesc("parley_media_late", "1 while this worker cannot keep its time and takes no more legs.", nil, nil)
	descShakes  = prometheus.NewDesc("parley_media_handshakes_total", "DTLS handshakes done.", nil, nil)
)

// collector reads the host's counts.
type collector struct{ s *Service }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPackets, descDropped, descLegs, descResumed, descShakes, descTrunks, descTrunked, descTicks, descSpent, descMost, descSheds, descLate} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	h := c.s.hostNow()
	if h == nil {
		return
	}
	n := h.Counters()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	count(descPackets, n.PacketsIn, "rtp_in")
	count(descPackets, n.PacketsOut, "out")
	count(descPackets, n.RTCPIn, "rtcp_in")
	count(descPackets, n.RTCPOut, "rtcp_out")
	for i, v := range n.Drops {
		count(descDropped, v, leg.DropReasons[i])
	}
	count(descShakes, n.Handshakes)
	ticks := h.Ticks()
	count(descTicks, ticks.Done.Load(), "mixed")
	count(descTicks, ticks.Missed.Load(), "missed")
	ch <- prometheus.MustNewConstMetric(descSpent, prometheus.CounterValue, float64(ticks.Spent.Load())/1e9)
	ch <- prometheus.MustNewConstMetric(descMost, prometheus.GaugeValue, float64(c.s.env.Config.Media.MaxLegs))
	ch <- prometheus.MustNewConstMetric(descSheds, prometheus.GaugeValue, float64(ticks.Shedding.Load()))
	late := 0.0
	if h.Late() {
		late = 1
	}
	ch <- prometheus.MustNewConstMetric(descLate, prometheus.GaugeValue, late)
	trunks := h.TrunkCounts()
	ch <- prometheus.MustNewConstMetric(descTrunks, prometheus.GaugeValue, float64(trunks.Sessions))
	ch <- prometheus.MustNewConstMetric(descTrunked, prometheus.GaugeValue, float64(trunks.Sent), "out")
	ch <- prometheus.MustNewConstMetric(descTrunked, prometheus.GaugeValue, float64(trunks.Received), "in")
	ch <- prometheus.MustNewConstMetric(descLegs, prometheus.GaugeValue, float64(len(h.Legs())))
	ch <- prometheus.MustNewConstMetric(descResumed, prometheus.GaugeValue, float64(n.Resumed))
}
