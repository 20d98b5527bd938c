// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-jami/parley/services/conference/room"
)

type metrics struct {
	rooms        prometheus.Gauge
	participants *prometheus.GaugeVec // kind
	joins        *prometheus.CounterVec
	events       *prometheus.CounterVec
	eventsLost   prometheus.Counter
	orderRetries prometheus.Counter
	dropped      prometheus.Counter
	lies         prometheus.Counter
	joinTime     prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		rooms: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_rooms", Help: "Rooms that exist."}),
		participants: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_room_participants",
			Help: "Who is in a room, by what they came with."}, []string{"kind"}),
		joins: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_room_joins_total",
			Help: "Joins by result: ok or the error code."}, []string{"result"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_room_events_total",
			Help: "Events of rooms by type."}, []string{"type"}),
		eventsLost: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_room_events_lost_total",
			Help: "Events that JetStream did not confirm and that are not kept any more: replay lacks them."}),
		orderRetries: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_room_media_orders_retried_total",
			Help: "Orders to media that failed and were sent again."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_room_media_events_dropped_total",
			Help: "Events of media that found a room's mailbox full."}),
		lies: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_room_worker_beats_refused_total",
			Help: "Beats of media workers that came under another worker's name."}),
		joinTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_room_join_seconds",
			Help: "How long a join took, with media's share.", Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5}}),
	}
	reg.MustRegister(m.rooms, m.participants, m.joins, m.events, m.eventsLost, m.orderRetries, m.dropped, m.lies, m.joinTime)
	for _, k := range []room.Kind{room.Browser, room.SIP, room.Jami, room.Bot} {
		m.participants.WithLabelValues(string(k)).Set(0)
	}
	m.joins.WithLabelValues("ok").Add(0)
	return m
}
