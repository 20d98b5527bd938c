package libp2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	golibp2p "github.com/libp2p/go-libp2p"
	kaddht "github.com/libp2p/go-libp2p-kad-dht"
	kadrecord "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/votes"
)

// protocolPrefix keeps this network apart from others of kad-dht.
const protocolPrefix = "/parley"

// Connections are trimmed to the low mark when they pass the high one.
const (
	connsLow  = 64
	connsHigh = 192
)

// Bootstrap peers are tried again after the first of these while no peer is
// known, doubling to the second.
const (
	bootstrapFirst = time.Second
	bootstrapMost  = 2 * time.Minute
)

// dialTime bounds one dial to a bootstrap peer.
const dialTime = 10 * time.Second

// Options configure a node. All but Key and Log may be zero.
type Options struct {
	Key       crypto.PrivKey
	Listen    string   // "host:port", TCP and QUIC; empty: only dials
	Bootstrap []string // multiaddrs with /p2p/
	Log       *zap.Logger
}

// Node is one peer of the overlay.
type Node struct {
	key     crypto.PrivKey
	host    host.Host
	kad     *kaddht.IpfsDHT
	boot    []peer.AddrInfo
	store   *store
	traffic *metrics.BandwidthCounter
	started time.Time
	log     *zap.Logger

	ctx  context.Context // ends the node's own goroutines
	stop context.CancelFunc
	wg   sync.WaitGroup
	wake chan struct{} // the own values' refresh times changed, or a peer came

	mu     sync.Mutex
	closed bool
	own    map[overlay.Key]*owned
	bytes  int // of own values
	count  int
	watch  map[overlay.Key]map[*watcher]struct{}
	seen   [2]votes.Votes // our address of IPv4 and of IPv6, as peers say
}

var _ overlay.Overlay = (*Node)(nil)

// New starts a node. It binds its ports and returns; peers are met later. An
// address in use is an error that names the setting.
func New(o Options) (*Node, error) {
	boot, err := parseBootstrap(o.Bootstrap)
	if err != nil {
		return nil, err
	}
	addrs, err := listenAddrs(o.Listen)
	if err != nil {
		return nil, err
	}
	cm, err := connmgr.NewConnManager(connsLow, connsHigh)
	if err != nil {
		return nil, fmt.Errorf("libp2p: %w", err)
	}
	traffic := metrics.NewBandwidthCounter()
	h, err := golibp2p.New(
		golibp2p.Identity(o.Key), golibp2p.ListenAddrs(addrs...), golibp2p.UserAgent("parley"),
		golibp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), golibp2p.Transport(quic.NewTransport), golibp2p.Security(noise.ID, noise.New),
		golibp2p.ConnectionManager(cm), golibp2p.DisableMetrics(), golibp2p.BandwidthReporter(traffic),
		// Nothing that talks to strangers about us: no relay, no AutoNAT, no probing
		// of observed addresses.
		golibp2p.DisableRelay(), golibp2p.ForceReachabilityPublic(), golibp2p.DisableIdentifyAddressDiscovery(),
	)
	if err != nil {
		return nil, fmt.Errorf("overlay cannot listen on %q (setting dht.listen): %w", o.Listen, err)
	}
	if got := h.Network().ListenAddresses(); len(got) < len(addrs) { // libp2p is content with one
		return nil, errors.Join(fmt.Errorf("overlay cannot listen on both TCP and UDP of %q (setting dht.listen), only on %v: "+
			"another program uses the port", o.Listen, got), h.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &Node{key: o.Key, host: h, boot: boot, store: newStore(maxStored, h.ID()), traffic: traffic, started: time.Now(), log: o.Log, ctx: ctx, stop: stop, wake: make(chan struct{}, 1),
		own: map[overlay.Key]*owned{}, watch: map[overlay.Key]map[*watcher]struct{}{}}
	n.kad, err = kaddht.New(h, kaddht.ProtocolPrefix(protocolPrefix), kaddht.Mode(kaddht.ModeServer),
		kaddht.Validator(kadrecord.NamespacedValidator{namespace: validator{time.Now}}), kaddht.Datastore(n.store),
		kaddht.MaxRecordAge(overlay.MaxLifetime+clockSlack), kaddht.ValueGCInterval(time.Hour))
	if err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("kad-dht: %w", err), h.Close())
	}
	met, err := h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("libp2p: %w", err), n.kad.Close(), h.Close())
	}
	n.wg.Go(func() { n.refresh(ctx) })
	n.wg.Go(func() { n.meet(ctx, met) })
	if len(boot) > 0 {
		n.wg.Go(func() { n.bootstrap(ctx) })
	}
	return n, nil
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
	err := errors.Join(n.kad.Close(), n.host.Close())
	n.wg.Wait()
	return err
}

// Node describes this node.
func (n *Node) Node() overlay.Node {
	d := overlay.Node{Overlay: "libp2p", ID: n.host.ID().String(), Peers: n.kad.RoutingTable().Size()}
	for _, a := range n.host.Addrs() {
		d.Addresses = append(d.Addresses, a.String()+"/p2p/"+d.ID)
	}
	n.mu.Lock()
	d.Stored = n.count
	for i := range n.seen {
		if a := n.seen[i].Most(); a.IsValid() {
			d.Public = append(d.Public, a)
		}
	}
	n.mu.Unlock()
	return d
}

// A peer enters the routing table a little after its identification: it is looked
// for that often and long.
const (
	meetEvery = 250 * time.Millisecond
	meetTries = 20
)

// meet hands own values on when a peer comes that may be the first.
func (n *Node) meet(ctx context.Context, sub event.Subscription) {
	defer func() {
		if err := sub.Close(); err != nil {
			n.log.Debug("event subscription", zap.Error(err))
		}
	}()
	t := time.NewTimer(0)
	defer t.Stop()
	tries := 0
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-sub.Out():
			if !ok {
				return
			}
			n.observe(e)
			tries = meetTries
		case <-t.C:
			tries--
		}
		switch {
		case n.kad.RoutingTable().Size() > 0:
			n.poke()
			tries = 0
		case tries > 0:
			t.Reset(meetEvery)
		}
	}
}

// observe notes what a peer says of our address.
func (n *Node) observe(e any) {
	met, ok := e.(event.EvtPeerIdentificationCompleted)
	if !ok || met.ObservedAddr == nil || met.Conn == nil {
		return
	}
	said, by := hostOf(met.ObservedAddr), hostOf(met.Conn.RemoteMultiaddr())
	if !said.IsValid() || !by.IsValid() {
		return
	}
	family := 0
	if said.Is6() {
		family = 1
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen[family].Add(by, said)
}

// hostOf returns the IP address in a multiaddr; invalid: there is none.
func hostOf(m multiaddr.Multiaddr) netip.Addr {
	ip, err := manet.ToIP(m)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// poke makes refresh look again.
func (n *Node) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// bootstrap dials the given peers while the routing table is empty.
func (n *Node) bootstrap(ctx context.Context) {
	wait := bootstrapFirst
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if n.kad.RoutingTable().Size() > 0 {
			wait = bootstrapFirst
			t.Reset(bootstrapMost)
			continue
		}
		for _, p := range n.boot {
			dctx, cancel := context.WithTimeout(ctx, dialTime)
			err := n.host.Connect(dctx, p)
			cancel()
			if err != nil && ctx.Err() == nil {
				n.log.Warn("bootstrap peer not reached (setting dht.bootstrap)", zap.Stringer("peer", p.ID), zap.Error(err),
					zap.Duration("again_in", wait))
			}
		}
		t.Reset(wait)
		wait = min(2*wait, bootstrapMost)
	}
}

func parseBootstrap(in []string) ([]peer.AddrInfo, error) {
	out := make([]peer.AddrInfo, 0, len(in))
	for _, s := range in {
		p, err := peer.AddrInfoFromString(s)
		if err != nil {
			return nil, fmt.Errorf("dht.bootstrap %q: want a multiaddr with /p2p/, such as /ip4/192.0.2.1/tcp/4222/p2p/12D3…: %w", s, err)
		}
		out = append(out, *p)
	}
	return out, nil
}

// listenAddrs turns host:port into the multiaddrs of TCP and QUIC.
func listenAddrs(listen string) ([]multiaddr.Multiaddr, error) {
	if listen == "" {
		return nil, nil
	}
	hostname, port, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("dht.listen %q: %w", listen, err)
	}
	family := "ip4"
	switch ip := net.ParseIP(hostname); {
	case hostname == "":
		hostname = "0.0.0.0"
	case ip == nil:
		return nil, fmt.Errorf("dht.listen %q: want an address, not a name", listen)
	case strings.Contains(hostname, ":"):
		family = "ip6"
	}
	var out []multiaddr.Multiaddr
	for _, s := range []string{"tcp/" + port, "udp/" + port + "/quic-v1"} {
		a, err := multiaddr.NewMultiaddr("/" + family + "/" + hostname + "/" + s)
		if err != nil {
			return nil, fmt.Errorf("dht.listen %q: %w", listen, err)
		}
		out = append(out, a)
	}
	return out, nil
}
