package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/pion/transport/v5/reuseport"
	"github.com/pion/turn/v5"
)

// connectFor is how long a connection to a peer may take; RFC 6062 §5.2 wants 30 s at
// least.
const connectFor = 30 * time.Second

var (
	errPorts  = errors.New("all ports of the relay are taken (turn.ports)")
	errFamily = errors.New("the relay has no address of this family (turn.public)")
	// RFC 6062 §5.1: a TCP relay needs a connection of the client's. With UDP the whole
	// listener would also wait while a peer is being connected to.
	errUDPControl = errors.New("a TCP relay is not made over UDP")
)

// ports makes the relay sockets; it is pion's RelayAddressGenerator. It is safe for
// concurrent use.
type ports struct {
	relayOf map[string]netip.Addr // "4", "6" -> address that is told
	bindOf  map[string]netip.Addr
	span    Ports
	book    *book
	perSec  int
	peers   *Peers
	m       *Metrics
	streams bool // of a listener for connections

	taken *taken
}

// taken are the ports in use; those of UDP and TCP, and of both families, are apart.
type taken struct {
	mu sync.Mutex
	by map[string]map[uint16]struct{}
}

func newTaken() *taken { return &taken{by: map[string]map[uint16]struct{}{}} }

func (t *taken) take(network string, port uint16) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by[network] == nil {
		t.by[network] = map[uint16]struct{}{}
	}
	if _, in := t.by[network][port]; in {
		return false
	}
	t.by[network][port] = struct{}{}
	return true
}

func (t *taken) free(network string, port uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by[network], port)
}

// Validate implements turn.RelayAddressGenerator.
func (p *ports) Validate() error { return nil }

// guesses is how many random ports are tried before all are, one after the other:
// another program may have a long row of them.
const guesses = 64

// open finds a port, a random one so that it cannot be guessed, and opens it by try. A
// port that another program has is passed over.
func (p *ports) open(network string, want int, try func(netip.AddrPort) error) (netip.AddrPort, error) {
	family := network[len(network)-1:]
	told, bind := p.relayOf[family], p.bindOf[family]
	if !told.IsValid() {
		return netip.AddrPort{}, errFamily
	}
	var last error
	attempt := func(port uint16) bool {
		if !p.taken.take(network, port) {
			return false
		}
		if last = try(netip.AddrPortFrom(bind, port)); last == nil {
			return true
		}
		p.taken.free(network, port)
		return false
	}
	if want != 0 {
		if want > 0 && want <= 65535 && p.span.has(uint16(want)) && attempt(uint16(want)) {
			return netip.AddrPortFrom(told, uint16(want)), nil
		}
		p.m.refused(refusedPorts)
		return netip.AddrPort{}, errors.Join(errPorts, last)
	}
	size := int(p.span.Last) - int(p.span.First) + 1
	start := rand.IntN(size)
	for i := range guesses + size {
		n := start + i
		if i < guesses {
			n = rand.IntN(size)
		}
		if port := p.span.First + uint16(n%size); attempt(port) {
			return netip.AddrPortFrom(told, port), nil
		}
	}
	p.m.refused(refusedPorts)
	return netip.AddrPort{}, errors.Join(errPorts, last)
}

// AllocatePacketConn implements turn.RelayAddressGenerator.
func (p *ports) AllocatePacketConn(c turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	var conn *net.UDPConn
	at, err := p.open(c.Network, c.RequestedPort, func(at netip.AddrPort) (err error) {
		conn, err = net.ListenUDP(c.Network, net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	r := &packetRelay{UDPConn: conn, pipe: newPipe(p.perSec, p.peers, p.m), free: func() { p.taken.free(c.Network, at.Port()) }}
	r.pipe.close = r.Close
	told := net.UDPAddrFromAddrPort(at)
	if c.UserID != "" { // else a port is only being looked for
		p.book.made(told, r.pipe)
	}
	return r, told, nil
}

// AllocateListener implements turn.RelayAddressGenerator.
func (p *ports) AllocateListener(c turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	if !p.streams {
		return nil, nil, errUDPControl
	}
	// Connections to peers leave from the same port as theirs come to.
	lc := net.ListenConfig{Control: reuseport.Control}
	var l net.Listener
	at, err := p.open(c.Network, c.RequestedPort, func(at netip.AddrPort) (err error) {
		l, err = lc.Listen(context.Background(), c.Network, at.String())
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	r := &listenRelay{Listener: l, pipe: newPipe(p.perSec, p.peers, p.m), conns: map[*streamRelay]struct{}{},
		free: func() { p.taken.free(c.Network, at.Port()) }}
	r.pipe.close = r.Close
	told := net.TCPAddrFromAddrPort(at)
	p.book.listens(told, r)
	p.book.made(told, r.pipe)
	return r, told, nil
}

// AllocateConn implements turn.RelayAddressGenerator.
func (p *ports) AllocateConn(c turn.AllocateConnConfig) (net.Conn, error) {
	if !p.streams {
		return nil, errUDPControl
	}
	r := p.book.listener(c.LocalAddr)
	if r == nil {
		return nil, fmt.Errorf("no relay at %s", c.LocalAddr)
	}
	family := c.Network[len(c.Network)-1:]
	_, port, err := net.SplitHostPort(c.LocalAddr.String())
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.bindOf[family], uint16(n)))
	return r.dial(&net.Dialer{LocalAddr: from, Timeout: connectFor, Control: reuseport.Control}, c.Network, c.RemoteAddr)
}
