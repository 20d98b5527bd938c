package dht

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// searchTime bounds the answer to a command, below the bus's own 5 s.
const searchTime = 4 * time.Second

// maxKeyText bounds a key given as text.
const maxKeyText = 1024

// parseKey reads 40 hex digits, or hashes any other text.
func parseKey(s string) (overlay.Key, error) {
	if s == "" || len(s) > maxKeyText {
		return overlay.Key{}, contract.ErrBadRequest.With("a key is 40 hex digits or a text of at most %d bytes", maxKeyText)
	}
	id, err := jami.ParseID(s)
	if err != nil {
		id = jami.HashKey(s)
	}
	if id.IsZero() { // §1.2: error 203
		return overlay.Key{}, contract.ErrBadRequest.With("the zero key is no place for values")
	}
	return overlay.Key(id), nil
}

func view(v overlay.Value, now time.Time) contract.DHTValue {
	return contract.DHTValue{Key: hex.EncodeToString(v.Key[:]), ID: v.ID, Type: v.Type, Data: v.Data, Writer: v.Writer,
		TTLMs: max(v.Expires.Sub(now).Milliseconds(), 0)}
}

func views(vs []overlay.Value) []contract.DHTValue {
	now := time.Now()
	out := make([]contract.DHTValue, len(vs))
	for i, v := range vs {
		out[i] = view(v, now)
	}
	return out
}

func (s *Service) put(ctx context.Context, r *bus.Request[contract.DHTPut]) (*contract.DHTValue, error) {
	key, err := parseKey(r.Body.Value.Key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	q := r.Body.Value
	st, err := s.node.Put(ctx, overlay.Value{Key: key, ID: q.ID, Type: q.Type, Data: q.Data}, r.Body.Permanent)
	if err != nil {
		return nil, s.refusal(err)
	}
	if r.Body.Permanent {
		if err := s.keep.Set(st.Value); err != nil {
			if old, ok := s.keep.Get(key, st.Value.ID); ok { // what it replaced is still to be kept
				err = errors.Join(err, s.node.Restore([]overlay.Value{old}))
			} else {
				s.node.Cancel(ctx, key, st.Value.ID)
			}
			return nil, s.refusal(err)
		}
	} else if _, err := s.keep.Remove(key, st.Value.ID); err != nil { // it was permanent before
		return nil, s.refusal(err)
	}
	v := view(st.Value, time.Now())
	v.Peers = st.Peers
	return &v, nil
}

// refusal says it in the words of the contract.
func (s *Service) refusal(err error) error {
	switch {
	case errors.Is(err, overlay.ErrTooLarge), errors.Is(err, overlay.ErrRefused):
		return contract.ErrBadRequest.With("%v", err)
	case errors.Is(err, overlay.ErrQuota):
		return contract.ErrFull.With("%v; cancel some, or wait until they expire", err)
	case errors.Is(err, overlay.ErrClosed):
		return contract.ErrUnavailable
	case errors.Is(err, overlay.ErrUnreachable):
		s.env.Log.Debug("overlay out of reach", zap.Error(err))
		return contract.ErrTimeout.With("no DHT proxy answers (setting dht.proxy); try again")
	case errors.Is(err, context.DeadlineExceeded):
		return contract.ErrTimeout.With("the overlay's peers do not answer; try again")
	}
	s.env.Log.Error("value not stored", zap.Error(err))
	return contract.ErrStorage.With("the value could not be stored: %v", err)
}

func (s *Service) cancel(ctx context.Context, r *bus.Request[contract.DHTCancel]) (*contract.None, error) {
	key, err := parseKey(r.Body.Key)
	if err != nil {
		return nil, err
	}
	had, err := s.keep.Remove(key, r.Body.ID)
	if err != nil {
		return nil, s.refusal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	if !s.node.Cancel(ctx, key, r.Body.ID) && !had {
		return nil, contract.ErrNotFound.With("this node put no value %d under that key", r.Body.ID)
	}
	return &contract.None{}, nil
}

func (s *Service) get(ctx context.Context, r *bus.Request[contract.DHTKey]) (*contract.DHTValues, error) {
	key, err := parseKey(r.Body.Key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	var vs []overlay.Value
	switch ms := r.Body.SoonMs; {
	case ms < 0 || ms > maxSoonMs:
		return nil, contract.ErrBadRequest.With("soon_ms is 0 to %d", maxSoonMs)
	case ms > 0:
		vs, err = soon(ctx, s.node, key, time.Duration(ms)*time.Millisecond)
	default:
		vs, err = s.node.Get(ctx, key)
	}
	if err != nil {
		return nil, s.refusal(err)
	}
	return &contract.DHTValues{Values: fit(views(vs))}, nil
}

// maxSoonMs bounds [contract.DHTKey].SoonMs.
const maxSoonMs = 10_000

// soon returns the values that are found until so long after the first one.
func soon(ctx context.Context, o overlay.Getter, key overlay.Key, after time.Duration) ([]overlay.Value, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var vs []overlay.Value
	var end *time.Timer
	err := overlay.Find(ctx, o, key, func(v overlay.Value) {
		if end == nil {
			end = time.AfterFunc(after, cancel)
		}
		// Of a value that was changed the last state counts.
		if i := slices.IndexFunc(vs, func(w overlay.Value) bool { return w.ID == v.ID && w.Writer == v.Writer }); i >= 0 {
			vs[i] = v
			return
		}
		vs = append(vs, v)
	})
	if end != nil {
		end.Stop()
		return vs, nil // its end was ours, or what was found is better than nothing
	}
	return nil, err
}

// maxReply bounds the data of one answer: a message of the bus holds 1 MiB, and
// JSON makes four bytes of three.
const maxReply = 640 << 10

// fit leaves out what would not fit into a message.
func fit(vs []contract.DHTValue) []contract.DHTValue {
	size := 0
	for i := range vs {
		if size += len(vs[i].Data) + 256; size > maxReply {
			return vs[:i]
		}
	}
	return vs
}

func (s *Service) describe(context.Context, *bus.Request[contract.None]) (*contract.DHTNode, error) {
	n := s.node.Node()
	out := &contract.DHTNode{Overlay: n.Overlay, ID: n.ID, Addresses: n.Addresses, Public: []string{}, Peers: n.Peers, Stored: n.Stored}
	for _, a := range n.Public {
		out.Public = append(out.Public, a.String())
	}
	return out, nil
}
