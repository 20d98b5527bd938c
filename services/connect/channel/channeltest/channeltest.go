// Package channeltest makes channels in memory, for tests of who uses them.
package channeltest

import (
	"io"
	"net"
	"sync"

	"github.com/parley-jami/parley/services/connect/channel"
)

// Pipe returns both ends of a channel. near is what a service of this node gets, whose peer
// is the given one; far is the peer's.
func Pipe(name string, peer channel.Peer) (near, far *Channel) {
	done, once := make(chan struct{}), new(sync.Once)
	a, b := make(chan []byte, 256), make(chan []byte, 256)
	near = &Channel{name: name, peer: peer, in: a, out: b, done: done, once: once,
		local: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4225}, remote: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 40001}}
	far = &Channel{name: name, in: b, out: a, done: done, once: once, local: near.remote, remote: near.local}
	return near, far
}

// Channel is one end.
type Channel struct {
	name          string
	peer          channel.Peer
	in            <-chan []byte
	out           chan<- []byte
	done          chan struct{}
	once          *sync.Once
	local, remote net.Addr

	mu   sync.Mutex
	left []byte
}

// Name implements [channel.Channel].
func (c *Channel) Name() string { return c.name }

// Peer implements [channel.Channel].
func (c *Channel) Peer() channel.Peer { return c.peer }

// LocalAddr implements [channel.Channel].
func (c *Channel) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements [channel.Channel].
func (c *Channel) RemoteAddr() net.Addr { return c.remote }

// ReadMessage implements [channel.Channel].
func (c *Channel) ReadMessage() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.left; m != nil {
		c.left = nil
		return m, nil
	}
	select {
	case m := <-c.in:
		return m, nil
	default:
	}
	select {
	case m := <-c.in:
		return m, nil
	case <-c.done:
	}
	select {
	case m := <-c.in: // written before the end
		return m, nil
	default:
		return nil, io.EOF
	}
}

// Read implements [channel.Channel].
func (c *Channel) Read(p []byte) (int, error) {
	m, err := c.ReadMessage()
	if err != nil {
		return 0, err
	}
	n := copy(p, m)
	if n < len(m) {
		c.mu.Lock()
		c.left = m[n:]
		c.mu.Unlock()
	}
	return n, nil
}

// Write implements [channel.Channel].
func (c *Channel) Write(p []byte) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	default:
	}
	select {
	case c.out <- append([]byte{}, p...):
		return len(p), nil
	case <-c.done:
		return 0, net.ErrClosed
	}
}

// Close implements [channel.Channel].
func (c *Channel) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}
