package turnclient

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pion/turn/v5"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/pionlog"
	credentials "github.com/parley-jami/parley/internal/turn"
)

const (
	// openWithin bounds the try of one server.
	openWithin = 5 * time.Second
	// rto is the first wait for an answer (RFC 8489 §6.2.1); pion doubles it to 1.6 s, seven
	// times in all.
	rto = 250 * time.Millisecond
	// life is that of the node's own credentials: an allocation outlives calls.
	life = 24 * time.Hour
)

// Errors of allocating.
var (
	ErrNone = errors.New("no TURN server gave a relay")
	errName = errors.New("it has no address")
	errV4   = errors.New("it gave a relay that is not of IPv4")
)

// Client allocates on the servers of a list. It is safe for concurrent use.
type Client struct {
	cfg Config

	mu   sync.Mutex
	best map[bool]string // by TCP relay or not: the URL that served last
}

// Config makes a client.
type Config struct {
	List    *credentials.List
	Name    string        // of the process, in the user names of short-lived credentials
	TLS     *tls.Config   // of turns: servers; nil: the machine's authorities are trusted
	Look    time.Duration // how often an allocation is looked at; 0: every half minute
	Log     *zap.Logger
	Metrics *Metrics
}

// New makes a client.
func New(cfg Config) *Client {
	if cfg.Look == 0 {
		cfg.Look = lookEvery
	}
	return &Client{cfg: cfg, best: map[bool]string{}}
}

// server is one way to a server with its credentials.
type server struct {
	url  string
	at   credentials.Endpoint
	cred credentials.Credential
}

// servers returns the ways that can be used, those of datagrams before those of TCP, and those
// before TLS, but for the one that served last. A TCP relay is allocated over TCP alone
// (RFC 6062 §4.1), which servers have at the same port.
func (c *Client) servers(tcp bool) []server {
	list := credentials.List{Known: c.cfg.List.Known, Life: life}
	known, _ := list.For(c.cfg.Name+"-"+rand.Text()[:8], time.Now()) // quotas are each user's
	var out []server
	for _, k := range known {
		for _, u := range k.URLs {
			at, err := credentials.ParseURL(u)
			if err != nil {
				continue // of STUN alone, say: it is browsers that were sent there
			}
			if tcp && at.Transport == credentials.UDP {
				at.Transport = credentials.TCP
			}
			s := server{u, at, credentials.Credential{Username: k.Username, Password: k.Credential}}
			if !slices.ContainsFunc(out, func(o server) bool { return o.at == s.at && o.cred == s.cred }) {
				out = append(out, s)
			}
		}
	}
	c.mu.Lock()
	best := c.best[tcp]
	c.mu.Unlock()
	rank := map[credentials.Transport]int{credentials.UDP: 1, credentials.TCP: 2, credentials.TLS: 3}
	of := func(s server) int {
		if s.url == best {
			return 0
		}
		return rank[s.at.Transport]
	}
	slices.SortStableFunc(out, func(a, b server) int { return of(a) - of(b) })
	return out
}

// open tries the servers until one gives a relay. The error names what each did.
func (c *Client) open(ctx context.Context, tcp bool, allocate func(context.Context, *turn.Client, server) error) (*allocation, error) {
	errs := []error{ErrNone}
	for _, s := range c.servers(tcp) {
		a, err := c.try(ctx, s, tcp, allocate)
		if err == nil {
			c.mu.Lock()
			c.best[tcp] = s.url
			c.mu.Unlock()
			return a, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.url, err))
		c.cfg.Metrics.failed(tcp)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (c *Client) try(ctx context.Context, s server, tcp bool, allocate func(context.Context, *turn.Client, server) error) (*allocation, error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	base, far, err := c.connect(ctx, s)
	if err != nil {
		return nil, err
	}
	a := &allocation{url: s.url, base: &way{PacketConn: base, far: far}, lost: make(chan struct{}), stop: make(chan struct{}), m: c.cfg.Metrics, tcp: tcp, every: c.cfg.Look}
	a.cl, err = turn.NewClient(&turn.ClientConfig{TURNServerAddr: far.String(), STUNServerAddr: far.String(), Conn: a.base, Username: s.cred.Username,
		Password: s.cred.Password, RTO: rto, LoggerFactory: pionlog.Factory{Log: c.cfg.Log}, RequestedAddressFamily: turn.RequestedAddressFamilyIPv4})
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	a.wg.Go(a.read)
	if err := allocate(ctx, a.cl, s); err != nil {
		a.cl.Close()
		err = errors.Join(err, base.Close())
		a.wg.Wait()
		return nil, err
	}
	a.open()
	return a, nil
}

// connect opens the way to a server.
func (c *Client) connect(ctx context.Context, s server) (net.PacketConn, net.Addr, error) {
	if s.at.Transport == credentials.UDP {
		ip, err := resolve(ctx, s.at.Host)
		if err != nil {
			return nil, nil, err
		}
		network := "udp6"
		if ip.Is4() {
			network = "udp4"
		}
		conn, err := (&net.ListenConfig{}).ListenPacket(ctx, network, ":0")
		if err != nil {
			return nil, nil, err
		}
		return conn, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, s.at.Port)), nil
	}
	conn, err := c.stream(ctx, s.at)
	if err != nil {
		return nil, nil, err
	}
	return turn.NewSTUNConn(conn), conn.RemoteAddr(), nil
}

// stream opens a TCP connection to a server, with TLS where it wants that.
func (c *Client) stream(ctx context.Context, at credentials.Endpoint) (net.Conn, error) {
	ip, err := resolve(ctx, at.Host)
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort(ip.String(), strconv.Itoa(int(at.Port)))
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil || at.Transport != credentials.TLS {
		return conn, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.cfg.TLS != nil {
		conf = c.cfg.TLS.Clone()
	}
	conf.ServerName = at.Host
	t := tls.Client(conn, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return t, nil
}

// resolve returns an address of a host, one of IPv4 if it has one: Jami has relays of no other
// family.
func resolve(ctx context.Context, host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap(), nil
	}
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(list) == 0 {
		return netip.Addr{}, errName
	}
	i := max(0, slices.IndexFunc(list, func(a netip.Addr) bool { return a.Unmap().Is4() }))
	return list[i].Unmap(), nil
}
