package lasting

import (
	"cmp"
	"slices"
)

// ChannelState is what is kept of a channel.
type ChannelState uint8

// States of channels.
const (
	Closed ChannelState = iota
	Open                // to be closed by the next process
	Theirs              // to be gone on with; the peer opened it
	Ours                // the same; we did
)

// GoesOn reports whether the next process goes on with the channel.
func (s ChannelState) GoesOn() bool { return s == Theirs || s == Ours }

// Number names a channel of the connection among those of all connections, in each process that goes on with it: 55 bits.
func (c *Conn) Number(channel uint16) uint64 { return c.ID()<<16 | uint64(channel) }

// Note is a message of a channel that is being acted upon.
type Note struct {
	Channel uint16
	Order   uint64 // its name; 0: of none
	Data    []byte
}

// Channels are those that the last process had open. They are those of the memory still.
func (c *Conn) Channels() map[uint16]ChannelState {
	if c.was == nil {
		return nil
	}
	return c.was.channels
}

// Notes are the messages that the last process had not done with, in order.
func (c *Conn) Notes() []Note {
	if c.was == nil {
		return nil
	}
	return c.was.notes
}

// SetChannel keeps the state of a channel. With a closed one its messages are forgotten.
func (c *Conn) SetChannel(num uint16, st ChannelState) {
	c.nmu.Lock()
	defer c.nmu.Unlock()
	if c.gone {
		return
	}
	c.m.channels[num] = st
	if st != Closed {
		return
	}
	for i := range c.m.note {
		if n := &c.m.note[i]; n.ch == uint32(num) {
			n.order.Store(0)
		}
	}
}

// Note keeps a message until [Conn.Done] is called with the number returned; 0: it is too long for that. Where too many
// are kept, the oldest is not any more.
func (c *Conn) Note(num uint16, data []byte) uint64 {
	c.nmu.Lock()
	defer c.nmu.Unlock()
	if c.gone || c.cfg.Keep == nil || len(data) > noteSize {
		return 0
	}
	at := 0
	for i := range c.m.note {
		order := c.m.note[i].order.Load()
		if order < c.m.note[at].order.Load() {
			at = i
		}
		if order == 0 {
			break
		}
	}
	n := &c.m.note[at]
	n.order.Store(0)
	n.ch, n.n = uint32(num), uint32(copy(c.m.notes[at][:], data))
	c.order++
	n.order.Store(c.order)
	return c.order
}

// Done forgets a message.
func (c *Conn) Done(order uint64) {
	c.nmu.Lock()
	defer c.nmu.Unlock()
	if c.gone || order == 0 {
		return
	}
	for i := range c.m.note {
		if n := &c.m.note[i]; n.order.Load() == order {
			n.order.Store(0)
			return
		}
	}
}

// notes are those of a checked memory.
func (c *Conn) notes() []Note {
	var out []Note
	for i := range c.m.note {
		n := &c.m.note[i]
		if order := n.order.Load(); order != 0 {
			out = append(out, Note{uint16(n.ch), order, append([]byte(nil), c.m.notes[i][:n.n]...)})
			c.order = max(c.order, order)
		}
	}
	slices.SortFunc(out, func(a, b Note) int { return cmp.Compare(a.Order, b.Order) })
	return out
}
