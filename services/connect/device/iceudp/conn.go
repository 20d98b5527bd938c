package iceudp

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/ice"
)

// Times of consent (RFC 7675 §5.1).
const (
	consentEvery = 5 * time.Second // within a fifth of it
	consentLasts = 30 * time.Second
)

// Bounds of datagrams that are not read yet; what is above them is lost.
const (
	maxKept      = 2 << 20 // bytes
	maxKeptCount = 4096
)

// ErrConsent says that the peer has not answered for half a minute.
var ErrConsent = errors.New("the device does not answer by UDP any more")

// errOther says that the peer's address is used for another connection now.
var errOther = errors.New("another connection came from the device's address")

// Conn is a path: each Write is a datagram, each Read takes one. It is safe for concurrent use.
type Conn struct {
	p    *Port
	own  bool
	name string
	side *ice.Side
	addr netip.AddrPort
	here net.Addr // this side's end

	mu       sync.Mutex
	more     *sync.Cond
	in       [][]byte
	size     int
	why      error // nil: open
	deadline time.Time
	alarm    *time.Timer
	consent  time.Time // when the peer answered last
	asked    []transaction
	timer    *time.Timer
}

// connected makes a path of an agent's attempt.
func (p *Port) connected(a *Agent, s *ice.Side, addr netip.AddrPort) (*Conn, error) {
	name := s.Local.Ufrag
	s.Remote.Candidates, s.Local.Candidates = nil, nil // of no use any more
	c := &Conn{p: p, own: a.own, name: name, side: s, addr: addr, here: p.end(addr), consent: time.Now()}
	c.more = sync.NewCond(&c.mu)
	p.mu.Lock()
	if p.closed || p.names[name] != owner(a) {
		p.mu.Unlock()
		return nil, net.ErrClosed
	}
	p.names[name] = c
	had := p.conns[addr]
	p.conns[addr] = c
	for _, b := range p.early[addr] {
		c.put(b)
	}
	p.mu.Unlock()
	if had != nil { // who made the checks has the address now
		had.end(errOther)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.timer = time.AfterFunc(consentPause(), c.ask)
	}
	return c, nil
}

// end is this side's end of a path: the socket may be bound to all addresses, and the kernel
// knows which it takes.
func (p *Port) end(to netip.AddrPort) net.Addr {
	bound := p.addr()
	if !bound.Addr().IsUnspecified() {
		return net.UDPAddrFromAddrPort(bound)
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) // nothing is sent
	if err != nil {
		return net.UDPAddrFromAddrPort(bound)
	}
	defer c.Close()
	if u, ok := c.LocalAddr().(*net.UDPAddr); ok {
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(u.AddrPort().Addr().Unmap(), bound.Port()))
	}
	return net.UDPAddrFromAddrPort(bound)
}

func consentPause() time.Duration {
	return consentEvery*4/5 + rand.N(consentEvery*2/5)
}

// ask asks the peer for its consent.
func (c *Conn) ask() {
	m, err := c.side.Check(false)
	if err != nil {
		c.end(err)
		return
	}
	c.mu.Lock()
	if c.why != nil {
		c.mu.Unlock()
		return
	}
	if time.Since(c.consent) > consentLasts {
		c.mu.Unlock()
		c.end(ErrConsent)
		return
	}
	var old []transaction
	if len(c.asked) >= 4 {
		old = append(old, c.asked[0])
		c.asked = c.asked[1:]
	}
	c.asked = append(c.asked, m.TransactionID)
	c.timer.Reset(consentPause())
	c.mu.Unlock()
	c.p.forget(old...)
	c.p.begin(m, c, c.addr)
}

// heard implements owner: the peer's checks are answered, its answers are its consent.
func (c *Conn) heard(m *stun.Message, from netip.AddrPort) error {
	if m.Type == stun.BindingRequest {
		if err := c.side.Admit(m); err != nil {
			return err
		}
		out, _, err := c.side.Answer(m, from)
		if err == nil {
			c.p.send(out.Raw, from)
		}
		return err
	}
	if from != c.addr {
		return ice.ErrAnswer
	}
	if err := c.side.Answered(m); err != nil {
		return err
	}
	c.p.forget(m.TransactionID)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consent = time.Now()
	return nil
}

// put keeps a datagram for the reader.
func (c *Conn) put(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil || len(c.in) >= maxKeptCount || c.size+len(b) > maxKept {
		return
	}
	c.in = append(c.in, append([]byte(nil), b...))
	c.size += len(b)
	c.more.Signal()
}

// Read implements net.Conn. What of a datagram is longer than b is lost.
func (c *Conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(c.in) > 0:
			d := c.in[0]
			c.in[0] = nil
			if c.in = c.in[1:]; len(c.in) == 0 {
				c.in = nil
			}
			c.size -= len(d)
			return copy(b, d), nil
		case c.why != nil:
			return 0, c.why
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		c.more.Wait()
	}
}

// Write implements net.Conn. A datagram that the network does not take is lost, as any may be.
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	why := c.why
	c.mu.Unlock()
	if why != nil {
		return 0, why
	}
	if len(b) > maxDatagram {
		return 0, fmt.Errorf("a datagram of %d bytes: %w", len(b), io.ErrShortWrite)
	}
	c.p.send(b, c.addr)
	return len(b), nil
}

// Close implements net.Conn. It may be called more than once.
func (c *Conn) Close() error {
	c.end(net.ErrClosed)
	return nil
}

// end ends the path for a reason; the first one stays.
func (c *Conn) end(why error) {
	c.mu.Lock()
	if c.why != nil {
		c.mu.Unlock()
		return
	}
	c.why = why
	asked := c.asked
	for _, t := range []*time.Timer{c.timer, c.alarm} {
		if t != nil {
			t.Stop()
		}
	}
	c.more.Broadcast()
	c.mu.Unlock()
	c.p.forget(asked...)
	c.p.mu.Lock()
	if c.p.conns[c.addr] == c {
		delete(c.p.conns, c.addr)
	}
	if c.p.names[c.name] == owner(c) {
		delete(c.p.names, c.name)
	}
	c.p.mu.Unlock()
	if c.own {
		c.p.close()
	}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.here }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

// SetDeadline implements net.Conn; writing never waits.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil {
		return c.why
	}
	c.deadline = t
	if c.alarm != nil {
		c.alarm.Stop()
		c.alarm = nil
	}
	if !t.IsZero() {
		c.alarm = time.AfterFunc(time.Until(t), c.wake)
	}
	c.more.Broadcast()
	return nil
}

func (c *Conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.more.Broadcast()
}

// SetWriteDeadline implements net.Conn; writing never waits.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

var _ net.Conn = (*Conn)(nil)
