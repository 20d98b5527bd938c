package sip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/parley-jami/parley/internal/jami"
)

// ErrNoChannel says that a device has no SIP channel open.
var ErrNoChannel = errors.New("the device has no SIP channel")

// maxText is how long a text may be that goes with its headers into a message of less than
// maxPacket bytes, in bytes.
const maxText = maxPacket - 1_500

// of returns a channel that a device has open to an account; nil: none.
func (cs *channels) of(account jami.ID, device string) *channelConn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var last *channelConn
	for _, c := range cs.by {
		if c.account == account && c.peer.DeviceLong == device && (last == nil || c.n > last.n) {
			last = c
		}
	}
	return last
}

// Write sends a text to a device outside of calls, on the channel that it opened last
// (connect-and-calls §5.1). id is 16 hex digits, by which the device takes it once. Without an
// error the device has it. The error is [ErrNoChannel] where it has no channel, or the text is
// too long for one.
func (s *Server) Write(ctx context.Context, account jami.ID, device, id string, m Message) error {
	c := s.channels.of(account, device)
	if c == nil || len(m.Body)+len(m.Type) > maxText || s.ctx.Err() != nil {
		return ErrNoChannel
	}
	req, err := s.outOfDialog(ctx, c, id, m, time.Now())
	if err != nil {
		return err
	}
	res, err := s.client.Do(ctx, req)
	if err != nil {
		return fmt.Errorf("MESSAGE: %w", err)
	}
	if !res.IsSuccess() {
		return fmt.Errorf("MESSAGE: %d %s", res.StatusCode, res.Reason)
	}
	return nil
}

// outOfDialog builds a MESSAGE outside of dialogs (§3.1, §5.1): it has what the first request
// of one has.
func (s *Server) outOfDialog(ctx context.Context, c *channelConn, id string, m Message, now time.Time) (*sip.Request, error) {
	d := s.toDevice(&Outgoing{Account: c.account, JamiID: c.peer.Account.String()}, c)
	req, err := s.message(ctx, d, m)
	if err != nil {
		return nil, err
	}
	req.AppendHeader(sip.NewHeader("Date", now.Format(time.ANSIC)))
	req.AppendHeader(sip.NewHeader("Message-ID", id))
	return req, nil
}
