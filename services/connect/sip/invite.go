package sip

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"
)

// setupTime bounds the way from INVITE to our answer.
const setupTime = 8 * time.Second

func (s *Server) onInvite(req *sip.Request, tx sip.ServerTransaction) {
	s.wg.Add(1)
	defer s.wg.Done()
	if s.ctx.Err() != nil {
		s.refuse(req, tx, 503, "Service Unavailable")
		return
	}
	if to, _ := tags(req); to != "" {
		s.renegotiate(req, tx)
		return
	}
	_, fromTag := tags(req)
	if callID(req) == "" || req.CSeq() == nil || req.From() == nil || req.To() == nil || req.Contact() == nil || fromTag == "" {
		s.refuse(req, tx, 400, "Missing Header")
		return
	}
	source := sourceIP(req.Source())
	if !s.invites.take(source, 1) || s.ringing.Load() >= maxRinging || s.dialogs.len() >= maxDialogs {
		s.refuse(req, tx, 503, "Busy", sip.NewHeader("Retry-After", "2"))
		return
	}
	s.ringing.Add(1)
	defer s.ringing.Add(-1)
	if !bodyIsSDP(req) {
		s.refuse(req, tx, 415, "Unsupported Media Type", sip.NewHeader("Accept", "application/sdp"))
		return
	}
	if h := req.GetHeader("Require"); h != nil && strings.TrimSpace(h.Value()) != "" {
		s.refuse(req, tx, 420, "Bad Extension", sip.NewHeader("Unsupported", h.Value()))
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, setupTime)
	defer cancel()
	if !tx.OnCancel(func(*sip.Request) { cancel() }) {
		return
	}
	room := roomOf(req)
	verified, ok := s.authenticate(ctx, req, tx, room, source)
	if !ok {
		return
	}
	call := Call{ID: newID(), Name: callerName(req), Room: room, Offer: string(req.Body()), Source: source.String(), Verified: verified}
	sdp, err := s.cfg.Rooms.Enter(ctx, call)
	if err != nil {
		s.log.Info("call refused", zap.String("room", room), zap.String("from", req.Source()), zap.Error(err))
		s.refuseError(req, tx, err)
		return
	}
	d := s.newDialog(req, call)
	res := s.response(req, 200, "OK", []byte(sdp), sip.NewHeader("Content-Type", "application/sdp"),
		sip.NewHeader("Contact", s.contact(room, req.Transport(), req.Source())), sip.NewHeader("Allow", allow))
	d.LocalTag, _ = res.To().Params.Get("tag")
	d.Local = res.To().Value()
	if err := s.dialogs.add(d); err != nil {
		s.log.Error("call refused", zap.Error(err))
		s.leave(d, "error")
		s.refuse(req, tx, 500, "Server Internal Error")
		return
	}
	if ctx.Err() != nil || !s.respond(tx, res) { // CANCEL came while we asked: 487 is on its way
		s.end(d, "cancelled")
		return
	}
	s.log.Info("call", zap.String("room", room), zap.String("participant", d.ID), zap.String("from", req.Source()), zap.String("transport", req.Transport()))
	s.awaitACK(d, tx, res)
}

// awaitACK repeats the 2xx until the ACK comes (RFC 3261 §13.3.1.4) and hangs
// up when it doesn't. Repeats are sent on unreliable transports only: on the
// others nothing gets lost, and the transaction is over.
func (s *Server) awaitACK(d *dialog, tx sip.ServerTransaction, res *sip.Response) {
	limit := time.NewTimer(64 * sip.T1)
	defer limit.Stop()
	wait := sip.T1
	again := time.NewTimer(wait)
	defer again.Stop()
	for {
		select {
		case <-d.acked:
			return
		case <-s.ctx.Done():
			return
		case <-again.C:
			if strings.EqualFold(res.Transport(), "UDP") {
				s.respond(tx, res)
			}
			wait = min(2*wait, sip.T2)
			again.Reset(wait)
		case <-limit.C:
			ctx, cancel := context.WithTimeout(s.ctx, 32*time.Second)
			defer cancel()
			s.bye(ctx, d, "no ACK")
			return
		}
	}
}

// authenticate asks for a digest where the room wants it. It has answered when
// ok is false.
func (s *Server) authenticate(ctx context.Context, req *sip.Request, tx sip.ServerTransaction, room string, source netip.Addr) (verified, ok bool) {
	face, err := s.cfg.Rooms.Face(ctx, room)
	switch {
	case err != nil:
		s.refuseError(req, tx, err)
		return false, false
	case !face.Exists:
		s.refuse(req, tx, 404, "No Such Room")
		return false, false
	case !face.Auth:
		return false, true
	}
	if !s.wrong.take(source, 0) {
		s.refuse(req, tx, 503, "Too Many Tries", sip.NewHeader("Retry-After", "10"))
		return false, false
	}
	md5, sha, err := s.cfg.Rooms.Secrets(ctx, room, Realm)
	if err != nil {
		s.refuseError(req, tx, err)
		return false, false
	}
	best := verdictNone
	for _, h := range req.GetHeaders("Authorization") {
		best = max(best, s.auth.check(h.Value(), req.Method.String(), callID(req), room, md5, sha))
	}
	switch best {
	case verdictRight:
		return true, true
	case verdictWrong:
		s.wrong.take(source, 1)
		s.log.Info("wrong PIN", zap.String("room", room), zap.String("from", req.Source()))
	}
	s.refuse(req, tx, 401, "Unauthorized", s.challenge(req, best == verdictStale)...)
	return false, false
}

func (s *Server) newDialog(req *sip.Request, c Call) *dialog {
	_, fromTag := tags(req)
	d := &dialog{acked: make(chan struct{}), lateOffer: c.Offer == ""}
	d.record = record{ID: c.ID, Room: c.Room, CallID: callID(req), RemoteTag: fromTag, Remote: req.From().Value(),
		Target: req.Contact().Address.String(), LocalSeq: 1, RemoteSeq: req.CSeq().SeqNo,
		Transport: req.Transport(), Source: req.Source(), RemoteSDP: c.Offer}
	for _, rr := range req.GetHeaders("Record-Route") {
		d.Routes = append(d.Routes, rr.Value())
	}
	return d
}

func bodyIsSDP(req *sip.Request) bool {
	if len(req.Body()) == 0 {
		return true
	}
	ct := req.ContentType()
	if ct == nil || len(req.Body()) > maxBody {
		return false
	}
	typ, _, _ := strings.Cut(ct.Value(), ";")
	return strings.EqualFold(strings.TrimSpace(typ), "application/sdp")
}

// callerName returns the display name, or the user part of From, without
// control characters, at most 64 characters.
func callerName(req *sip.Request) string {
	f := req.From()
	// A quoted-string keeps its backslashes in the parser's hands (RFC 3261 §25.1).
	name := strings.ReplaceAll(strings.Trim(strings.TrimSpace(f.DisplayName), `"`), `\`, "")
	if name == "" {
		name = f.Address.User
	}
	var b strings.Builder
	n := 0
	for _, r := range name {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			continue
		}
		if n++; n > 64 {
			break
		}
		b.WriteRune(r)
	}
	if name = strings.TrimSpace(b.String()); name == "" {
		return "SIP caller"
	}
	return name
}

func newID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return "sip-" + hex.EncodeToString(b[:])
}
