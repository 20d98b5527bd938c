package sip

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/trust"
)

// setupTime bounds the way from INVITE to our answer.
const setupTime = 8 * time.Second

func (s *Server) onInvite(req *sip.Request, tx sip.ServerTransaction) {
	s.wg.Add(1)
	defer s.wg.Done()
	if s.ctx.Err() != nil {
		s.turnDown(req, tx, 503, "Service Unavailable")
		return
	}
	if to, _ := tags(req); to != "" {
		s.renegotiate(req, tx)
		return
	}
	if req.Contact() == nil {
		s.turnDown(req, tx, 400, "Missing Header")
		return
	}
	source := sourceKey(req.Source())
	busy := func() { s.turnDown(req, tx, 503, "Busy", sip.NewHeader("Retry-After", "2")) }
	if !s.invites.take(source, 1) || s.dialogs.len() >= maxDialogs {
		busy()
		return
	}
	key := inviteKey(req)
	branch := ""
	if via := req.Via(); via != nil {
		branch, _ = via.Params.Get("branch")
	}
	if ok, again := s.setups.begin(key, branch); again {
		tx.Terminate() // it is being answered
		return
	} else if !ok {
		s.turnDown(req, tx, 482, "Loop Detected")
		return
	}
	defer s.setups.end(key)
	s.forgetUnanswered(req)
	if !s.open.take(source) { // until the ACK: whoever sends this may not be there
		busy()
		return
	}
	defer s.open.free(source)
	if s.ringing.Add(1) > maxRinging {
		s.ringing.Add(-1)
		busy()
		return
	}
	d, res := s.setUp(req, tx)
	s.ringing.Add(-1)
	if d == nil {
		return
	}
	s.awaitACK(d, d.acked, tx, res)
	if d.Device != "" && d.confirmed() {
		s.cfg.Callers.Entered(d.Room, d.ID)
	}
}

// setUp lets a caller in and answers the INVITE. Without a dialog it has been
// turned down.
func (s *Server) setUp(req *sip.Request, tx sip.ServerTransaction) (*dialog, *sip.Response) {
	offer, err := offerIn(req)
	if err != nil {
		s.turnDown(req, tx, 415, "Unsupported Media Type", sip.NewHeader("Accept", accepted), sip.NewHeader("Accept-Encoding", "identity"))
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, setupTime)
	defer cancel()
	if !tx.OnCancel(func(*sip.Request) { cancel() }) {
		return nil, nil
	}
	var peer *trust.Chain
	if x := s.guestOf(req.Transport(), req.Source()); x != nil {
		peer = x.chain
		if err := s.cfg.Peers.Allowed(peer); err != nil { // it may have expired since the handshake
			s.log.Info("call refused", zap.String("from", req.Source()), zap.String("reason", reasonOf(err)), zap.Error(err))
			s.turnDown(req, tx, 403, "Forbidden")
			return nil, nil
		}
	}
	ch := s.channels.at(req.Source())
	var called Called
	var verified bool
	room := roomOf(req)
	if ch != nil {
		var ok bool
		if called, ok = s.answerTo(ctx, req, tx, ch); !ok {
			return nil, nil
		}
		room = called.Room
		req = s.ring(req, tx, ch.contact(called.Device))
	} else {
		var ok bool
		if verified, ok = s.authenticate(ctx, req, tx, room); !ok {
			return nil, nil
		}
	}
	call := Call{ID: NewID("sip"), Name: callerName(req), Room: room, Offer: offer, Source: sourceIP(req.Source()).String(), Verified: verified,
		// A datagram can come with anybody's address. A digest has the nonce that only
		// the source was sent.
		Unproved:  strings.EqualFold(req.Transport(), "UDP") && !verified,
		Signalled: s.conns.signalled(req.Transport(), req.Source())}
	switch {
	case ch != nil:
		call.ID, call.JamiID, call.Device, call.Source = NewID("jami"), ch.peer.Account.String(), ch.peer.DeviceLong, ch.source()
		call.Name = jamiName(call.Name, call.JamiID)
		call.Signalled = ch.signalled()
	case peer != nil:
		call.JamiID = peer.JamiID.String()
	}
	s.setups.add(call.ID)
	defer s.setups.remove(call.ID)
	sdp, err := s.cfg.Rooms.Enter(ctx, call)
	d := s.newDialog(req, call)
	d.LocalSDP = sdp
	if peer != nil {
		d.Peer = string(peer.PEM())
	}
	if ch != nil {
		d.Device, d.Account, d.Host, d.Routes = call.Device, called.Device, call.Source, nil
	}
	switch {
	case cancelled(ctx):
		// The transaction has answered 487. The room may have let the caller in all
		// the same, or be about to.
		s.setups.remove(call.ID)
		s.leave(d, "cancelled")
		return nil, nil
	case err != nil || ctx.Err() != nil:
		if err == nil {
			err = ctx.Err()
		}
		s.log.Info("call refused", zap.String("room", room), zap.String("from", req.Source()), zap.Error(err))
		s.refuseError(req, tx, err)
		if c := s.cfg.Code(err); ctx.Err() != nil || c == "timeout" || c == "unavailable" {
			s.setups.remove(call.ID)
			s.leave(d, "lost") // nobody knows whether the room let the caller in
		}
		return nil, nil
	}
	res := s.response(req, 200, "OK", []byte(sdp), sip.NewHeader("Content-Type", "application/sdp"),
		sip.NewHeader("Contact", s.contactOf(d)), s.allowed(req.Source()))
	d.LocalTag, _ = res.To().Params.Get("tag")
	d.Local = res.To().Value()
	if err := s.dialogs.add(d); err != nil {
		s.log.Error("call refused", zap.Error(err))
		s.leave(d, "error")
		s.refuse(req, tx, 500, "Server Internal Error")
		return nil, nil
	}
	if peer != nil {
		if err := s.seat(d, peer); err != nil { // barred while the room was asked
			s.log.Info("call refused", zap.String("from", req.Source()), zap.String("reason", reasonOf(err)), zap.Error(err))
			s.end(d, reasonOf(err))
			s.refuse(req, tx, 403, "Forbidden")
			return nil, nil
		}
	}
	if cancelled(ctx) || !s.respond(tx, res) { // CANCEL came a moment ago
		s.end(d, "cancelled")
		return nil, nil
	}
	s.log.Info("call", zap.String("room", room), zap.String("participant", d.ID), zap.String("from", req.Source()), zap.String("transport", req.Transport()))
	return d, res
}

// answerTo finds what a Jami device calls. The account is the channel's; a user of To with a
// slash asks to join a call of a conversation (connect-and-calls §3.1), of which this node
// has none. It has answered when ok is false.
func (s *Server) answerTo(ctx context.Context, req *sip.Request, tx sip.ServerTransaction, ch *channelConn) (Called, bool) {
	if strings.Contains(req.To().Address.User, "/") {
		s.turnDown(req, tx, 404, "No Such Conversation")
		return Called{}, false
	}
	c, err := s.cfg.Callers.Called(ctx, ch.account)
	switch {
	case cancelled(ctx):
		return Called{}, false
	case err != nil:
		s.log.Info("call refused", zap.Stringer("account", ch.account), zap.Stringer("jami_id", ch.peer.Account), zap.Error(err))
		s.refuseError(req, tx, err)
		return Called{}, false
	}
	return c, true
}

// jamiName is the name of a caller who gives none but its account's id.
func jamiName(name, id string) string {
	if name == id {
		return "Jami " + id[:8]
	}
	return name
}

// cancelled tells a CANCEL from a timeout.
func cancelled(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// awaitACK repeats the 2xx until the ACK comes (RFC 3261 §13.3.1.4) and hangs
// up when it doesn't. Repeats are sent on unreliable transports only: on the
// others nothing gets lost, and the transaction is over.
func (s *Server) awaitACK(d *dialog, acked <-chan struct{}, tx sip.ServerTransaction, res *sip.Response) {
	limit := time.NewTimer(64 * sip.T1)
	defer limit.Stop()
	wait := sip.T1
	again := time.NewTimer(wait)
	defer again.Stop()
	for {
		select {
		case <-acked:
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
func (s *Server) authenticate(ctx context.Context, req *sip.Request, tx sip.ServerTransaction, room string) (verified, ok bool) {
	began := time.Now()
	face, err := s.cfg.Rooms.Face(ctx, room)
	answer := s.turnDown
	if time.Since(began) > sip.Timer_1xx/2 {
		answer = s.refuse // a 100 may be on its way
	}
	switch {
	case cancelled(ctx):
		return false, false
	case err != nil:
		s.refuseError(req, tx, err)
		return false, false
	case !face.Exists:
		answer(req, tx, 404, "No Such Room")
		return false, false
	case !face.Auth:
		return false, true
	}
	source := sourceKey(req.Source())
	all, ok := answers(req)
	if !ok {
		answer(req, tx, 400, "Too Many Authorizations")
		return false, false
	}
	best := verdictNone
	fresh := all[:0]
	for _, cred := range all {
		if s.auth.fresh(cred.Nonce, boundTo(req)) {
			fresh = append(fresh, cred)
		} else {
			best = verdictStale
		}
	}
	if n := float64(len(fresh)); n > 0 {
		// Paid before it is looked at: however many come at once, each is a try.
		if !s.wrong.take(source, n) {
			answer(req, tx, 503, "Too Many Tries", sip.NewHeader("Retry-After", "10"))
			return false, false
		}
		md5, sha, err := s.cfg.Rooms.Secrets(ctx, room, Realm)
		if err != nil {
			s.wrong.give(source, n)
			if !cancelled(ctx) {
				s.refuseError(req, tx, err)
			}
			return false, false
		}
		for _, cred := range fresh {
			best = max(best, s.auth.check(cred, req.Method.String(), boundTo(req), room, md5, sha))
		}
		if best == verdictRight {
			s.wrong.give(source, n)
			return true, true
		}
		s.log.Info("wrong PIN", zap.String("room", room), zap.String("from", req.Source()))
		answer = s.refuse // an answer that got lost is not another try
	}
	answer(req, tx, 401, "Unauthorized", s.challenge(req, best == verdictStale)...)
	return false, false
}

func (s *Server) newDialog(req *sip.Request, c Call) *dialog {
	_, fromTag := tags(req)
	d := &dialog{acked: make(chan struct{}), lateOffer: c.Offer == ""}
	d.record = record{ID: c.ID, Room: c.Room, CallID: callID(req), RemoteTag: fromTag, Remote: req.From().Value(),
		Target: req.Contact().Address.String(), LocalSeq: 1, RemoteSeq: req.CSeq().SeqNo,
		Transport: req.Transport(), Source: req.Source(), RemoteSDP: c.Offer, Unproved: c.Unproved,
		Secure: strings.EqualFold(req.Recipient.Scheme, "sips")}
	for _, rr := range req.GetHeaders("Record-Route") {
		d.Routes = append(d.Routes, rr.Value())
	}
	return d
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

// NewID makes the id of a participant of a kind.
func NewID(kind string) string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return kind + "-" + hex.EncodeToString(b[:])
}
