package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// handle carries out one message.
func (k *socket) handle(ctx context.Context, id int64, name string, req request) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	switch r := req.(type) {
	case *joinRequest:
		defer cancel()
		k.join(ctx, id, r)
		return
	case *resumeRequest:
		defer cancel()
		k.resume(ctx, id, r)
		return
	}
	if name == "ping" {
		cancel()
		k.reply(id, "pong", nil)
		return
	}
	if !k.joined {
		cancel()
		k.fail(id, errNotJoined)
		return
	}
	switch name {
	case "relays":
		cancel()
		k.relays(id)
	case "leave":
		defer cancel()
		k.leave(ctx, id)
	case "get":
		defer cancel()
		k.get(ctx, id, k.seat())
	case "negotiate", "chat", "history":
		select {
		case k.beside <- struct{}{}:
		default:
			cancel()
			k.fail(id, errBusy)
			return
		}
		k.wg.Go(func() {
			defer cancel()
			defer func() { <-k.beside }()
			k.act(ctx, id, name, req)
		})
	default:
		defer cancel()
		k.act(ctx, id, name, req)
	}
}

// act sends a command of the participant and passes the reply on.
func (k *socket) act(ctx context.Context, id int64, name string, req request) {
	at := k.seat()
	cmd := Command{Name: "room." + name, Params: []string{at.room, at.participant}, Body: req}
	if c, ok := req.(*chatRequest); ok {
		cmd.Key = c.Key
	}
	data, err := k.s.node.Do(ctx, cmd)
	if err != nil {
		k.fail(id, err)
		return
	}
	typ := "ok"
	if name == "negotiate" {
		typ = "negotiated"
	}
	k.reply(id, typ, data)
}

// joinBody is the contract's Join.
type joinBody struct {
	Name       string    `json:"name"`
	Kind       string    `json:"kind"`
	PIN        string    `json:"pin,omitempty"`
	Token      string    `json:"token,omitempty"`
	Source     string    `json:"source,omitempty"`
	Transport  string    `json:"transport"`
	Offer      string    `json:"offer,omitempty"`
	Muted      bool      `json:"muted,omitempty"`
	Signalling string    `json:"signalling,omitempty"`
	Signalled  signalled `json:"signalled"`
}

// signalled is what a page's signalling comes over, as the contract has it.
type signalled struct {
	Over   string `json:"over"`
	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
	TLS    string `json:"tls,omitempty"`
	Suite  string `json:"suite,omitempty"`
}

func signalledBy(over string, r *http.Request) signalled {
	out := signalled{Over: over, Remote: r.RemoteAddr}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		out.Local = a.String()
	}
	if r.TLS != nil {
		out.TLS, out.Suite = tls.VersionName(r.TLS.Version), tls.CipherSuiteName(r.TLS.CipherSuite)
	}
	return out
}

func (k *socket) join(ctx context.Context, id int64, r *joinRequest) {
	if k.joined {
		k.fail(id, errIsJoined)
		return
	}
	if k.s.joins.Take(k.ip, time.Now()) > 0 {
		k.fail(id, errRate)
		return
	}
	at := session{r.Room, newID()}
	k.s.hub.enter(k, at) // before the command: no event may be missed between
	data, err := k.s.node.Do(ctx, Command{Name: "room.join", Params: []string{at.room, at.participant},
		Body: joinBody{Name: r.Name, Kind: "browser", PIN: r.PIN, Token: r.Token, Source: k.ip.String(),
			Transport: "webrtc", Offer: r.Offer, Muted: r.Muted, Signalling: k.s.name, Signalled: k.signalled}})
	if err != nil {
		k.s.metrics.joins.WithLabelValues("refused").Inc()
		k.unseat(at, err)
		k.fail(id, err)
		return
	}
	k.s.metrics.joins.WithLabelValues("joined").Inc()
	k.welcome(id, at, data)
}

// unseat takes the seat back that a join was tried with. When nobody answered
// the seat may have been given all the same: it is looked after.
func (k *socket) unseat(at session, err error) {
	k.s.hub.exit(k)
	k.sit(session{})
	if r := refusal(err); r.Code == "timeout" {
		k.s.orphans.add(at)
	}
}

func (k *socket) resume(ctx context.Context, id int64, r *resumeRequest) {
	if k.joined {
		k.fail(id, errIsJoined)
		return
	}
	at, ok := k.s.sessions.open(r.Session, time.Now())
	if !ok {
		k.fail(id, errSession)
		return
	}
	k.s.hub.enter(k, at)
	if !k.get(ctx, id, at) {
		k.s.hub.exit(k)
		k.sit(session{})
	}
}

// get reads the room as the participant and answers with it; false when that
// was refused or the participant is not in it any more.
func (k *socket) get(ctx context.Context, id int64, at session) bool {
	data, err := k.s.node.Do(ctx, Command{Name: "room.get", Params: []string{at.room, at.participant}, Body: struct{}{}})
	if err != nil {
		if r := refusal(err); r.Code == "not_found" {
			err = errGone
		}
		k.fail(id, err)
		return false
	}
	var st seat
	if err := json.Unmarshal(data, &st); err != nil || st.Participant.ID != at.participant {
		k.fail(id, errGone)
		return false
	}
	k.welcome(id, at, data)
	return true
}

// welcome answers with the room and a session token; events follow.
func (k *socket) welcome(id int64, at session, data json.RawMessage) {
	var whole map[string]json.RawMessage
	err := json.Unmarshal(data, &whole)
	if err == nil {
		whole["session"], err = json.Marshal(k.s.sessions.issue(at, time.Now()))
	}
	if r := k.s.relaysFor(at); err == nil && r != nil {
		whole["relays"], err = json.Marshal(r)
	}
	if err == nil {
		data, err = json.Marshal(whole)
	}
	if err != nil {
		k.s.log.Error("reply to join does not parse", zap.Error(err))
		k.fail(id, refusal(err))
		return
	}
	k.joined = true
	k.enqueue(message{ID: id, Type: "joined", Data: data}, true)
}

func (k *socket) leave(ctx context.Context, id int64) {
	at := k.seat()
	k.s.hub.exit(k) // its own "left" event is this reply
	k.sit(session{})
	k.joined = false
	if _, err := k.s.node.Do(ctx, Command{Name: "room.leave", Params: []string{at.room, at.participant}, Body: struct{}{}}); err != nil {
		k.fail(id, err)
		k.s.orphans.add(at)
	} else {
		k.reply(id, "ok", nil)
	}
	k.bye(farewell{"left", "you have left the room", false})
}
