package opendht

import (
	"context"
	crand "crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// socketBuffer is what the kernel is asked to keep for us: a large value comes as 52
// packets at once.
const socketBuffer = 4 << 20

// Options configure a node. Key and Log have to be set.
type Options struct {
	// Key signs what has no signature of its own, and gives the node its id.
	Key *rsa.PrivateKey
	// Listen is "host:port" for UDP. Without a host, both families listen on the port;
	// port 0 takes any. Empty: any port of both families.
	Listen    string
	Bootstrap []string // "host:port" or "host", port 4222
	Network   uint32   // 0: the public network
	Client    bool     // keeps nothing for others
	State     string   // file of nodes to start from the next time; empty: none
	LAN       bool     // finds and answers nodes in the local network
	// MaxStore bounds the bytes of others' values, Queries and HostQueries the queries a
	// second that are answered, in all and of one host; 0: what stock nodes have.
	MaxStore, Queries, HostQueries int
	Log                            *zap.Logger
}

// Node is one node of the network.
type Node struct {
	o    Options
	id   mapping.Signer
	log  *zap.Logger
	conn [2]*net.UDPConn // by family; nil: not there

	ctx  context.Context // ends the node's goroutines
	stop context.CancelFunc
	wg   sync.WaitGroup
	wake chan struct{} // the next time to look is sooner

	mu     sync.Mutex
	core   *core.Core
	next   time.Time // when core wants to be called
	closed bool
	own    map[ownKey]*owned
	bytes  int
	watch  map[overlay.Key]*watch
	fault  string // of the last packet that was not sent, told once
}

var _ overlay.Overlay = (*Node)(nil)

// New binds the ports and starts. Other nodes are met later; an address that is in use
// or is none is an error that names it.
func New(o Options) (*Node, error) {
	id, err := mapping.NewSigner(o.Key)
	if err != nil {
		return nil, err
	}
	n := &Node{o: o, id: id, log: o.Log, wake: make(chan struct{}, 1), own: map[ownKey]*owned{}, watch: map[overlay.Key]*watch{}}
	saved, err := loadState(o.State)
	if err != nil { // it is only a shortcut
		n.log.Warn("saved nodes not read; starting from the bootstrap nodes", zap.Error(err))
	}
	if n.conn, err = listen(o.Listen); err != nil {
		return nil, err
	}
	c := core.Config{ID: jami.NodeID(id.ID), Network: o.Network, Client: o.Client, IPv4: n.conn[0] != nil, IPv6: n.conn[1] != nil,
		MaxStore: o.MaxStore, Queries: o.Queries, HostQueries: o.HostQueries, Now: time.Now(), Send: n.send}
	if _, err := crand.Read(c.Seed[:]); err != nil {
		return nil, errors.Join(err, n.closeConns())
	}
	n.core = core.New(c)
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.do(func() { n.core.Saved(saved) })
	for _, conn := range n.conn {
		if conn != nil {
			n.wg.Go(func() { n.read(conn) })
		}
	}
	n.wg.Go(n.tick)
	if len(o.Bootstrap) > 0 {
		n.wg.Go(n.resolve)
	}
	if o.State != "" {
		n.wg.Go(n.save)
	}
	for f, conn := range n.conn {
		if o.LAN && conn != nil {
			n.wg.Go(func() { n.discover(f) })
		}
	}
	return n, nil
}

// listen opens a socket for each family of an address.
func listen(addr string) (conns [2]*net.UDPConn, err error) {
	if addr == "" {
		addr = ":0"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return conns, fmt.Errorf("opendht cannot listen on %q: %w; want host:port", addr, err)
	}
	if ip, perr := netip.ParseAddr(host); host != "" && perr != nil {
		return conns, fmt.Errorf("opendht cannot listen on %q: want an address, not a name", addr)
	} else if host != "" {
		f, network := 0, "udp4"
		if ip.Is6() && !ip.Is4In6() {
			f, network = 1, "udp6"
		}
		conns[f], err = listenOne(network, addr)
		return conns, err
	}
	if conns[0], err = listenOne("udp4", net.JoinHostPort("0.0.0.0", port)); err != nil {
		return conns, err
	}
	if port == "0" { // the same for both
		_, port, _ = net.SplitHostPort(conns[0].LocalAddr().String())
	}
	conns[1], err = listenOne("udp6", net.JoinHostPort("::", port))
	if err != nil { // a machine without IPv6
		conns[1] = nil
	}
	return conns, nil
}

func listenOne(network, addr string) (*net.UDPConn, error) {
	a, err := net.ResolveUDPAddr(network, addr)
	if err != nil {
		return nil, fmt.Errorf("opendht cannot listen on %q: %w", addr, err)
	}
	c, err := net.ListenUDP(network, a)
	if err != nil {
		return nil, fmt.Errorf("opendht cannot listen on UDP %q: %w; choose another port", addr, err)
	}
	// The kernel may give less than is asked for; large values then need more sendings.
	return c, errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer), stampArrivals(c))
}

// do runs fn with the core at the present time.
func (n *Node) do(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doLocked(fn)
}

func (n *Node) doLocked(fn func()) {
	n.core.Advance(time.Now())
	fn()
	n.advanceLocked()
}

// advanceLocked does what is due and has tick come at the next time.
func (n *Node) advanceLocked() {
	next := n.core.Advance(time.Now())
	sooner := n.next.IsZero() || next.Before(n.next)
	n.next = next
	if sooner {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

// tick calls the core when it wants to be.
func (n *Node) tick() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.wake:
		case <-t.C:
			n.mu.Lock()
			n.advanceLocked()
			n.mu.Unlock()
		}
		n.mu.Lock()
		d := time.Until(n.next)
		n.mu.Unlock()
		t.Reset(max(d, 0))
	}
}

// send is called by the core. A packet that the kernel does not take is lost, as any
// may be; the same error is told once.
func (n *Node) send(to netip.AddrPort, b []byte) {
	conn := n.conn[0]
	if to.Addr().Is6() {
		conn = n.conn[1]
	}
	if conn == nil {
		return
	}
	if _, err := conn.WriteToUDPAddrPort(b, to); err != nil && n.fault != err.Error() {
		n.fault = err.Error()
		n.log.Debug("packet not sent", zap.Stringer("to", to), zap.Error(err))
	}
}

// Bootstrap names are looked up again after this time while no node is known.
const resolveAgain = time.Minute

// resolve looks up the bootstrap names and hands them to the core; again while nobody
// is known.
func (n *Node) resolve() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
		}
		var addrs []netip.AddrPort
		for _, s := range n.o.Bootstrap {
			as, err := resolveOne(n.ctx, s)
			if err != nil && n.ctx.Err() == nil {
				n.log.Warn("bootstrap node not found (setting dht.opendht_bootstrap)", zap.String("node", s), zap.Error(err))
			}
			addrs = append(addrs, as...)
		}
		known := 0
		n.do(func() {
			if known = n.core.Counts().Good; known == 0 {
				n.core.Bootstrap(addrs)
			} else {
				n.core.SetBootstrap(addrs)
			}
		})
		t.Reset(resolveAgain)
		if len(addrs) > 0 && known > 0 {
			return // the core asks them again when it is alone
		}
	}
}

const defaultPort = "4222"

func resolveOne(ctx context.Context, s string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, defaultPort
	}
	p, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	out := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		out[i] = netip.AddrPortFrom(ip.Unmap(), uint16(p))
	}
	return out, nil
}

// Node describes this node.
func (n *Node) Node() overlay.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := overlay.Node{Overlay: "opendht", ID: n.id.ID.String(), Peers: n.core.Counts().Good}
	n.purgeLocked(time.Now())
	d.Stored = len(n.own)
	public := n.core.PublicAddrs()
	d.Public = public
	for _, c := range n.conn {
		if c == nil {
			continue
		}
		a := c.LocalAddr().(*net.UDPAddr).AddrPort()
		if ip := a.Addr(); ip.IsUnspecified() {
			for _, p := range public {
				if p.Is4() == ip.Is4() {
					a = netip.AddrPortFrom(p, a.Port())
				}
			}
		}
		d.Addresses = append(d.Addresses, a.String())
	}
	return d
}

// Stats returns what the node counted.
func (n *Node) Stats() core.Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.core.Stats()
}

func (n *Node) closeConns() error {
	var errs []error
	for _, c := range n.conn {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Close ends the node and waits for its goroutines.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	n.stop()
	err := n.closeConns()
	n.wg.Wait()
	if n.o.State != "" {
		n.mu.Lock()
		defer n.mu.Unlock()
		err = errors.Join(err, saveState(n.o.State, n.core.Good(stateMost)))
	}
	return err
}

// NodeKey reads the node's signing key, or makes one when there is no file.
func NodeKey(path string) (*rsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return newKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	k, err := jami.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("node key %s is damaged: %w; move it away to get a new one, and restart dht", path, err)
	}
	return k, nil
}
