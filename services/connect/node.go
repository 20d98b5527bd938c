package connect

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/web"
)

// node lets the HTTP server send commands over the bus. Before the bus and the
// account are there it says what is being waited for.
type node struct {
	conn atomic.Pointer[bus.Conn]
	defs map[string]*contract.Def // commands by name
}

func newNode() *node {
	n := &node{defs: map[string]*contract.Def{}}
	for _, d := range contract.All() {
		if d.Kind == contract.KindCommand {
			n.defs[d.Name] = d
		}
	}
	return n
}

// Do implements [web.Node]: the JSON passes through as it is.
func (n *node) Do(ctx context.Context, c web.Command) (json.RawMessage, error) {
	conn := n.conn.Load()
	d := n.defs[c.Name]
	switch {
	case d == nil:
		return nil, refusalOf(contract.ErrInternal.With("no command %s", c.Name))
	case conn == nil:
		return nil, refusalOf(contract.ErrUnavailable.With("the node is starting; it will be ready in a moment"))
	case conn.Account() == "" && d.Params() != nil:
		return nil, refusalOf(n.starting(ctx, conn))
	}
	body, err := json.Marshal(c.Body)
	if err != nil {
		return nil, refusalOf(contract.ErrBadRequest.With("%s: %v", c.Name, err))
	}
	if c.Key != "" {
		ctx = bus.WithKey(ctx, c.Key)
	}
	raw := contract.Command[json.RawMessage, json.RawMessage]{Def: d}
	reply, err := bus.Call(ctx, conn, raw, (*json.RawMessage)(&body), c.Params...)
	if err != nil {
		return nil, refusalOf(err)
	}
	return *reply, nil
}

// starting says how far the account's creation is.
func (n *node) starting(ctx context.Context, conn *bus.Conn) error {
	st, err := bus.Call(ctx, conn, contract.IdentityGet, &contract.None{})
	if err != nil {
		return err
	}
	if st.Message == "" {
		st.Message = "the node is starting; it will be ready in a moment"
	}
	return contract.ErrUnavailable.With("%s", st.Message)
}

func refusalOf(err error) error {
	if e, ok := errors.AsType[*contract.Error](err); ok {
		return &web.Refusal{Code: e.Code, Message: e.Message, Retry: e.Retry}
	}
	return &web.Refusal{Code: contract.ErrInternal.Code, Message: contract.ErrInternal.Message}
}

// pageEvent is a room's event as the pages get it.
func pageEvent(e *contract.RoomEvent) (*web.Event, error) {
	raw, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	out := &web.Event{Room: e.Room, Type: string(e.Type), Reason: e.Reason, Raw: raw}
	if e.Participant != nil {
		out.Participant = e.Participant.ID
	}
	if e.Type == contract.EventQuality {
		out.Qualities = make(map[string]json.RawMessage, len(e.Qualities))
		for id, q := range e.Qualities {
			if out.Qualities[id], err = json.Marshal(q); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}
