package mux

import (
	"io"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/lasting"
)

var _ channel.Lasting = (*Channel)(nil)

// lasts reports whether the next process goes on with the channel.
func (c *Channel) lasts() bool {
	return c.s.last != nil && c.s.last.ID() != 0 && c.name == c.s.cfg.Lasts
}

// Lasts implements channel.Lasting.
func (c *Channel) Lasts() (id uint64, ours bool) {
	if !c.lasts() {
		return 0, c.ours
	}
	return c.s.last.Number(c.num), c.ours
}

// Next implements channel.Lasting.
func (c *Channel) Next() (m channel.Message, err error) {
	err = c.read(func() {
		x := c.in[0]
		c.popLocked()
		m = channel.Message{Data: x.data, Again: x.again, Done: func() {
			if x.note != 0 {
				c.s.last.Done(x.note)
			}
		}}
	})
	return m, err
}

// settled reports whether all is said that there is to say.
func (s *Socket) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.flushing
}

// remember keeps a channel that is open.
func (s *Socket) remember(c *Channel) {
	if s.last == nil {
		return
	}
	st := lasting.Open
	if c.lasts() {
		st = lasting.Theirs
		if c.ours {
			st = lasting.Ours
		}
	}
	s.last.SetChannel(c.num, st)
}

// forgotten keeps nothing any more of a channel whose end both know.
func (s *Socket) forgotten(num uint16) {
	if s.last != nil {
		s.last.SetChannel(num, lasting.Closed)
	}
}

// restore takes the channels of the last process that go on.
func (s *Socket) restore() {
	for num, st := range s.last.Channels() {
		if !st.GoesOn() || !usable(num) {
			continue
		}
		c := newChannel(s, s.cfg.Lasts, num, st == lasting.Ours)
		c.openLocked()
		s.channels[num] = c
		if !c.ours {
			s.theirs++
		}
		s.version = 1 // who has a channel has said so
	}
	for _, n := range s.last.Notes() {
		if c := s.channels[n.Channel]; c != nil {
			c.put(incoming{data: n.Data, note: n.Order, again: true})
		}
	}
}

// goOn gives the channels of the last process to who takes them, and closes those that are of no use any more: their
// other ends may open new ones.
func (s *Socket) goOn() {
	if s.last == nil {
		return
	}
	for num, st := range s.last.Channels() {
		s.mu.Lock()
		c := s.channels[num]
		s.mu.Unlock()
		if c == nil {
			if usable(num) && st == lasting.Open {
				s.say(num, nil, nil)
			}
			continue
		}
		err := io.ErrClosedPipe
		if s.cfg.Restored != nil {
			err = s.cfg.Restored(c)
		}
		if err != nil {
			s.cfg.Log.Info("a channel of before is closed", zap.String("channel", c.name), zap.Error(err))
			c.Close() //nolint:errcheck // it never fails
		}
	}
}
