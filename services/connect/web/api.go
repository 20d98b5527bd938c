package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/parley-jami/parley/internal/limits"
)

// maxAPI bounds a request's body in bytes.
const maxAPI = 16 << 10

// operator is the caller of the operator's commands, as the contract has it.
const operator = "operator"

// routeAPI serves what strangers may ask about a room, and the operator's API.
func (s *Server) routeAPI(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/rooms/{room}/face", s.face)

	op := func(pattern string, fn http.HandlerFunc) { mux.HandleFunc(pattern, s.operatorOnly(fn)) }
	op("GET /api/v1/status", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, s.live.snapshot(r.Context())) })
	op("GET /api/v1/live", s.live.serve)
	op("PUT /api/v1/account", s.command("account.set", http.StatusOK, nil))
	op("GET /api/v1/rooms", s.command("room.list", http.StatusOK, func(r *http.Request, body map[string]any) {
		if after := r.URL.Query().Get("after"); after != "" {
			body["after"] = after
		}
	}))
	op("POST /api/v1/rooms", s.command("room.create", http.StatusCreated, nil))
	op("DELETE /api/v1/rooms/{room}", s.command("room.remove", http.StatusNoContent, func(r *http.Request, body map[string]any) { body["room"] = r.PathValue("room") }))
	op("GET /api/v1/rooms/{room}/connections", s.command("room.connections", http.StatusOK, func(r *http.Request, body map[string]any) {
		q := r.URL.Query()
		body["participant"], body["after"] = q.Get("participant"), q.Get("after")
	}))
	for _, verb := range []string{"kick", "mute", "lock", "role", "hand"} {
		op("POST /api/v1/rooms/{room}/"+verb, s.command("room."+verb, http.StatusOK, nil))
	}
	op("POST /api/v1/rooms/{room}/call", s.command("room.call", http.StatusAccepted, nil))
	op("POST /api/v1/rooms/{room}/hangup", s.command("room.hangup", http.StatusOK, nil))
	op("GET /api/v1/bots", s.command("bot.list", http.StatusOK, nil))
	op("DELETE /api/v1/bots/{bot}", s.command("bot.revoke", http.StatusOK, func(r *http.Request, body map[string]any) { body["name"] = r.PathValue("bot") }))
	s.routeAccounts(op)
	s.routeOrganisation(op)
}

// face answers what a page must know before joining.
func (s *Server) face(w http.ResponseWriter, r *http.Request) {
	if s.asks.Take(limits.ClientIP(r), time.Now()) > 0 {
		fail(w, errRate)
		return
	}
	room := r.PathValue("room")
	if !validRoom(room) {
		fail(w, badRequest("a room's name has 1 to 64 of a-z, 0-9 and -"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandLimit)
	defer cancel()
	data, err := s.node.Do(ctx, Command{Name: "room.face", Body: map[string]string{"room": room}})
	var face map[string]any
	if err == nil {
		err = json.Unmarshal(data, &face)
	}
	if err != nil {
		fail(w, err)
		return
	}
	if s.cfg.TLS != nil { // a page opened by http tells where the microphone may be used
		if _, port, err := net.SplitHostPort(s.cfg.TLS.Addr().String()); err == nil {
			face["https_port"] = port
		}
	}
	answer(w, http.StatusOK, face)
}

// command passes a JSON body on as the operator's command.
func (s *Server) command(name string, status int, fill func(*http.Request, map[string]any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, key, err := orderOf(w, r)
		if err != nil {
			fail(w, err)
			return
		}
		if fill != nil {
			fill(r, body)
		}
		cmd := Command{Name: name, Body: body, Key: key}
		if room := r.PathValue("room"); room != "" {
			if !validRoom(room) {
				fail(w, badRequest("a room's name has 1 to 64 of a-z, 0-9 and -"))
				return
			}
			if name != "room.remove" {
				cmd.Params = []string{room, operator}
			}
		}
		s.pass(w, r, status, cmd, commandLimit)
	}
}

// orderOf reads the JSON object of a request that changes something, and its idempotency key.
func orderOf(w http.ResponseWriter, r *http.Request) (body map[string]any, key string, err error) {
	body = map[string]any{}
	if r.Method != http.MethodGet && r.Method != http.MethodDelete {
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAPI)).Decode(&body); err != nil || body == nil {
			return nil, "", badRequest("the body must be a JSON object of at most 16 KiB")
		}
	}
	if key = r.Header.Get("Idempotency-Key"); !printable(key) {
		return nil, "", badRequest("Idempotency-Key has at most 128 printable characters")
	}
	return body, key, nil
}

// pass sends a command and answers with its reply, within that time.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, status int, cmd Command, within time.Duration) {
	ctx, cancel := context.WithTimeout(r.Context(), within)
	defer cancel()
	data, err := s.node.Do(ctx, cmd)
	if err != nil {
		fail(w, err)
		return
	}
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	answer(w, status, data)
}

// operatorOnly lets in who has the operator's token. Wrong ones are slowed by
// address; the right one is never refused because of others' tries, unless they come
// from the same address.
func (s *Server) operatorOnly(next http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte(s.cfg.OperatorToken))
	return func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.OperatorToken == "" {
			fail(w, errNoOperator)
			return
		}
		ip, now := limits.ClientIP(r), time.Now()
		if s.wrongTokens.Wait(ip, now) > 0 {
			fail(w, errRate)
			return
		}
		got := sha256.Sum256([]byte(bearerOf(r)))
		if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
			s.noteWrong(ip, now)
			w.Header().Set("WWW-Authenticate", `Bearer realm="parley operator"`)
			refuse(w, http.StatusUnauthorized, errToken)
			return
		}
		next(w, r)
	}
}

func (s *Server) noteWrong(ip netip.Addr, now time.Time) { s.wrongTokens.Take(ip, now) }
