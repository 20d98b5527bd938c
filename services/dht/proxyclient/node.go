package proxyclient

import (
	"context"
	"crypto/rsa"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Options configure a node. Key, Servers and Log have to be set.
type Options struct {
	// Key signs what has no signature of its own, and gives the node its id.
	Key *rsa.PrivateKey
	// Servers are the proxies' URLs, as internal/proxyurl reads them, the preferred first.
	Servers []string
	CA      string // PEM file of who certifies the proxies; empty: the system's authorities
	Log     *zap.Logger

	dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil: the network's
}

// Node is one client of proxies.
type Node struct {
	id      mapping.Signer
	log     *zap.Logger
	http    *http.Client
	servers []*server
	started time.Time

	ctx  context.Context // ends the node's goroutines
	stop context.CancelFunc
	wg   sync.WaitGroup
	poke chan struct{} // a proxy is to be looked at
	kick chan struct{} // there is something to put

	mu     sync.Mutex
	closed bool
	cur    int           // index of the proxy in use
	up     bool          // it answers
	since  time.Time     // when up, or which proxy is in use, last changed
	peers  int           // that it knows
	moved  chan struct{} // closed when another proxy, or the same after a while, is in use
	reput  time.Time     // when permanent values were put anew
	own    ownValues
	watch  map[overlay.Key]*watch
}

var _ overlay.Overlay = (*Node)(nil)

// New starts. Proxies are met later; settings that cannot be used are an error.
func New(o Options) (*Node, error) {
	id, err := mapping.NewSigner(o.Key)
	if err != nil {
		return nil, err
	}
	n := &Node{id: id, log: o.Log, poke: make(chan struct{}, 1), kick: make(chan struct{}, 1), moved: make(chan struct{}),
		own: ownValues{keys: map[overlay.Key]map[uint64]*owned{}}, watch: map[overlay.Key]*watch{}}
	if n.servers, err = parseServers(o.Servers); err != nil {
		return nil, err
	}
	if n.http, err = newHTTP(o.CA, o.dial); err != nil {
		return nil, err
	}
	n.started = time.Now()
	n.since = n.started
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.wg.Go(n.monitor)
	n.wg.Go(n.keeper)
	return n, nil
}

// Node describes this node. Its address is that of the proxy in use, none while no proxy
// answers; its peers are the proxy's.
func (n *Node) Node() overlay.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.purgeLocked(time.Now())
	d := overlay.Node{Overlay: "proxy", ID: n.id.ID.String(), Peers: n.peers, Stored: n.own.count}
	if n.up {
		d.Addresses = []string{n.servers[n.cur].url}
	}
	return d
}

// Close ends the node and waits for its goroutines. What it put stays with the proxy.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.stop()
	n.wg.Wait()
	n.http.CloseIdleConnections()
	return nil
}

// enter counts a call that Close waits for.
func (n *Node) enter() (leave func(), err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, overlay.ErrClosed
	}
	n.wg.Add(1)
	return n.wg.Done, nil
}

// during returns a context that ends with ctx, after d, or when the node does.
func (n *Node) during(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d)
	stop := context.AfterFunc(n.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// why returns the error of a call that could not be completed.
func (n *Node) why(err error) error {
	if n.ctx.Err() != nil {
		return overlay.ErrClosed
	}
	return err
}

// signal wakes who reads c, once for all signals since it last did.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Get finds the values of a key.
func (n *Node) Get(ctx context.Context, key overlay.Key) ([]overlay.Value, error) {
	leave, err := n.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := n.during(ctx, getTime)
	defer cancel()
	now := time.Now()
	all := mapping.Set{}
	err = n.try(ctx, func(ctx context.Context, base string) error {
		_, err := n.fetch(ctx, base, key, all.Merge)
		return err
	})
	if err != nil && (n.ctx.Err() != nil || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)) {
		return nil, n.why(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range all {
		n.staleLocked(&f)
	}
	n.own.over(all, key, now)
	return slices.Clip(all.Sorted()), nil
}
