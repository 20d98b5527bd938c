package lasting

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/tls13"
)

const (
	maxFrame   = 65535
	maxSTUN    = 1280
	stunHeader = 20
	// chunk is what is read at once, in bytes.
	chunk = 32 << 10
	// maxUseless bounds records in a row without data, as crypto/tls does.
	maxUseless = 32
	// maxHandshake bounds a message of the handshake's kind after it, in bytes: a ticket.
	maxHandshake = 1 << 17
)

// Errors of what a peer sends.
var (
	errAlert   = errors.New("TLS alert")
	errMessage = errors.New("a TLS message that has no place here")
)

// mark is a place in the stream between two records, or within one.
type mark struct {
	pos  uint64
	seq  uint64
	left int
	skip uint32 // bytes of the plaintext of the record that follows
	key  *tls13.Key
}

// opened is a record whose plaintext was given out.
type opened struct {
	at mark
	n  int
}

// here is the place that is looked at. Only the reading goroutine calls it.
func (c *Conn) here() mark {
	return mark{pos: c.base + uint64(c.r), seq: c.key.Seq(), left: c.left, key: c.key}
}

// Read reads bytes of the session.
func (c *Conn) Read(p []byte) (int, error) {
	for len(c.plain) == 0 {
		if c.rerr != nil {
			return 0, c.rerr
		}
		if err := c.next(); err != nil {
			c.rerr = err
			c.fatal.Store(alertOf(err))
			return 0, err
		}
	}
	n := copy(p, c.plain)
	c.plain = c.plain[n:]
	c.given += uint64(n)
	return n, nil
}

// alertOf is what is told a peer that broke the protocol.
func alertOf(err error) uint32 {
	switch {
	case errors.Is(err, tls13.ErrTag):
		return 20 // bad_record_mac
	case errors.Is(err, tls13.ErrRecord), errors.Is(err, errMessage):
		return 10 // unexpected_message
	}
	return 0
}

// next takes a record. Its plaintext, if it has data, is in plain.
func (c *Conn) next() error {
	at := c.here()
	if err := c.assemble(); err != nil {
		return err
	}
	typ, p, err := c.key.Open(c.record)
	if err != nil {
		return err
	}
	if typ == tls13.Data && len(p) > 0 {
		c.useless = 0
	} else if c.useless++; c.useless > maxUseless {
		return fmt.Errorf("%w: %d records without data", errMessage, c.useless)
	}
	switch {
	case typ == tls13.Alert && len(p) == 2 && p[1] == 0:
		return io.EOF
	case typ == tls13.Alert && len(p) == 2:
		return fmt.Errorf("%w %d", errAlert, p[1])
	case typ == tls13.Handshake:
		err = c.handshake(p)
	case typ != tls13.Data || len(c.hand) > 0: // messages go on in records that follow (RFC 8446 §5.1)
		err = errMessage
	}
	if err != nil {
		return err
	}
	c.imu.Lock()
	defer c.imu.Unlock()
	if len(c.hand) == 0 {
		c.now = c.here()
	}
	if typ == tls13.Data && len(p) > 0 {
		c.plain = p
		c.records = append(c.records, opened{at, len(p)})
	}
	return nil
}

// Messages after the handshake (RFC 8446 §4.6).
const (
	newSessionTicket = 4
	keyUpdate        = 24
)

func (c *Conn) handshake(p []byte) error {
	c.hand = append(c.hand, p...)
	for len(c.hand) >= 4 {
		n := 4 + int(c.hand[1])<<16 + int(binary.BigEndian.Uint16(c.hand[2:]))
		if n > maxHandshake {
			return fmt.Errorf("%w: %d bytes", errMessage, n)
		}
		if len(c.hand) < n {
			return nil
		}
		m := c.hand[:n]
		c.hand = c.hand[n:]
		switch {
		case m[0] == newSessionTicket:
		case m[0] == keyUpdate && n == 5 && m[4] <= 1 && len(c.hand) == 0:
			next, err := c.key.Next()
			if err != nil {
				return err
			}
			c.key = next
			if m[4] == 1 {
				c.m.head.due.Store(1) // before what is sent next (RFC 8446 §4.6.3)
			}
		default:
			return fmt.Errorf("%w: type %d", errMessage, m[0])
		}
	}
	if len(c.hand) == 0 {
		c.hand = nil
	}
	return nil
}

// assemble puts a record together: frames have their own ends.
func (c *Conn) assemble() error {
	c.record = c.record[:0]
	for want := tls13.Header; len(c.record) < want; {
		if err := c.frame(); err != nil {
			return err
		}
		if c.r == c.w {
			if err := c.fill(); err != nil {
				return err
			}
		}
		n := min(c.left, c.w-c.r, want-len(c.record))
		c.record = append(c.record, c.m.in[c.r:c.r+n]...)
		c.r += n
		c.left -= n
		if want == tls13.Header && len(c.record) == want {
			var err error
			if want, err = tls13.Length([tls13.Header]byte(c.record)); err != nil {
				return err
			}
		}
	}
	return nil
}

// frame goes to where bytes of the session are, past STUN messages.
func (c *Conn) frame() error {
	for c.left == 0 {
		if err := c.need(2); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint16(c.m.in[c.r:]))
		if n >= stunHeader && n <= maxSTUN {
			if err := c.need(2 + stunHeader); err != nil {
				return err
			}
			b := c.m.in[c.r+2 : c.w]
			if b[0]>>6 == 0 && stun.IsMessage(b) && int(binary.BigEndian.Uint16(b[2:])) == n-stunHeader {
				if err := c.need(2 + n); err != nil {
					return err
				}
				if err := c.stun(c.m.in[c.r+2 : c.r+2+n]); err != nil {
					return err
				}
				c.r += 2 + n
				c.passed()
				continue
			}
		}
		c.r += 2
		c.left = n
	}
	return nil
}

func (c *Conn) stun(message []byte) error {
	if c.cfg.Answer == nil {
		return nil
	}
	if out := c.cfg.Answer(append([]byte(nil), message...)); out != nil {
		return c.trySend(out)
	}
	return nil
}

// passed notes that a frame of no record lies behind.
func (c *Conn) passed() {
	if len(c.record) > 0 || len(c.hand) > 0 {
		return
	}
	c.imu.Lock()
	defer c.imu.Unlock()
	all := len(c.records) == 0
	c.now = c.here()
	if all {
		c.actedLocked(c.now)
	}
}

// need reads until n bytes are there.
func (c *Conn) need(n int) error {
	for c.w-c.r < n {
		if err := c.fill(); err != nil {
			return err
		}
	}
	return nil
}

// fill reads what is there into the memory, after what is in it.
func (c *Conn) fill() error {
	c.imu.Lock()
	if c.gone {
		c.imu.Unlock()
		return io.ErrClosedPipe
	}
	c.makeRoomLocked()
	c.imu.Unlock()
	n, err := c.tcp.Read(c.m.in[c.w:min(c.w+chunk, inSize)])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// makeRoomLocked moves what was not acted upon to the memory's beginning, when it has to or costs nothing. Both
// copies are there until the new one is valid.
func (c *Conn) makeRoomLocked() {
	in := c.m.head.in.get()
	from := c.r
	if in.lost == 0 {
		from = int(in.at)
	}
	if from < c.w && inSize-c.w >= chunk {
		return
	}
	n := c.w - from
	if n > from { // what is acted upon takes more than there is: the connection ends with this process, for now
		from, in.lost = c.r, 1
		n = c.w - c.r
	}
	if in.lost == 0 {
		in.at = 0
	}
	if from == 0 {
		return
	}
	if in.lost != 0 {
		c.m.head.in.set(in)
	}
	copy(c.m.in[:], c.m.in[from:from+n])
	c.m.head.in.set(in)
	c.base += uint64(from)
	c.r -= from
	c.w -= from
}

// Settled gives what reports whether everything was said that what came has led to. It is called before
// anything is read.
func (c *Conn) Settled(fn func() bool) { c.settled = fn }

// Took notes that what was read was acted upon, but for the last rest bytes. It counts from when it is settled.
func (c *Conn) Took(rest int) {
	c.imu.Lock()
	defer c.imu.Unlock()
	acted := c.given - uint64(rest)
	done := 0
	for done < len(c.records) && c.first+uint64(c.records[done].n) <= acted {
		c.first += uint64(c.records[done].n)
		done++
	}
	c.records = append(c.records[:0], c.records[done:]...)
	if len(c.records) == 0 {
		c.actedLocked(c.now)
		return
	}
	at := c.records[0].at
	at.skip = uint32(acted - c.first)
	c.actedLocked(at)
}

func (c *Conn) actedLocked(m mark) {
	c.acted = m
	if c.settled == nil || c.settled() {
		c.commitLocked()
	}
}

// Commit is called when it may be settled now.
func (c *Conn) Commit() {
	c.imu.Lock()
	defer c.imu.Unlock()
	c.actedLocked(c.acted)
}

func (c *Conn) commitLocked() {
	if c.gone {
		return
	}
	m := c.acted
	in := inState{pos: m.pos, seq: m.seq, left: uint32(m.left), skip: m.skip}
	if m.pos < c.base {
		in.lost = 1
	} else {
		in.at = uint32(m.pos - c.base)
	}
	copy(in.secret[:], m.key.Secret())
	c.m.head.in.set(in)
}
