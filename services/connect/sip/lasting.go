package sip

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"
)

// Channels that last go on in the next process: their calls are the dialogs whose source stands for them. A request
// that this process did not answer comes again there.

// Expect says which channels of the last process will be accepted, by the numbers that [channel.Lasting] has. It is
// called before Run.
func (s *Server) Expect(ids []uint64) {
	s.channels.mu.Lock()
	defer s.channels.mu.Unlock()
	for _, id := range ids {
		s.channels.expected[lastingAddr(id).String()] = make(chan struct{})
	}
}

// Lost ends the calls of channels that were expected and won't come. Of others it changes nothing.
func (s *Server) Lost(ids []uint64) {
	for _, id := range ids {
		key := lastingAddr(id).String()
		if s.channels.came(key) {
			s.endOn(key)
		}
	}
}

// came ends the waiting for a channel, and reports whether it was waited for.
func (cs *channels) came(key string) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	there, ok := cs.expected[key]
	if ok {
		close(there)
		delete(cs.expected, key)
	}
	return ok
}

// expects reports whether a channel of the last process is to come.
func (cs *channels) expects(key string) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	_, ok := cs.expected[key]
	return ok
}

// await waits for a channel of the last process; of others it returns at once.
func (cs *channels) await(ctx context.Context, key string) error {
	cs.mu.Lock()
	there := cs.expected[key]
	cs.mu.Unlock()
	if there == nil {
		return nil
	}
	select {
	case <-there:
		return nil
	case <-cs.done:
		return errChannelGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

// goOn has the calls of a channel of the last process go on, once it can be written to.
func (s *Server) goOn(c *channelConn) {
	defer close(c.ready)
	select {
	case <-c.reading:
	case <-c.gone:
	case <-s.ctx.Done():
		return
	}
	var calls []*dialog
	for _, d := range s.dialogs.all() {
		d.mu.Lock()
		if d.Device != "" && d.Source == c.key {
			if d.Opened {
				d.channel = c
			}
			calls = append(calls, d)
		}
		d.mu.Unlock()
	}
	s.channels.came(c.key)
	if c.ours && len(calls) == 0 { // it was for a call that was not taken yet
		s.hangChannel(c)
		return
	}
	for _, d := range calls {
		s.log.Info("a call goes on", zap.String("room", d.Room), zap.String("participant", d.ID))
		s.cfg.Callers.Entered(d.Room, d.ID)
		s.wg.Go(func() { s.again(d, c.peer.Account.String()) })
	}
	select {
	case <-c.gone: // before it was looked for
		s.endOn(c.key)
	default:
	}
}

// againPause is between two tries to have a room told of a call that goes on.
const againPause = time.Second

// again has a room told of a call that goes on, as often as it takes. One that may not be there any more ends.
func (s *Server) again(d *dialog, jamiID string) {
	for {
		ctx, cancel := context.WithTimeout(s.ctx, setupTime)
		err := s.cfg.Rooms.Again(ctx, Call{ID: d.ID, Room: d.Room, JamiID: jamiID, Device: d.Device})
		cancel()
		code := ""
		if err != nil {
			code = s.cfg.Code(err)
		}
		switch {
		case err == nil || s.dialogs.byID(d.ID) != d || s.ctx.Err() != nil:
			return
		case code != "timeout" && code != "unavailable":
			s.log.Info("call of before refused", zap.String("participant", d.ID), zap.Error(err))
			s.Hang(d.ID, "barred")
			return
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(againPause):
		}
	}
}

// forgetUnanswered ends a call that the last process let in, but did not answer: its INVITE comes again.
func (s *Server) forgetUnanswered(req *sip.Request) {
	c := s.channels.at(req.Source())
	if c == nil || !c.pending.again(req) {
		return
	}
	_, from := tags(req)
	for _, d := range s.dialogs.all() {
		d.mu.Lock()
		same := d.CallID == callID(req) && d.RemoteTag == from && d.Source == c.key
		d.mu.Unlock()
		if same {
			s.end(d, "lost")
		}
	}
}

// endOn ends the calls of a channel that is gone.
func (s *Server) endOn(key string) {
	for _, d := range s.dialogs.all() {
		d.mu.Lock()
		on := d.Device != "" && d.Source == key
		d.mu.Unlock()
		if on {
			s.end(d, "lost")
		}
	}
}

// maxPending bounds the requests of a channel that are noted.
const maxPending = 64

// pending are the requests on a channel that are not answered.
type pending struct {
	mu    sync.Mutex
	by    map[string]asked // by [requestKey]
	reads func()           // what to call when the library has the message that was read last
	rest  []byte           // of that message
}

// asked is a request.
type asked struct {
	done  func()
	again bool // the last process had it
}

// readLasting reads one message as Read does. What is no request, or needs no answer, is done with when the
// library asks for what follows.
func (c *channelConn) readLasting(b []byte) (int, error) {
	p := &c.pending
	if c.ready != nil { // who says something is known by then
		select {
		case <-c.ready:
		case <-c.gone:
		}
	}
	if len(p.rest) == 0 {
		if p.reads != nil {
			p.reads()
			p.reads = nil
		}
		m, err := c.last.Next()
		if err != nil {
			return 0, err
		}
		p.rest = m.Data
		if key := requestKey(m.Data); key != "" {
			p.note(key, asked{m.Done, m.Again})
		} else {
			p.reads = m.Done
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *pending) note(key string, a asked) {
	p.mu.Lock()
	old, had := p.by[key]
	if p.by == nil {
		p.by = map[string]asked{}
	}
	over := !had && len(p.by) >= maxPending
	if !over {
		p.by[key] = a
	}
	p.mu.Unlock()
	switch {
	case over:
		a.done()
	case had: // it was repeated
		old.done()
	}
}

// answered notes that a message was written: after a final answer the request is done with.
func (p *pending) answered(b []byte) {
	if !bytes.HasPrefix(b, []byte("SIP/2.0 ")) || len(b) < 9 || b[8] == '1' {
		return
	}
	key := messageKey(b)
	p.mu.Lock()
	a, ok := p.by[key]
	delete(p.by, key)
	p.mu.Unlock()
	if ok {
		a.done()
	}
}

// take gives what ends the keeping of a request, of which an answer is not the end.
func (p *pending) take(req *sip.Request) (done func()) {
	key := keyOf(callID(req), req.CSeq().Value())
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.by[key]
	if !ok {
		return func() {}
	}
	delete(p.by, key)
	return a.done
}

// again reports whether the last process had a request already.
func (p *pending) again(req *sip.Request) bool {
	key := keyOf(callID(req), req.CSeq().Value())
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.by[key].again
}

// requestKey names a request that is to be answered; "": it is none.
func requestKey(b []byte) string {
	if bytes.HasPrefix(b, []byte("SIP/2.0 ")) || bytes.HasPrefix(b, []byte("ACK ")) {
		return ""
	}
	return messageKey(b)
}

// messageKey is what a request and its answers have in common: Call-ID and CSeq; "": it has none.
func messageKey(b []byte) string {
	var id, seq string
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		switch v := strings.TrimSpace(string(value)); strings.ToLower(string(bytes.TrimSpace(name))) {
		case "call-id", "i":
			id = v
		case "cseq":
			seq = strings.Join(strings.Fields(v), " ")
		}
	}
	if id == "" || seq == "" {
		return ""
	}
	return keyOf(id, seq)
}

func keyOf(callID, cseq string) string { return callID + "\x00" + cseq }
