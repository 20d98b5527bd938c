package sip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"
)

// lookup finds the dialog of an in-dialog request and checks its CSeq (RFC 3261
// §12.2.2). It has answered when it returns nil.
func (s *Server) lookup(req *sip.Request, tx sip.ServerTransaction) *dialog {
	to, from := tags(req)
	d := s.dialogs.find(callID(req), to, from)
	if d == nil {
		s.turnDown(req, tx, 481, "Call/Transaction Does Not Exist")
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	device, again := "", false
	seq := req.CSeq().SeqNo
	if c := s.channels.at(req.Source()); c != nil {
		device, again = c.peer.DeviceLong, c.pending.again(req) || d.overtakenLocked(seq)
	}
	if device != d.Device { // its call is another's
		s.refuse(req, tx, 403, "Forbidden")
		return nil
	}
	if seq <= d.RemoteSeq && !again {
		s.refuse(req, tx, 500, "CSeq Out of Order", sip.NewHeader("Retry-After", "1"))
		return nil
	}
	s.proveLocked(d)
	d.RemoteSeq = max(d.RemoteSeq, seq)
	s.dialogs.move(d, req.Source()) // the phone may have come back on a new connection
	d.Transport = req.Transport()
	if c := req.Contact(); c != nil {
		d.Target = c.Address.String()
	}
	if err := s.dialogs.save(d); err != nil {
		s.log.Error("dialog not saved", zap.Error(err))
	}
	return d
}

// renegotiate answers a re-INVITE.
func (s *Server) renegotiate(req *sip.Request, tx sip.ServerTransaction) {
	d := s.lookup(req, tx)
	if d == nil {
		return
	}
	d.confirm() // who sends another request has our 2xx
	if len(req.Body()) == 0 {
		// An offerless re-INVITE asks for our offer: ours is the session as it
		// stands, and the ACK's answer is a repetition of theirs.
		s.refuse(req, tx, 488, "Not Acceptable Here", sip.NewHeader("Warning", `399 parley "send an offer"`))
		return
	}
	if res, ok := s.answerOffer(req, tx, d); ok {
		// The transaction layer drops a repeated re-INVITE (RFC 6026 §7.1), so our 2xx is
		// repeated as the first one is.
		acked := d.expectACK(req.CSeq().SeqNo)
		if s.respond(tx, res) {
			s.awaitACK(d, acked, tx, res)
		}
	}
}

func (s *Server) onUpdate(req *sip.Request, tx sip.ServerTransaction) {
	d := s.lookup(req, tx)
	if d == nil {
		return
	}
	if len(req.Body()) == 0 {
		s.refuse(req, tx, 200, "OK", sip.NewHeader("Contact", s.contactOf(d)))
		return
	}
	if res, ok := s.answerOffer(req, tx, d); ok {
		s.respond(tx, res)
	}
}

// answerOffer negotiates the SDP of req. It has answered when ok is false.
func (s *Server) answerOffer(req *sip.Request, tx sip.ServerTransaction, d *dialog) (*sip.Response, bool) {
	offer, err := offerIn(req)
	if err != nil {
		s.refuse(req, tx, 415, "Unsupported Media Type", sip.NewHeader("Accept", accepted), sip.NewHeader("Accept-Encoding", "identity"))
		return nil, false
	}
	if status, reason := d.theirOffer(); status != 0 {
		var hs []sip.Header
		if status == 500 {
			hs = append(hs, sip.NewHeader("Retry-After", "1"))
		}
		s.refuse(req, tx, status, reason, hs...)
		return nil, false
	}
	defer d.offered()
	ctx, cancel := context.WithTimeout(s.ctx, setupTime)
	defer cancel()
	sdp, err := s.cfg.Rooms.Negotiate(ctx, d.change(offer, false))
	if err != nil {
		s.refuseError(req, tx, err)
		return nil, false
	}
	s.keepSDP(d, offer, sdp)
	return s.response(req, 200, "OK", []byte(sdp), sip.NewHeader("Content-Type", "application/sdp"),
		sip.NewHeader("Contact", s.contactOf(d)), s.allowed(req.Source())), true
}

// keepSDP notes what was agreed on; ours empty: as it was.
func (s *Server) keepSDP(d *dialog, theirs, ours string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.RemoteSDP, d.LocalSDP = theirs, cmp.Or(ours, d.LocalSDP)
	if err := s.dialogs.save(d); err != nil {
		s.log.Error("dialog not saved", zap.Error(err))
	}
}

func (s *Server) onAck(req *sip.Request, _ sip.ServerTransaction) {
	s.conns.heard(req.Source())
	if req.CSeq() == nil {
		return
	}
	to, from := tags(req)
	d := s.dialogs.find(callID(req), to, from)
	if d == nil {
		return // of a refused call, or of one that is over
	}
	d.mu.Lock()
	late := d.lateOffer
	d.lateOffer = false
	s.proveLocked(d)
	d.mu.Unlock()
	d.confirm()
	d.gotACK(req.CSeq().SeqNo)
	if !late {
		return
	}
	s.wg.Add(1)
	defer s.wg.Done()
	ctx, cancel := context.WithTimeout(s.ctx, setupTime)
	defer cancel()
	err := fmt.Errorf("the ACK brought no answer to our offer")
	answer, bad := offerIn(req)
	if bad == nil && answer != "" {
		_, err = s.cfg.Rooms.Negotiate(ctx, d.change(answer, true))
	}
	if err != nil {
		s.log.Info("call ended", zap.String("participant", d.ID), zap.Error(err))
		s.bye(ctx, d, "no audio in common")
		return
	}
	s.keepSDP(d, answer, "")
}

// proveLocked tells the room, as often as it takes, that the caller is where its
// INVITE said: only there did it learn our tag, which it has repeated now. The
// caller holds d.mu.
func (s *Server) proveLocked(d *dialog) {
	if !d.Unproved || d.proving || d.ended || s.ctx.Err() != nil {
		return
	}
	d.proving = true
	s.wg.Go(func() {
		for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
			ctx, cancel := context.WithTimeout(s.ctx, setupTime)
			err := s.cfg.Rooms.Confirm(ctx, d.Room, d.ID)
			cancel()
			d.mu.Lock()
			if err == nil {
				d.Unproved = false
				if err := s.dialogs.saveIfThere(d); err != nil {
					s.log.Error("dialog not saved", zap.Error(err))
				}
			}
			over := err == nil || d.ended
			d.mu.Unlock()
			if over {
				return
			}
			s.log.Warn("the room could not be told that a caller is there; it is tried again", zap.String("participant", d.ID), zap.Error(err))
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	})
}

func (s *Server) onBye(req *sip.Request, tx sip.ServerTransaction) {
	s.wg.Add(1)
	defer s.wg.Done()
	d := s.lookup(req, tx)
	if d == nil {
		return
	}
	s.dialogs.remove(d) // first: nobody says that it is over once it was answered
	s.refuse(req, tx, 200, "OK")
	s.end(d, "left")
	s.hangChannel(d.channel)
}

// onCancel gets a CANCEL that matches no transaction (RFC 3261 §9.2).
func (s *Server) onCancel(req *sip.Request, tx sip.ServerTransaction) {
	s.conns.heard(req.Source())
	s.turnDown(req, tx, 481, "Call/Transaction Does Not Exist")
}

func (s *Server) onOptions(req *sip.Request, tx sip.ServerTransaction) {
	hs := []sip.Header{s.allowed(req.Source()), sip.NewHeader("Accept", accepted)}
	if to, from := tags(req); to != "" {
		if s.dialogs.find(callID(req), to, from) == nil {
			s.turnDown(req, tx, 481, "Call/Transaction Does Not Exist")
			return
		}
	} else if room := roomOf(req); room != "" && s.channels.at(req.Source()) == nil {
		ctx, cancel := context.WithTimeout(s.ctx, setupTime)
		defer cancel()
		face, err := s.cfg.Rooms.Face(ctx, room)
		if err != nil {
			s.refuseError(req, tx, err)
			return
		}
		if !face.Exists {
			s.turnDown(req, tx, 404, "No Such Room", hs...)
			return
		}
	}
	s.turnDown(req, tx, 200, "OK", hs...)
}

// end takes the participant out of the room and forgets the dialog; only the
// first call does anything.
func (s *Server) end(d *dialog, reason string) bool {
	d.mu.Lock()
	over := d.ended
	d.ended = true
	x := d.guest
	d.mu.Unlock()
	if over {
		return false
	}
	d.confirm()
	d.gotACK(math.MaxUint32)
	s.dialogs.remove(d)
	s.guests.leave(x, nil, d)
	s.leave(d, reason)
	s.log.Info("call ended", zap.String("room", d.Room), zap.String("participant", d.ID), zap.String("reason", reason))
	return true
}

func (s *Server) leave(d *dialog, reason string) {
	ctx, cancel := context.WithTimeout(s.last, 5*time.Second)
	defer cancel()
	if err := s.cfg.Rooms.Leave(ctx, d.Room, d.ID, reason); err != nil && s.cfg.Code(err) != "not_found" && s.cfg.Code(err) != "gone" {
		s.log.Warn("leaving the room", zap.String("participant", d.ID), zap.Error(err))
	}
}

// bye hangs up from our side.
func (s *Server) bye(ctx context.Context, d *dialog, reason string) {
	if !s.end(d, reason) {
		return
	}
	defer s.hangChannel(d.channel)
	s.takeLeave(ctx, d)
	req, err := s.inDialog(ctx, d, sip.BYE)
	if err != nil {
		s.log.Warn("BYE not sent", zap.String("participant", d.ID), zap.Error(err))
		return
	}
	req.AppendHeader(sip.NewHeader("Reason", fmt.Sprintf(`SIP;cause=200;text="%s"`, reason)))
	res, err := s.client.Do(ctx, req)
	switch {
	case err != nil:
		s.log.Info("BYE not answered", zap.String("participant", d.ID), zap.Error(err))
	case res.StatusCode >= 300 && res.StatusCode != 481:
		s.log.Info("BYE refused", zap.String("participant", d.ID), zap.Int("status", res.StatusCode))
	}
}

// Renegotiate offers the call's audio again after media lost it, or when it moves to another
// worker: a phone's last SDP stands for its offer, and what the room answers to it is
// offered to the phone in a re-INVITE; a Jami peer gets an offer of the room's, with ICE of its
// own. The far end's answer closes it.
func (s *Server) Renegotiate(id string) {
	d := s.dialogs.byID(id)
	if d == nil || s.ctx.Err() != nil {
		return
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, 32*time.Second)
		defer cancel()
		if err := s.reinvite(ctx, d); err != nil {
			s.log.Warn("call could not be negotiated again", zap.String("participant", d.ID), zap.Error(err))
			s.bye(ctx, d, "audio lost")
		}
	})
}

// errPending is their 491: both sides offered at once.
var errPending = errors.New("re-INVITE: 491 Request Pending")

func (s *Server) reinvite(ctx context.Context, d *dialog) error {
	for {
		if err := d.ourOffer(ctx); err != nil {
			return err
		}
		err := s.offerAgain(ctx, d)
		d.offered()
		if !errors.Is(err, errPending) {
			return err
		}
		// Up to 2 s, for who did not make the Call-ID (RFC 3261 §14.1).
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(rand.Int64N(int64(2 * time.Second)))):
		}
	}
}

func (s *Server) offerAgain(ctx context.Context, d *dialog) error {
	d.mu.Lock()
	last, was := d.RemoteSDP, d.LocalSDP
	d.mu.Unlock()
	if d.Device != "" {
		last = ""
	}
	c := d.change(last, false)
	c.Was = was
	offer, err := s.cfg.Rooms.Negotiate(ctx, c)
	if err != nil {
		return err
	}
	req, err := s.inDialog(ctx, d, sip.INVITE)
	if err != nil {
		return err
	}
	req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	req.SetBody([]byte(offer))
	res, err := s.client.Do(ctx, req)
	switch {
	case err != nil:
		return err
	case res.StatusCode == 491:
		return errPending
	case res.StatusCode >= 300:
		return fmt.Errorf("re-INVITE: %d %s", res.StatusCode, res.Reason)
	}
	ack, err := s.inDialog(ctx, d, sip.ACK)
	if err != nil {
		return err
	}
	ack.CSeq().SeqNo = req.CSeq().SeqNo
	d.mu.Lock()
	d.ack = ack
	d.mu.Unlock()
	if err := s.client.WriteRequest(ack.Clone()); err != nil {
		return fmt.Errorf("ACK: %w", err)
	}
	answer, err := offerIn(res)
	switch {
	case err != nil:
		return fmt.Errorf("re-INVITE: %w", err)
	case answer == "":
		return errors.New("re-INVITE: the answer has no SDP")
	}
	if _, err := s.cfg.Rooms.Negotiate(ctx, d.change(answer, true)); err != nil {
		return err
	}
	s.keepSDP(d, answer, offer)
	return nil
}

// onStray gets the responses that no transaction waits for: a 2xx to our
// re-INVITE again, because the ACK got lost (RFC 3261 §13.2.2.4).
func (s *Server) onStray(res *sip.Response) {
	if !res.IsSuccess() || res.CSeq() == nil || res.CSeq().MethodName != sip.INVITE || res.From() == nil || res.To() == nil || res.CallID() == nil {
		return
	}
	local, _ := res.From().Params.Get("tag")
	remote, _ := res.To().Params.Get("tag")
	d := s.dialogs.find(res.CallID().Value(), local, remote)
	if d == nil {
		return
	}
	d.mu.Lock()
	ack := d.ack
	d.mu.Unlock()
	if ack == nil && d.Device != "" {
		s.wg.Go(func() { s.agreed(d, res) })
		return
	}
	if ack == nil || ack.CSeq().SeqNo != res.CSeq().SeqNo {
		return
	}
	if err := s.client.WriteRequest(ack.Clone()); err != nil {
		s.log.Debug("ACK not repeated", zap.Error(err))
	}
}

// agreed takes a 2xx to a re-INVITE of the last process.
func (s *Server) agreed(d *dialog, res *sip.Response) {
	ctx, cancel := context.WithTimeout(s.ctx, setupTime)
	defer cancel()
	ack, err := s.inDialog(ctx, d, sip.ACK)
	if err == nil {
		ack.CSeq().SeqNo = res.CSeq().SeqNo
		err = s.client.WriteRequest(ack)
	}
	var answer string
	if err == nil {
		answer, err = offerIn(res)
	}
	if err == nil && answer != "" {
		if _, err = s.cfg.Rooms.Negotiate(ctx, d.change(answer, true)); err == nil {
			s.keepSDP(d, answer, "")
		}
	}
	if err != nil {
		s.log.Info("an answer to an offer of before is of no use", zap.String("participant", d.ID), zap.Error(err))
	}
}

// inDialog builds a request inside the dialog (RFC 3261 §12.2.1.1, loose
// routing). Without a route it goes where the phone's last request came from, which
// reaches it behind a NAT too; when that connection is gone, to the phone's Contact.
func (s *Server) inDialog(ctx context.Context, d *dialog, method sip.RequestMethod) (*sip.Request, error) {
	d.mu.Lock()
	source := d.Source
	d.mu.Unlock()
	if err := s.channels.await(ctx, source); err != nil {
		return nil, err
	}
	hop, err := s.firstHop(ctx, d)
	if err != nil {
		return nil, err
	}
	contact := s.contactOf(d)
	d.mu.Lock()
	defer d.mu.Unlock()
	var target sip.Uri
	if err := sip.ParseUri(d.Target, &target); err != nil {
		return nil, fmt.Errorf("contact %q: %w", d.Target, err)
	}
	req := sip.NewRequest(method, target)
	req.SetTransport(d.Transport)
	req.SetDestination(d.Source)
	host, port := "", s.localPort(d.Transport)
	if d.Device != "" {
		ch := s.channels.at(d.Source)
		if ch == nil {
			return nil, errChannelGone
		}
		host, port = ch.local()
	} else {
		if hop != "" {
			req.SetDestination(hop)
		} else if at := s.redial(d, &target); at != "" {
			req.SetDestination(at)
		}
		s.doors.open(sourceIP(req.Destination()))
		host = s.localHost(d.Source)
	}
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: strings.ToUpper(d.Transport),
		Host: host, Port: port, Params: sip.NewParams()}
	via.Params.Add("branch", sip.GenerateBranch())
	via.Params.Add("rport", "")
	req.AppendHeader(via)
	maxFwd := sip.MaxForwardsHeader(70)
	req.AppendHeader(&maxFwd)
	req.AppendHeader(sip.NewHeader("From", d.Local))
	req.AppendHeader(sip.NewHeader("To", d.Remote))
	req.AppendHeader(sip.NewHeader("Call-ID", d.CallID))
	if method != sip.ACK {
		d.LocalSeq++
		if err := s.dialogs.saveIfThere(d); err != nil {
			return nil, err
		}
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: d.LocalSeq, MethodName: method})
	for _, r := range d.Routes {
		req.AppendHeader(sip.NewHeader("Route", r))
	}
	req.AppendHeader(sip.NewHeader("Contact", contact))
	if d.Device != "" {
		req.AppendHeader(sip.NewHeader("User-Agent", jamiAgent))
		req.AppendHeader(sip.NewHeader("Allow", allowJami))
	}
	req.SetBody(nil)
	if strings.EqualFold(d.Transport, "UDP") && s.cfg.UDP != nil {
		// From the port that the phone knows, also after a restart of the process.
		if a, ok := s.cfg.UDP.LocalAddr().(*net.UDPAddr); ok {
			req.Laddr = sip.Addr{IP: a.IP, Port: a.Port}
		}
	}
	return req, nil
}

var errChannelGone = errors.New("the channel of the call is closed")

// contactOf is our Contact in a dialog.
func (s *Server) contactOf(d *dialog) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ch := s.channels.at(d.Source); ch != nil {
		return ch.contact(d.Account)
	}
	return s.contact(d.Room, d.Transport, d.Source, d.Secure)
}

// redial returns where to reach a phone whose TCP or TLS connection is gone (RFC
// 3261 §12.2.1.1, §18.1.1): its Contact, if that is the host it called from. Others
// are not dialed: a caller could have the node knock at any door.
func (s *Server) redial(d *dialog, target *sip.Uri) string {
	if strings.EqualFold(d.Transport, "UDP") || !d.confirmed() {
		return ""
	}
	if c, err := s.ua.TransportLayer().GetConnection(d.Transport, d.Source); err == nil {
		if _, err := c.TryClose(); err != nil { // only gives the reference back
			s.log.Debug("sip connection", zap.Error(err))
		}
		return ""
	}
	port := target.Port
	if port == 0 {
		port = sip.DefaultPort(d.Transport)
	}
	at := net.JoinHostPort(strings.Trim(target.Host, "[]"), strconv.Itoa(port))
	if ip := sourceIP(at); !ip.IsValid() || ip != sourceIP(d.Source) {
		return ""
	}
	return at
}
