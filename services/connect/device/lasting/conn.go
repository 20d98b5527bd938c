package lasting

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/services/connect/device/tls13"
)

// closeTime is how long a peer that doesn't read holds up the end.
const closeTime = 300 * time.Millisecond

// Config of connections.
type Config struct {
	Keep *sockets.Keep // nil: they end with the process
	// KeepAlive is the content of a frame that is sent after each Pause.
	KeepAlive []byte
	Pause     func() time.Duration
	// Answer answers a STUN message; nil: it needs none.
	Answer func(message []byte) []byte
}

// Session is what a handshake has come to.
type Session struct {
	Suite       uint16
	Read, Write []byte // traffic secrets, of which no record was used yet
	Early       []byte // what was read of the connection since
	Left        int    // how many bytes of a frame are to come, those of Early counted
	Info        []byte // for who goes on with the connection
}

// Conn is a session on a connection. One goroutine reads, which calls Took too; the other methods may be called
// by several.
type Conn struct {
	cfg Config
	tcp net.Conn
	id  uint64
	m   *mapping
	was *before // nil: the connection is new

	// Of the reading goroutine.
	left    int // bytes of a frame that are to come
	key     *tls13.Key
	record  []byte // that is being put together
	plain   []byte // of the last one, that is to be given out
	hand    []byte // a part of a handshake message
	useless int    // records in a row that bring nothing
	given   uint64 // bytes of plaintext
	rerr    error
	fatal   atomic.Uint32 // the alert that tells the peer what was wrong (RFC 8446 §6.2); 0: nothing was

	// Under imu, where the reading goroutine changes it.
	imu     sync.Mutex
	base    uint64 // position of the first byte of the memory's in
	r, w    int    // what is to be looked at there
	now     mark   // after the last record that is whole
	records []opened
	first   uint64 // how much plaintext came before those
	acted   mark   // up to where everything was acted upon
	settled func() bool
	gone    bool // the memory is

	wmu    sync.Mutex
	wkey   *tls13.Key
	unsent int // what of the memory's out the kernel doesn't have, from its end
	wend   error

	nmu   sync.Mutex
	order uint64

	once  sync.Once
	tmu   sync.Mutex
	timer *time.Timer // of the keep-alive; nil: none any more
	calm  *time.Timer // nil: the connection is new
}

var _ net.Conn = (*Conn)(nil)

// before is what the last process left.
type before struct {
	channels map[uint16]ChannelState
	notes    []Note
}

// New goes on with a connection after its handshake. Where it can't be kept for the next process, it ends
// with this one, and why says the reason, if it is one that an operator may want to know.
func New(c net.Conn, s Session, cfg Config) (conn *Conn, why, err error) {
	if len(s.Info) > infoSize || len(s.Early) > chunk {
		return nil, nil, fmt.Errorf("a connection with %d bytes about it and %d bytes read", len(s.Info), len(s.Early))
	}
	read, written, why := uint64(0), uint64(0), errors.New("it is no connection of the kernel's")
	sc, kernel := c.(*net.TCPConn)
	if kernel && cfg.Keep != nil {
		if read, written, why = positions(sc); why == nil && (read < uint64(len(s.Early)) || written == 0) {
			why = errors.New("the kernel does not count what it sends")
		}
	}
	shared := cfg.Keep != nil && why == nil
	x := &Conn{cfg: cfg, tcp: c}
	if x.m, err = newMapping(shared); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			x.m.unmap()
		}
	}()
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, nil, err
	}
	h := &x.m.head
	h.magic, h.layout, h.size, h.suite = magic, layout, uint32(size), s.Suite
	h.id = binary.BigEndian.Uint64(id[:])&(1<<idBits-1) | 1<<(idBits-1)
	h.infoLen = uint32(copy(x.m.info[:], s.Info))
	h.read, h.written = read-uint64(len(s.Early)), written
	in, out := inState{left: uint32(s.Left)}, outState{}
	copy(in.secret[:], s.Read)
	copy(out.secret[:], s.Write)
	h.in.set(in)
	h.out.set(out)
	copy(x.m.in[:], s.Early)
	if x.key, err = tls13.NewKey(s.Suite, s.Read, 0); err != nil {
		return nil, nil, err
	}
	if x.wkey, err = tls13.NewKey(s.Suite, s.Write, 0); err != nil {
		return nil, nil, err
	}
	x.id, x.left, x.w = h.id, s.Left, len(s.Early)
	x.now = x.here()
	x.acted = x.now
	h.complete.Store(1)
	if shared {
		if why = cfg.Keep.Hold(h.id, sc, x.m.file); why != nil {
			shared = false
		}
	}
	if !shared {
		x.cfg.Keep = nil
	}
	x.begin()
	if cfg.Keep == nil || !kernel {
		why = nil
	}
	return x, why, nil
}

// idBits are those of a connection's id.
const idBits = 39

// Restore goes on with a connection of the last process, which about tells how, from what [Session].Info was, and
// where the peer is. On an error it is closed, and not kept any more.
func Restore(k sockets.Kept, about func(info []byte, from net.Addr) (Config, error), keep *sockets.Keep) (*Conn, error) {
	c, err := restore(k, about)
	if err != nil {
		return nil, errors.Join(err, keep.Drop(k.ID))
	}
	return c, nil
}

func restore(k sockets.Kept, about func([]byte, net.Addr) (Config, error)) (_ *Conn, err error) {
	defer k.Conn.Close()
	m, err := openMapping(k.Memory)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.unmap()
		}
	}()
	c, err := net.FileConn(k.Conn)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	tcp, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%w: no connection belongs to it", errDamaged)
	}
	read, written, err := positions(tcp)
	if err != nil {
		return nil, err
	}
	if m.head.id != k.ID {
		return nil, fmt.Errorf("%w: it is another one's", errDamaged)
	}
	if m.head.tries.Add(1) > maxTries {
		return nil, errTries
	}
	x := &Conn{tcp: c, id: k.ID, m: m}
	if x.cfg, err = about(append([]byte(nil), m.info[:m.head.infoLen]...), c.RemoteAddr()); err != nil {
		return nil, err
	}
	if err := c.SetReadDeadline(time.Now()); err != nil { // all that goOn reads is in the memory
		return nil, err
	}
	if err := x.goOn(read, written); err != nil {
		return nil, err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	x.begin()
	return x, nil
}

// goOn takes the state that a checked memory has; read and written are the kernel's positions.
func (c *Conn) goOn(read, written uint64) (err error) {
	h := &c.m.head
	in, out := h.in.get(), h.out.get()
	n, sent := read-h.read-in.pos, written-h.written-out.pos
	switch {
	case n > uint64(inSize-in.at):
		return fmt.Errorf("%w: %d bytes were read", errDamaged, n)
	case sent > uint64(out.n):
		return fmt.Errorf("%w: %d of %d bytes were written", errDamaged, sent, out.n)
	}
	if c.key, err = tls13.NewKey(h.suite, in.secret[:tls13.SecretSize(h.suite)], in.seq); err != nil {
		return err
	}
	if c.wkey, err = tls13.NewKey(h.suite, out.secret[:tls13.SecretSize(h.suite)], out.seq); err != nil {
		return err
	}
	c.base, c.r, c.w, c.left = in.pos-uint64(in.at), int(in.at), int(in.at)+int(n), int(in.left)
	c.now = c.here()
	c.acted = c.now
	c.acted.skip = in.skip
	c.unsent = int(out.n) - int(sent)
	c.was = &before{channels: map[uint16]ChannelState{}, notes: c.notes()}
	for n, st := range c.m.channels {
		if st != Closed {
			c.was.channels[uint16(n)] = st
		}
	}
	if in.skip > 0 { // a part of the first record was acted upon
		if err := c.next(); err != nil {
			return err
		}
		if int(in.skip) > len(c.plain) {
			return fmt.Errorf("%w: what was acted upon", errDamaged)
		}
		c.plain, c.given = c.plain[in.skip:], uint64(in.skip)
	}
	return nil
}

// A process that a connection is the death of is no more than the first of so many, each of which dies sooner
// than in calmTime: after some 12 s, with the pauses of package supervise, the node does without it.
const (
	maxTries = 8
	calmTime = 5 * time.Second
)

// begin sends a frame now and then.
func (c *Conn) begin() {
	c.tmu.Lock()
	defer c.tmu.Unlock()
	if c.was != nil {
		c.calm = time.AfterFunc(calmTime, func() {
			c.nmu.Lock()
			defer c.nmu.Unlock()
			if !c.gone {
				c.m.head.tries.Store(0)
			}
		})
	}
	if c.cfg.KeepAlive != nil {
		c.timer = time.AfterFunc(c.cfg.Pause(), c.keep)
	}
}

func (c *Conn) keep() {
	if c.trySend(c.cfg.KeepAlive) != nil {
		return // the reader finds out too
	}
	c.tmu.Lock()
	defer c.tmu.Unlock()
	if c.timer != nil {
		c.timer.Reset(c.cfg.Pause())
	}
}

// stop ends what goes on by itself.
func (c *Conn) stop() {
	c.tmu.Lock()
	defer c.tmu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if c.calm != nil {
		c.calm.Stop()
	}
}

// ID is the same for each process that goes on with the connection, of 39 bits; 0: none will.
func (c *Conn) ID() uint64 {
	if c.cfg.Keep == nil {
		return 0
	}
	return c.id
}

// Close ends the session and the connection.
func (c *Conn) Close() error {
	var err error
	c.once.Do(func() {
		c.stop()
		err = c.tcp.SetWriteDeadline(time.Now().Add(closeTime)) // who is writing ends too
		cut := time.AfterFunc(2*closeTime, func() { c.tcp.Close() })
		c.end()
		cut.Stop()
		if c.cfg.Keep != nil {
			err = errors.Join(err, c.cfg.Keep.Drop(c.id))
		}
		if t, ok := c.tcp.(*net.TCPConn); ok {
			err = errors.Join(err, t.SetLinger(-1))
		}
		err = errors.Join(err, c.tcp.Close())
	})
	return err
}

// Free gives the memory back, after Close, when nobody reads any more.
func (c *Conn) Free() {
	c.Close() //nolint:errcheck // it is of no use any more
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.imu.Lock()
	defer c.imu.Unlock()
	c.nmu.Lock()
	defer c.nmu.Unlock()
	if !c.gone {
		c.gone, c.rerr = true, io.ErrClosedPipe
		c.m.unmap()
	}
}

// LocalAddr and the following are the connection's.
func (c *Conn) LocalAddr() net.Addr                { return c.tcp.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr               { return c.tcp.RemoteAddr() }
func (c *Conn) SetDeadline(t time.Time) error      { return c.tcp.SetDeadline(t) }
func (c *Conn) SetReadDeadline(t time.Time) error  { return c.tcp.SetReadDeadline(t) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.tcp.SetWriteDeadline(t) }
