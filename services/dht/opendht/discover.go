package opendht

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// LAN discovery (§1.6): who looks for nodes sends "q" to the group, who is one says
// where, to all at its start and to those who ask.
const (
	lanAgain = time.Minute // between two questions
	lanMost  = 2048        // bytes of a packet
	lanMeets = 16          // nodes that are asked between two questions
)

// lanGroups are where they do it, by family.
var lanGroups = [2]struct{ network, addr string }{{"udp4", "239.192.0.1:8888"}, {"udp6", "[ff08::101]:8888"}}

// discover asks and answers in the local network in one family until the node ends.
func (n *Node) discover(family int) {
	log := n.log.Warn
	for {
		err := n.discoverOnce(n.ctx, family)
		if n.ctx.Err() != nil {
			return
		}
		log("nodes of the local network not looked for; trying again every minute", zap.String("family", lanGroups[family].network), zap.Error(err))
		log = n.log.Debug // it was said
		select {
		case <-n.ctx.Done():
			return
		case <-time.After(lanAgain):
		}
	}
}

func (n *Node) discoverOnce(ctx context.Context, family int) error {
	conn, err := joinLAN(family)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, lanMost)
	hello := wire.Hello{ID: jami.NodeID(n.id.ID), Port: uint16(n.conn[family].LocalAddr().(*net.UDPAddr).Port), Network: n.o.Network}.Append(nil)
	if err := conn.tell(hello); err != nil {
		return err
	}
	var asked time.Time
	meets := 0
	for ctx.Err() == nil {
		if time.Since(asked) >= lanAgain {
			asked, meets = time.Now(), 0
			if err := conn.tell(wire.HelloQuestion()); err != nil {
				return err
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(lanAgain)); err != nil {
			return err
		}
		size, from, err := conn.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
			continue
		case err != nil:
			return err
		}
		h, asks, err := wire.ParseHello(b[:size])
		switch {
		case err != nil:
			n.log.Debug("announcement in the local network", zap.Stringer("from", from), zap.Error(err))
		case asks:
			if _, err := conn.WriteToUDPAddrPort(hello, from); err != nil {
				n.log.Debug("announcement not sent", zap.Stringer("to", from), zap.Error(err))
			}
		case h.Network == n.o.Network && h.ID != jami.NodeID(n.id.ID) && meets < lanMeets && !from.Addr().IsLinkLocalUnicast(): // those are nobody's address in the DHT (§1.3)
			meets++
			n.do(func() { n.core.Meet(netip.AddrPortFrom(from.Addr().Unmap(), h.Port)) })
		}
	}
	return ctx.Err()
}

// lanLinks bounds the interfaces that are looked at.
const lanLinks = 16

// lan is the group in one family, on all interfaces that have multicast.
type lan struct {
	*net.UDPConn
	family int
	group  *net.UDPAddr
	links  []net.Interface
}

// joinLAN joins it. The group reaches other nodes of this host, too.
func joinLAN(family int) (*lan, error) {
	network := lanGroups[family].network
	group, err := net.ResolveUDPAddr(network, lanGroups[family].addr)
	if err != nil {
		return nil, err
	}
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	l := &lan{family: family, group: group}
	if l.UDPConn, err = net.ListenMulticastUDP(network, nil, group); err != nil {
		return nil, err
	}
	p4, p6 := ipv4.NewPacketConn(l), ipv6.NewPacketConn(l)
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 || len(l.links) >= lanLinks {
			continue
		}
		var err error
		if family == 0 {
			err = p4.JoinGroup(&i, group)
		} else {
			err = p6.JoinGroup(&i, group)
		}
		if err == nil || errors.Is(err, syscall.EADDRINUSE) { // the one that the system chose
			l.links = append(l.links, i)
		}
	}
	if family == 0 {
		err = p4.SetMulticastLoopback(true)
	} else {
		err = p6.SetMulticastLoopback(true)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// tell sends to the group on all interfaces; the error is the last one when none took it.
func (l *lan) tell(b []byte) error {
	err, sent := errors.New("no interface has multicast"), false
	for _, i := range l.links {
		if l.family == 0 {
			err = ipv4.NewPacketConn(l).SetMulticastInterface(&i)
		} else {
			err = ipv6.NewPacketConn(l).SetMulticastInterface(&i)
		}
		if err == nil {
			_, err = l.WriteToUDP(b, l.group)
		}
		sent = sent || err == nil
	}
	if sent {
		return nil
	}
	return err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
