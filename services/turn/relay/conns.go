package relay

import (
	"errors"
	"net"
	"sync"
	"time"
)

// strangerBytes is what a TCP connection may send before its first credential was
// right: a few requests.
const strangerBytes = 8 << 10

// stuckFor is how long a write may wait for a far end that does not read.
const stuckFor = 20 * time.Second

var errStranger = errors.New("a connection without a credential sent too much")

// conns are the open TCP connections. It is safe for concurrent use.
type conns struct {
	patience time.Duration // with a connection without a credential

	mu     sync.Mutex
	open   map[endpoints]*conn
	closed bool
	wg     sync.WaitGroup
}

func newConns(patience time.Duration) *conns {
	return &conns{patience: patience, open: map[endpoints]*conn{}}
}

// listener makes each connection of a listener a [conn]. A TLS handshake is part of the
// first read, so that a connection cannot stay by never finishing it.
type listener struct {
	net.Listener
	conns *conns
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if k := l.conns.add(c); k != nil {
			return k, nil
		}
		c.Close() // the server ends
	}
}

func (cs *conns) add(c net.Conn) *conn {
	k := &conn{Conn: c, of: cs, at: endpointsOf(c.RemoteAddr(), c.LocalAddr())}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return nil
	}
	k.stranger(time.Now())
	cs.open[k.at] = k
	cs.wg.Add(1)
	return k
}

// known says that the credential of a client was right.
func (cs *conns) known(client, server net.Addr) {
	if c := cs.find(client, server); c != nil {
		c.befriend()
	}
}

// over says that a client's allocation has ended.
func (cs *conns) over(client, server net.Addr) {
	if c := cs.find(client, server); c != nil {
		c.stranger(time.Now())
	}
}

func (cs *conns) find(client, server net.Addr) *conn {
	if client.Network() != "tcp" {
		return nil
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.open[endpointsOf(client, server)]
}

// close ends all connections and waits until their readers have gone.
func (cs *conns) close() {
	cs.mu.Lock()
	cs.closed = true
	all := make([]*conn, 0, len(cs.open))
	for _, c := range cs.open {
		all = append(all, c)
	}
	cs.mu.Unlock()
	for _, c := range all {
		c.Close() // an error: it was closed already
	}
	cs.wg.Wait()
}

// conn is a client's connection. Without a right credential it ends soon.
type conn struct {
	net.Conn
	of   *conns
	at   endpoints
	once sync.Once

	mu     sync.Mutex
	friend bool
	read   int // bytes, as a stranger
}

func (c *conn) stranger(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.friend, c.read = false, 0
	c.SetReadDeadline(now.Add(c.of.patience)) // an error: it is closed
}

func (c *conn) befriend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.friend {
		c.friend = true
		c.SetReadDeadline(time.Time{}) // an error: it is closed
	}
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.friend {
		if c.read += n; c.read > strangerBytes {
			return 0, errStranger
		}
	}
	return n, err
}

// Write ends a connection that takes nothing any more: what follows a part of a frame
// would not be understood.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(stuckFor)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		c.Close() // the error that counts is the one of the write
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.of.mu.Lock()
		if c.of.open[c.at] == c { // else the same ends are connected anew
			delete(c.of.open, c.at)
		}
		c.of.mu.Unlock()
		c.of.wg.Done()
	})
	return err
}
