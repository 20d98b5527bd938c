// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

// maxConnections is how many participants an answer holds at most, so that it stays below the
// largest message of the bus.
const maxConnections = 500

// connections says how participants are connected: what the room knows of their signalling,
// and what their media workers know of their legs.
func (s *Service) connections(ctx context.Context, r *bus.Request[contract.ConnectionQuery]) (*contract.Connections, error) {
	if r.Param(2) != contract.Operator {
		return nil, contract.ErrForbidden.With("how others are connected is told to operators")
	}
	q, name := &r.Body, r.Param(1)
	if q.Limit < 1 || q.Limit > maxConnections {
		q.Limit = maxConnections
	}
	all, err := ask(ctx, s, name, func(l *live) ([]room.Member, error) { return l.r.Members(), nil })
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(m room.Member) bool { return m.ID <= q.After || q.Participant != "" && m.ID != q.Participant })
	if q.Participant != "" && len(all) == 0 {
		return nil, contract.ErrNotFound.With("nobody in %s has the id %q", name, q.Participant)
	}
	slices.SortFunc(all, func(a, b room.Member) int { return strings.Compare(a.ID, b.ID) })
	out := &contract.Connections{Connections: []contract.Connection{}, More: len(all) > q.Limit}
	all = all[:min(len(all), q.Limit)]
	legs := s.paths(ctx, name, q.Participant, all)
	for i := range all {
		m := &all[i]
		c := contract.Connection{Participant: m.ID, Name: m.Name, Transport: m.Transport, Codec: m.Codec, Connected: m.Connected}
		if m.Signalled != (room.Signalled{}) {
			sig := contract.Signalled(m.Signalled)
			c.Signalled = &sig
		}
		if l := legs[m.ID]; l != nil && l.Room == name {
			c.Path, c.Quality = l.Path, l.Quality
		}
		out.Connections = append(out.Connections, c)
	}
	return out, nil
}

// paths asks the workers of those members for their legs. Without an answer of one the others
// are told all the same.
func (s *Service) paths(ctx context.Context, name, leg string, members []room.Member) map[string]*contract.LegInfo {
	out := map[string]*contract.LegInfo{}
	asked := map[string]bool{"": true}
	for i := range members {
		w := members[i].Worker
		if asked[w] {
			continue
		}
		asked[w] = true
		legs, err := s.legsOf(ctx, w, contract.MediaQuery{Room: name, Leg: leg, Paths: true})
		if err != nil {
			s.log.Info("a media worker does not say how its legs are connected", zap.String("worker", w), zap.Error(err))
			continue
		}
		for k := range legs {
			out[legs[k].Leg] = &legs[k]
		}
	}
	return out
}
