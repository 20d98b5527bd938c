package icetcp

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/ice"
)

// keepAlive is how often an indication is sent, at least, and how much later at most (§1.4).
const (
	keepAlive       = 20 * time.Second
	keepAliveSpread = 4 * time.Second
)

// Conn is a byte stream in the frames of the connection that both sides agreed on. One
// goroutine reads; writing is safe for several.
type Conn struct {
	*framed
	s *ice.Side
}

func newConn(p *path) *Conn {
	c := &Conn{framed: p.framed, s: p.s}
	c.s.Remote.Candidates, c.s.Local.Candidates = nil, nil // of no use any more
	c.linger(0)
	return c
}

// indication is the same one each time: nothing answers it.
var indication = sync.OnceValue(func() []byte {
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication), stun.Fingerprint)
	if err != nil {
		return nil
	}
	return m.Raw
})

// Read reads bytes of the stream. Checks that come late are answered on the way.
func (c *Conn) Read(p []byte) (int, error) {
	for c.left == 0 {
		m, err := c.next()
		if err != nil {
			return 0, err
		}
		if m == nil || m.Type != stun.BindingRequest || c.s.Admit(m) != nil {
			continue
		}
		out, _, err := c.s.Answer(m, addrOf(c.RemoteAddr()))
		if err == nil {
			err = c.trySend(out.Raw)
		}
		if err != nil {
			return 0, err
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.r.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// Write writes p as one frame, or as several where it is longer than one may be.
func (c *Conn) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		b := p[:min(len(p), maxFrame)]
		if err := c.send(b); err != nil {
			return n, err
		}
		n += len(b)
		p = p[len(b):]
	}
	return n, nil
}

// linger has a process that is killed reset the connection (0 s): a stock device passes over the end of a stream, and
// would find out with its next keep-alive. An orderly end is none of that (-1 s).
func (c *Conn) linger(seconds int) {
	if t, ok := c.framed.Conn.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(seconds) //nolint:errcheck // then it ends as any
	}
}

// Taken is a connection of which somebody else goes on with the frames.
type Taken struct {
	Conn   net.Conn
	Early  []byte // what was read of it already
	Left   int    // how many bytes of a frame are to come, those of Early counted
	Checks *ice.Side
}

// Take gives the connection away. Nobody reads or writes then, and the Conn is of no use any more.
func (c *Conn) Take() (Taken, error) {
	early := make([]byte, c.r.Buffered())
	_, err := io.ReadFull(c.r, early)
	return Taken{Conn: c.framed.Conn, Early: early, Left: c.left, Checks: c.s}, err
}

// KeepAlive is the STUN message that keeps what is between the two devices from forgetting the connection:
// who has taken it sends one after each [KeepAlivePause].
func KeepAlive() []byte { return indication() }

// KeepAlivePause is between two of them.
func KeepAlivePause() time.Duration { return keepAlive + rand.N(keepAliveSpread) }

// Close closes the connection.
func (c *Conn) Close() error {
	c.linger(-1)
	return c.Conn.Close()
}

var _ net.Conn = (*Conn)(nil)
