package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
)

// routeWHIP serves WHIP (RFC 9725) and WHEP: one POST with an offer is a
// participant who speaks, or one who only listens. The session's URL carries a
// session token: nothing is kept here, and any process of the node can end it.
func (s *Server) routeWHIP(mux *http.ServeMux) {
	for _, kind := range []string{"whip", "whep"} {
		mux.HandleFunc("POST /"+kind+"/{room}", func(w http.ResponseWriter, r *http.Request) { s.whipJoin(w, r, kind) })
		mux.HandleFunc("PATCH /"+kind+"/{room}/{session}", s.whipPatch)
		mux.HandleFunc("DELETE /"+kind+"/{room}/{session}", s.whipLeave)
		mux.HandleFunc("OPTIONS /"+kind+"/{room}", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Accept-Post", "application/sdp") // RFC 9725 §4.2
			w.Header().Set("Allow", "POST, OPTIONS")
			w.WriteHeader(http.StatusNoContent)
		})
	}
}

func (s *Server) whipJoin(w http.ResponseWriter, r *http.Request, kind string) {
	ip := limits.ClientIP(r)
	if s.joins.Take(ip, time.Now()) > 0 {
		fail(w, errRate)
		return
	}
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != "application/sdp" {
		w.Header().Set("Accept-Post", "application/sdp")
		refuse(w, http.StatusUnsupportedMediaType, badRequest("send the offer as application/sdp"))
		return
	}
	offer, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSDP+1))
	if err != nil {
		failBody(w, err)
		return
	}
	req := joinRequest{Room: r.PathValue("room"), Name: r.URL.Query().Get("name"), Offer: string(offer)}
	if cleanName(req.Name) == "" {
		req.Name = strings.ToUpper(kind)
	}
	bearer := bearerOf(r)
	if bearer != "" && strings.Trim(bearer, "0123456789") == "" {
		req.PIN = bearer
	} else {
		req.Token = bearer
	}
	if ref := req.check(); ref != nil {
		fail(w, ref)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandLimit)
	defer cancel()
	at := session{req.Room, newID()}
	data, err := s.node.Do(ctx, Command{Name: "room.join", Params: []string{at.room, at.participant},
		Body: joinBody{Name: req.Name, Kind: "browser", PIN: req.PIN, Token: req.Token, Source: ip.String(),
			Transport: "webrtc", Offer: req.Offer, Muted: kind == "whep", Signalling: s.name, Signalled: signalledBy("http", r)}})
	var st seat
	if err == nil {
		err = json.Unmarshal(data, &st)
	}
	if err != nil {
		s.metrics.joins.WithLabelValues("refused").Inc()
		if c := refusal(err).Code; c == "pin_required" || c == "pin_wrong" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="parley"`)
		}
		if refusal(err).Code == "timeout" {
			s.orphans.add(at)
		}
		fail(w, err)
		return
	}
	s.metrics.joins.WithLabelValues("joined").Inc()
	if kind == "whep" {
		s.onlyListen(ctx, at)
	}
	s.orphans.add(at) // given up when no audio comes of it
	token := s.sessions.issue(at, time.Now())
	h := w.Header()
	h.Set("Content-Type", "application/sdp")
	h.Set("Location", "/"+kind+"/"+at.room+"/"+token)
	h.Set("ETag", etagOf(token))
	h.Set("Accept-Patch", "application/trickle-ice-sdpfrag")
	h.Set("Cache-Control", "no-store")
	s.linkRelays(h, at)
	w.WriteHeader(http.StatusCreated)
	io.WriteString(w, st.SDP)
}

// onlyListen gives the role that fits somebody who cannot speak. The seat works
// without it.
func (s *Server) onlyListen(ctx context.Context, at session) {
	_, err := s.node.Do(ctx, Command{Name: "room.role", Params: []string{at.room, operator},
		Body: roleRequest{Participant: at.participant, Role: "listener"}})
	if err != nil {
		s.log.Warn("a WHEP session keeps its role", zap.String("room", at.room), zap.Error(err))
	}
}

// etagOf names the ICE session (RFC 9725 §4.3.1), which never changes: ICE is
// not restarted here.
func etagOf(token string) string {
	sum := sha256.Sum256([]byte("etag " + token))
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}

// whipSession returns the session of the path, or answers with 404.
func (s *Server) whipSession(w http.ResponseWriter, r *http.Request) (session, bool) {
	at, ok := s.sessions.open(r.PathValue("session"), time.Now())
	if !ok || at.room != r.PathValue("room") {
		refuse(w, http.StatusNotFound, errSession)
		return session{}, false
	}
	return at, true
}

// whipPatch takes trickled candidates and has no use for them: the node is
// ICE-lite and learns where the far end is from its checks. A restart of ICE is
// refused as RFC 9725 §4.3.1 says.
func (s *Server) whipPatch(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.whipSession(w, r); !ok {
		return
	}
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != "application/trickle-ice-sdpfrag" {
		w.Header().Set("Accept-Patch", "application/trickle-ice-sdpfrag")
		refuse(w, http.StatusUnsupportedMediaType, badRequest("send candidates as application/trickle-ice-sdpfrag"))
		return
	}
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxSDP)); err != nil {
		failBody(w, err)
		return
	}
	switch r.Header.Get("If-Match") {
	case "":
		refuse(w, http.StatusPreconditionRequired, badRequest("send If-Match with the ETag of the session"))
	case "*":
		refuse(w, http.StatusUnprocessableEntity, badRequest("ICE restarts are not taken here; end the session and make a new one"))
	case etagOf(r.PathValue("session")):
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusPreconditionFailed, badRequest("this is not the ETag of the session"))
	}
}

func (s *Server) whipLeave(w http.ResponseWriter, r *http.Request) {
	at, ok := s.whipSession(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), commandLimit)
	defer cancel()
	_, err := s.node.Do(ctx, Command{Name: "room.leave", Params: []string{at.room, at.participant}, Body: struct{}{}})
	if c := refusal(err).Code; err != nil && c != "gone" && c != "not_found" {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// bearerOf returns the token of the Authorization header (RFC 6750 §2.1), or "".
func bearerOf(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// failBody answers a body that could not be read.
func failBody(w http.ResponseWriter, err error) {
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		refuse(w, http.StatusRequestEntityTooLarge, badRequest("the body is too large"))
		return
	}
	fail(w, badRequest("the body could not be read"))
}
