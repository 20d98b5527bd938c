package limits

import (
	"net"
	"net/netip"
	"testing"
)

// from is a connection of another address.
type from struct {
	net.Conn
	addr net.Addr
}

func (c *from) RemoteAddr() net.Addr { return c.addr }

// crowd accepts connections of chosen addresses.
type crowd struct {
	net.Listener
	next   []string
	closed int
}

func (l *crowd) Accept() (net.Conn, error) {
	if len(l.next) == 0 {
		return nil, net.ErrClosed
	}
	a := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(l.next[0]))
	l.next = l.next[1:]
	return &counted{from{addr: a}, l}, nil
}

type counted struct {
	from
	l *crowd
}

func (c *counted) Close() error { c.l.closed++; return nil }

func TestConnectionsOfOneAddress(t *testing.T) {
	in := &crowd{}
	const connsPerAddress, connsMax = 64, 4096
	l := Listener{in, NewPlaces(connsPerAddress, connsMax), nil}
	accept := func(n int, addr string) (out []net.Conn) {
		for range n {
			in.next = append(in.next, addr)
		}
		for {
			c, err := l.Accept()
			if err != nil {
				return out
			}
			out = append(out, c)
		}
	}
	first := accept(100, "[2001:db8::1]:1")
	if len(first) != connsPerAddress || in.closed != 100-connsPerAddress {
		t.Errorf("%d accepted, %d closed", len(first), in.closed)
	}
	if n := len(accept(10, "[2001:db8::ffff]:1")); n != 0 {
		t.Errorf("the same /64 gets %d", n)
	}
	if n := len(accept(10, "192.0.2.1:1")); n != 10 {
		t.Errorf("another gets %d", n)
	}
	for range 2 { // closing twice frees one place
		if err := first[0].Close(); err != nil {
			t.Error(err)
		}
	}
	if n := len(accept(5, "[2001:db8::2]:1")); n != 1 {
		t.Errorf("after a close %d are accepted", n)
	}
	if n := len(accept(2*connsMax, "127.0.0.1:1")); n != connsMax-connsPerAddress-10 {
		t.Errorf("this host gets %d", n)
	}
}
