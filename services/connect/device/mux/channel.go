package mux

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/parley-jami/parley/services/connect/channel"
)

// Bounds of what a channel, and all of a connection, keep for readers that are behind.
const (
	maxKept         = 1 << 20 // bytes of a channel
	maxKeptMessages = 4096
	maxKeptAll      = 4 << 20 // bytes of a connection
	perMessage      = 64      // bytes that a message takes beside its data
)

// Errors of channels.
var (
	ErrClosed     = errors.New("the channel is closed")
	ErrSlowReader = errors.New("the channel was cut: what came was not read")
	ErrDeclined   = errors.New("the device declined the channel")
)

// Channel implements [channel.Channel].
type Channel struct {
	s    *Socket
	name string
	num  uint16
	ours bool // we opened it

	opened chan struct{} // closed when the peer knows that it may be used
	answer chan error    // of a channel that we ask for, one element

	mu   sync.Mutex
	in   []incoming
	size int
	end  error         // nil: open
	more chan struct{} // holds an element when there is something to read
}

// incoming is a message that was not read.
type incoming struct {
	data  []byte
	note  uint64 // by which it is kept for the next process; 0: it is not
	again bool   // it was kept by the last one
}

var _ channel.Channel = (*Channel)(nil)

func newChannel(s *Socket, name string, num uint16, ours bool) *Channel {
	return &Channel{s: s, name: name, num: num, ours: ours, opened: make(chan struct{}), answer: make(chan error, 1), more: make(chan struct{}, 1)}
}

// Name implements channel.Channel.
func (c *Channel) Name() string { return c.name }

// LocalAddr implements channel.Channel.
func (c *Channel) LocalAddr() net.Addr { return c.s.t.LocalAddr() }

// RemoteAddr implements channel.Channel.
func (c *Channel) RemoteAddr() net.Addr { return c.s.t.RemoteAddr() }

// Peer implements channel.Channel.
func (c *Channel) Peer() channel.Peer { return c.s.cfg.Peer }

// ReadMessage implements channel.Channel.
func (c *Channel) ReadMessage() ([]byte, error) {
	var b []byte
	err := c.read(func() {
		b = c.in[0].data
		c.doneLocked()
	})
	return b, err
}

// Read implements channel.Channel.
func (c *Channel) Read(p []byte) (n int, err error) {
	err = c.read(func() {
		n = copy(p, c.in[0].data)
		if n == len(c.in[0].data) {
			c.doneLocked()
			return
		}
		c.in[0].data = c.in[0].data[n:]
		c.size -= n
		c.s.kept.Add(-int64(n))
	})
	return n, err
}

// read waits for a message, which take then takes.
func (c *Channel) read(take func()) error {
	for {
		c.mu.Lock()
		if len(c.in) > 0 {
			take()
			if len(c.in) > 0 || c.end != nil {
				c.wake()
			}
			c.mu.Unlock()
			c.s.took()
			return nil
		}
		end := c.end
		c.mu.Unlock()
		if end != nil {
			c.wake() // for another reader
			return end
		}
		<-c.more
	}
}

// doneLocked takes the first message off, of which no more is to be known.
func (c *Channel) doneLocked() {
	if n := c.in[0].note; n != 0 {
		c.s.last.Done(n)
	}
	c.popLocked()
}

func (c *Channel) popLocked() {
	n := len(c.in[0].data) + perMessage
	c.in[0] = incoming{}
	if c.in = c.in[1:]; len(c.in) == 0 {
		c.in = nil
	}
	c.size -= n
	c.s.kept.Add(-int64(n))
}

func (c *Channel) wake() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// put keeps a message for the reader; false: there is no room.
func (c *Channel) put(m incoming) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return true // nobody wants it
	}
	n := len(m.data) + perMessage
	if len(c.in) > 0 && (c.size+n > maxKept || len(c.in) >= maxKeptMessages || c.s.kept.Load()+int64(n) > maxKeptAll) {
		return false
	}
	c.in = append(c.in, m)
	c.size += n
	c.s.kept.Add(int64(n))
	c.wake()
	return true
}

// Write implements channel.Channel.
func (c *Channel) Write(p []byte) (n int, err error) {
	select {
	case <-c.opened:
	case <-c.s.done:
	}
	for len(p) > 0 {
		if err := c.writable(); err != nil {
			return n, err
		}
		b := p[:min(len(p), channel.MaxMessage)]
		if err := c.s.write(c.num, b); err != nil {
			return n, err
		}
		n += len(b)
		p = p[len(b):]
	}
	return n, nil
}

func (c *Channel) writable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == io.EOF {
		return ErrClosed
	}
	return c.end
}

// Close implements channel.Channel. What was not read is lost.
func (c *Channel) Close() error {
	if c.s.forget(c) {
		c.s.say(c.num, nil, nil)
	}
	c.finish(ErrClosed, true)
	return nil
}

// finish ends the channel. drop: what was not read is lost.
func (c *Channel) finish(end error, drop bool) {
	defer c.s.took()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil || drop {
		c.end = end
	}
	if drop && len(c.in) > 0 {
		c.s.kept.Add(-int64(c.size))
		c.in, c.size = nil, 0
	}
	c.openLocked()
	c.wake()
}

// ended reports whether the channel has ended.
func (c *Channel) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end != nil
}

// open lets writers begin.
func (c *Channel) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.openLocked()
}

func (c *Channel) openLocked() {
	select {
	case <-c.opened:
	default:
		close(c.opened)
	}
}
