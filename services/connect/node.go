package connect

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
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
	if c.Account != "" {
		conn = conn.For(c.Account)
	}
	if x, ok := c.Body.(*contract.Secret); ok || d.Request == reflect.TypeFor[contract.Sealed]() {
		sealed, err := seal(ctx, conn, d, x)
		if err != nil {
			return nil, refusalOf(err)
		}
		c.Body = sealed
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
		return nil, refusalOf(noAccount(ctx, conn, c.Account, err))
	}
	return *reply, nil
}

// noAccount says so where nobody answers because the node does not have that account; "" is
// the main one.
func noAccount(ctx context.Context, conn *bus.Conn, account string, err error) error {
	if account == "" || !errors.Is(err, contract.ErrUnavailable) {
		return err
	}
	st, serr := bus.Call(ctx, conn, contract.IdentityGet, &contract.None{})
	if serr != nil || slices.ContainsFunc(st.Accounts, func(a contract.Account) bool { return a.ID == account }) {
		return err
	}
	return contract.ErrNotFound.With("the node has no account %s", account)
}

// seal encrypts a secret to identity, of the command that takes it. No other one is sent with it.
func seal(ctx context.Context, conn *bus.Conn, d *contract.Def, x *contract.Secret) (*contract.Sealed, error) {
	if x == nil || d.Request != reflect.TypeFor[contract.Sealed]() {
		return nil, contract.ErrInternal.With("%s: what is sealed and what is not were mixed up", d.Name)
	}
	st, err := bus.Call(ctx, conn, contract.IdentityGet, &contract.None{})
	if err != nil {
		return nil, err
	}
	return bus.Seal(st.SealKey, d.Name, x)
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
