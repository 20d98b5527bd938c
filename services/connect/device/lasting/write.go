package lasting

import (
	"encoding/binary"
	"net"

	"github.com/parley-jami/parley/services/connect/device/tls13"
)

// maxUnit is how much of the session is written at once: a message of a channel with its header.
const maxUnit = maxFrame + 16

// Write writes p to the session. What is at most a message of a channel is written whole, by this process
// or the next, or not at all.
func (c *Conn) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		b := p[:min(len(p), maxUnit)]
		c.wmu.Lock()
		err = c.writeLocked(tls13.Data, b)
		c.wmu.Unlock()
		if err != nil {
			return n, err
		}
		n += len(b)
		p = p[len(b):]
	}
	return n, nil
}

func (c *Conn) writeLocked(typ byte, p []byte) error {
	if err := c.readyLocked(); err != nil {
		return err
	}
	b := c.m.out[:0]
	update := c.m.head.due.Load() == 1 || c.wkey.Seq() >= tls13.MaxRecords
	if update {
		next, err := c.wkey.Next()
		if err != nil {
			return err
		}
		b = c.frameOf(b, tls13.Handshake, []byte{keyUpdate, 0, 0, 1, 0})
		c.wkey = next
	}
	for first := true; first || len(p) > 0; first = false {
		x := p[:min(len(p), tls13.MaxPlaintext)]
		b = c.frameOf(b, typ, x)
		p = p[len(x):]
	}
	return c.sendLocked(b, typ == tls13.Alert, update)
}

// frameOf appends a record in a frame.
func (c *Conn) frameOf(b []byte, typ byte, plain []byte) []byte {
	at := len(b)
	b = c.wkey.Seal(append(b, 0, 0), typ, plain)
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return b
}

// trySend sends a frame unless another is being written: what the peer can do without never waits for a
// peer that doesn't read.
func (c *Conn) trySend(content []byte) error {
	if !c.wmu.TryLock() {
		return nil
	}
	defer c.wmu.Unlock()
	if err := c.readyLocked(); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint16(c.m.out[:0], uint16(len(content)))
	return c.sendLocked(append(b, content...), false, false)
}

// readyLocked sends what the last process did not.
func (c *Conn) readyLocked() error {
	if c.wend != nil {
		return c.wend
	}
	return c.flushLocked()
}

// sendLocked sends what lies at the beginning of the memory's out. From the store on it will be sent, whatever
// happens.
func (c *Conn) sendLocked(b []byte, last, update bool) error {
	was := c.m.head.out.get()
	now := outState{pos: was.pos + uint64(was.n), seq: c.wkey.Seq(), n: uint32(len(b))}
	if last {
		now.ended = 1
	}
	copy(now.secret[:], c.wkey.Secret())
	c.m.head.out.set(now)
	if update {
		c.m.head.due.Store(0)
	}
	c.unsent = len(b)
	return c.flushLocked()
}

func (c *Conn) flushLocked() error {
	if c.unsent == 0 {
		return nil
	}
	end := int(c.m.head.out.get().n)
	n, err := c.tcp.Write(c.m.out[end-c.unsent : end])
	c.unsent -= n
	c.wend = err
	return err
}

// end says the last word (RFC 8446 §6.1), and has nothing written any more.
func (c *Conn) end() {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.wend == nil {
		alert := []byte{1, 0} // close_notify
		if fatal := c.fatal.Load(); fatal != 0 {
			alert = []byte{2, byte(fatal)}
		}
		_ = c.writeLocked(tls13.Alert, alert) // to a peer that may be gone
	}
	c.wend = net.ErrClosed
}
