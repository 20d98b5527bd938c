package sip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"
)

const (
	// firstReply is how long a device may take to answer an INVITE with anything.
	firstReply = 10 * time.Second
	// cancelTime is how long the answers to CANCEL and to the INVITE that it ends may take.
	cancelTime = 5 * time.Second
)

// toDevice is the dialog of a call to a Jami device, as it is before the answer
// (connect-and-calls §3.1).
func (s *Server) toDevice(o *Outgoing, ch *channelConn) *dialog {
	at := ch.far()
	d := newOutgoing(o)
	d.record.Transport, d.Source, d.Secure = "TLS", ch.key, true
	d.Device, d.Account, d.Host = ch.peer.DeviceLong, o.Device, ch.source()
	d.Local = showName(o.Caller) + "<sip:" + o.Account.String() + "@ring.dht>;tag=" + d.LocalTag
	d.Remote = "<sips:" + o.JamiID + "@" + at + ";transport=tls>"
	d.Target = "sips:" + at + ";transport=tls"
	d.channel, d.Opened = ch, true
	return d
}

// toPhone is the dialog of a call to a phone, as it is before the answer.
func (s *Server) toPhone(o *Outgoing) *dialog {
	d := newOutgoing(o)
	d.record.Transport, d.Source = o.Phone.Transport, o.Phone.At
	d.Secure = strings.HasPrefix(strings.ToLower(o.Phone.URI), "sips:")
	uri := s.contact(o.Room, o.Phone.Transport, o.Phone.At, d.Secure)
	d.Local = showName(o.Caller) + uri + ";tag=" + d.LocalTag
	d.Remote = "<" + o.Phone.URI + ">"
	d.Target = o.Phone.URI
	return d
}

func newOutgoing(o *Outgoing) *dialog {
	d := &dialog{acked: make(chan struct{})}
	d.record = record{ID: o.ID, Room: o.Room, CallID: sip.GenerateTagN(24), LocalTag: sip.GenerateTagN(16)}
	return d
}

// invite sends an INVITE and waits for its end. The error is a [*Declined], or says why there
// was no answer. When ctx ends, it is cancelled (RFC 3261 §9.1); a 2xx that comes all the same
// is returned.
func (s *Server) invite(ctx context.Context, d *dialog, offer string, ringing func()) (*sip.Response, error) {
	req, err := s.inDialog(ctx, d, sip.INVITE)
	if err != nil {
		return nil, err
	}
	if d.Device != "" {
		req.AppendHeader(sip.NewHeader("Subject", "Phone call"))
	} else {
		req.AppendHeader(sip.NewHeader("User-Agent", "Parley/"+s.cfg.Version))
		req.AppendHeader(sip.NewHeader("Allow", allow))
	}
	req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	req.SetBody([]byte(offer))
	d.LocalSDP = offer
	tx, err := s.client.TransactionRequest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("INVITE: %w", err)
	}
	defer tx.Terminate()
	limit := time.NewTimer(firstReply)
	defer limit.Stop()
	over := ctx.Done()
	var gone <-chan struct{}
	if d.channel != nil {
		gone = d.channel.gone
	}
	for heard, told := false, false; ; {
		select {
		case res := <-tx.Responses():
			if final := !res.IsProvisional(); final && res.IsSuccess() {
				return res, nil
			} else if final {
				return nil, &Declined{Status: res.StatusCode, Reason: res.Reason}
			}
			switch {
			case !heard && over == nil: // it may be cancelled only now
				s.cancel(req)
				limit.Reset(s.cancelTime())
			case !heard:
				limit.Stop()
			}
			heard = true
			if res.StatusCode > 100 && !told && over != nil {
				told = true
				ringing()
			}
		case <-gone:
			return nil, errChannelGone
		case <-tx.Done():
			return nil, fmt.Errorf("INVITE: %w", tx.Err())
		case <-over:
			over = nil
			if heard {
				s.cancel(req)
			}
			limit.Reset(s.cancelTime())
		case <-s.last.Done():
			return nil, context.Cause(ctx)
		case <-limit.C:
			if over == nil {
				return nil, context.Cause(ctx)
			}
			return nil, errors.New("INVITE: no answer came")
		}
	}
}

// cancelTime is how long the answer to a CANCEL is waited for.
func (s *Server) cancelTime() time.Duration {
	if s.rings.ctx.Err() != nil { // the node stops
		return stopCancel
	}
	return cancelTime
}

// cancel sends the CANCEL of an INVITE; the INVITE's own answer tells what came of it.
func (s *Server) cancel(invite *sip.Request) {
	req := sip.NewRequest(sip.CANCEL, invite.Recipient)
	for _, h := range []sip.Header{invite.Via(), invite.From(), invite.To(), invite.CallID(), invite.MaxForwards()} {
		req.AppendHeader(sip.HeaderClone(h))
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: invite.CSeq().SeqNo, MethodName: sip.CANCEL})
	sip.CopyHeaders("Route", invite, req)
	req.SetBody(nil)
	req.SetTransport(invite.Transport())
	req.SetDestination(invite.Destination())
	req.Laddr = invite.Laddr
	s.wg.Go(func() {
		ctx, stop := context.WithTimeout(s.ctx, cancelTime)
		defer stop()
		if _, err := s.client.Do(ctx, req); err != nil {
			s.log.Debug("CANCEL not answered", zap.Error(err))
		}
	})
}

// establish makes the dialog of a 2xx whole (RFC 3261 §12.1.2).
func (d *dialog) establish(res *sip.Response) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	tag, _ := res.To().Params.Get("tag")
	if tag == "" {
		return errors.New("the answer has no tag")
	}
	d.RemoteTag, d.Remote = tag, res.To().Value()
	if c := res.Contact(); c != nil {
		d.Target = c.Address.String()
	}
	if d.Device == "" {
		rr := res.GetHeaders("Record-Route")
		for i := len(rr) - 1; i >= 0; i-- {
			d.Routes = append(d.Routes, rr[i].Value())
		}
	}
	return nil
}

// acknowledge sends the ACK of a 2xx.
func (s *Server) acknowledge(ctx context.Context, d *dialog) error {
	ack, err := s.inDialog(ctx, d, sip.ACK)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.ack = ack
	d.mu.Unlock()
	if err := s.client.WriteRequest(ack.Clone()); err != nil {
		return fmt.Errorf("ACK: %w", err)
	}
	return nil
}

// take lets who answered into the room.
func (s *Server) take(d *dialog, res *sip.Response) error {
	ctx, stop := context.WithTimeout(s.last, setupTime)
	defer stop()
	answer, err := offerIn(res)
	if err == nil && answer == "" {
		err = errNotSDP
	}
	if err != nil {
		s.refuseTaken(d, res)
		return fmt.Errorf("the answer to the call: %w", err)
	}
	if err := d.establish(res); err != nil {
		return err
	}
	d.RemoteSDP = answer
	if err := s.dialogs.add(d); err != nil {
		s.refuseTaken(d, res)
		return err
	}
	d.confirm()
	if err := s.acknowledge(ctx, d); err != nil {
		s.end(d, "lost")
		return err
	}
	c := d.change(answer, true)
	if c.Device = d.Device; d.channel != nil {
		c.Signalled = d.channel.signalled()
	} else {
		c.Signalled = s.conns.signalled(d.Transport, d.record.Source)
	}
	if _, err := s.cfg.Rooms.Negotiate(ctx, c); err != nil {
		s.bye(ctx, d, "no audio in common")
		return err
	}
	if d.Device != "" && s.dialogs.byID(d.ID) == d {
		s.cfg.Callers.Entered(d.Room, d.ID)
	}
	s.log.Info("call taken", zap.String("room", d.Room), zap.String("participant", d.ID), zap.String("at", d.Source), zap.String("transport", d.Transport))
	return nil
}

// refuseTaken ends a call that was taken too late: ACK, then BYE (RFC 3261 §13.2.2.4).
func (s *Server) refuseTaken(d *dialog, res *sip.Response) {
	ctx, stop := context.WithTimeout(s.last, cancelTime)
	defer stop()
	err := d.establish(res)
	if err == nil {
		d.confirm()
		err = s.acknowledge(ctx, d)
	}
	var bye *sip.Request
	if err == nil {
		bye, err = s.inDialog(ctx, d, sip.BYE)
	}
	if err == nil {
		_, err = s.client.Do(ctx, bye)
	}
	if err != nil {
		s.log.Info("a call that was taken too late may go on there", zap.String("participant", d.ID), zap.Error(err))
	}
}

// far is the device's end as URIs name it.
func (c *channelConn) far() string {
	host, port, err := net.SplitHostPort(c.Channel.RemoteAddr().String())
	if err != nil {
		return "127.0.0.1:5061"
	}
	return net.JoinHostPort(strings.Split(host, "%")[0], port)
}
