package turn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/turn"
	"github.com/parley-jami/parley/services/turn/relay"
)

// connsAll bounds the TCP connections of all clients: of a TCP relay each peer is one
// more.
const connsAll = 20_000

// Service is the relay.
type Service struct{ env *host.Env }

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) { return &Service{env: env}, nil }

// Run serves until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	cfg, err := s.configure()
	if err != nil {
		return err
	}
	if err := s.open(&cfg); err != nil {
		return errors.Join(err, closeAll(&cfg))
	}
	srv, err := relay.New(cfg)
	if err != nil {
		return errors.Join(err, closeAll(&cfg))
	}
	fields := []zap.Field{zap.Stringer("address", cfg.UDP[0].LocalAddr()), zap.String("realm", cfg.Realm), zap.String("ports", s.env.Config.TURN.Ports)}
	var relays []string
	for _, a := range cfg.Addresses {
		relays = append(relays, a.Public.String())
	}
	fields = append(fields, zap.Strings("relays", relays))
	if len(cfg.TLS) > 0 {
		fields = append(fields, zap.Stringer("tls", cfg.TLS[0].Addr()))
	}
	s.env.Log.Info("relaying", fields...)
	s.env.SetReady(true)
	return srv.Run(ctx)
}

// configure reads everything that needs no socket.
func (s *Service) configure() (cfg relay.Config, err error) {
	c := s.env.Config.TURN
	secret, err := turn.Secret(s.env.Config)
	if err != nil {
		return cfg, err
	}
	if cfg.Users, err = relay.NewUsers(secret, c.UsersFile, s.env.Log); err != nil {
		return cfg, fmt.Errorf("turn.users_file: %w", err)
	}
	if cfg.Addresses, err = addresses(c.Public); err != nil {
		return cfg, err
	}
	first, last, _ := config.PortRange(c.Ports) // its syntax was checked
	cfg.Ports = relay.Ports{First: first, Last: last}
	var public []netip.Addr
	for _, a := range cfg.Addresses {
		public = append(public, a.Public)
	}
	if cfg.Peers, err = relay.NewPeers(c.AllowPeers, public, cfg.Ports, mediaPorts(s.env.Config.Media.Listen)); err != nil {
		return cfg, fmt.Errorf("turn.allow_peers: %w", err)
	}
	if cfg.Metrics, err = relay.NewMetrics(s.env.Registry); err != nil {
		return cfg, err
	}
	if c.TLSListen != "" {
		if cfg.TLSConfig, err = certs.Given(c.Cert, c.Key); err != nil {
			return cfg, fmt.Errorf("turn.cert, turn.key: %w", err)
		}
		cfg.TLSConfig.MinVersion = tls.VersionTLS12
	}
	cfg.Realm, cfg.Log, cfg.Strangers = c.Realm, s.env.Log, relay.DefaultStrangers
	cfg.ConnsEach, cfg.ConnsAll = c.AddressQuota, connsAll
	cfg.Quotas = relay.Quotas{User: c.UserQuota, Address: c.AddressQuota, All: c.Quota, Lifetime: time.Duration(c.Lifetime) * time.Hour}
	cfg.Bandwidth = c.Bandwidth * 1000 / 8
	return cfg, nil
}

func (s *Service) open(cfg *relay.Config) error {
	c := s.env.Config.TURN
	l, err := sockets.Listen(sockets.Spec{Name: "turn", Network: "tcp", Addr: c.Listen, Setting: "turn.listen"})
	if err != nil {
		return err
	}
	cfg.TCP = append(cfg.TCP, l)
	// With port 0 UDP gets the port of TCP: clients are told one.
	h, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	u, err := sockets.UDP("turn", net.JoinHostPort(h, port))
	if err != nil {
		return fmt.Errorf("turn.listen: %w", err)
	}
	cfg.UDP = append(cfg.UDP, u)
	if c.TLSListen == "" {
		return nil
	}
	if l, err = sockets.Listen(sockets.Spec{Name: "turns", Network: "tcp", Addr: c.TLSListen, Setting: "turn.tls_listen"}); err != nil {
		return err
	}
	cfg.TLS = append(cfg.TLS, l)
	return nil
}

func closeAll(cfg *relay.Config) (err error) {
	for _, c := range cfg.UDP {
		err = errors.Join(err, c.Close())
	}
	for _, l := range append(cfg.TCP, cfg.TLS...) {
		err = errors.Join(err, l.Close())
	}
	return err
}

var errAddress = errors.New("this machine has no address that others reach; set turn.public")

// addresses returns what relays are bound to and called: what the operator named, else
// where the routes to the Internet start, else the first of the machine's.
func addresses(public []string) (out []relay.Address, err error) {
	has := map[bool]bool{}
	add := func(ip netip.Addr) {
		ip = ip.Unmap().WithZone("")
		if !ip.IsValid() || has[ip.Is4()] {
			return
		}
		has[ip.Is4()] = true
		bind := netip.IPv6Unspecified()
		if ip.Is4() {
			bind = netip.IPv4Unspecified()
		}
		out = append(out, relay.Address{Bind: bind, Public: ip})
	}
	for _, p := range public {
		ip, err := netip.ParseAddr(p)
		if err != nil {
			return nil, fmt.Errorf("turn.public: %q is not an IP address", p)
		}
		if has[ip.Unmap().Is4()] {
			return nil, fmt.Errorf("turn.public: %s is a second address of its family", p)
		}
		add(ip)
	}
	if len(out) > 0 {
		return out, nil
	}
	// Connecting a UDP socket sends nothing; it asks the kernel for the route.
	for _, far := range []string{"198.41.0.4:9", "[2001:503:ba3e::2:30]:9"} { // a.root-servers.net
		c, err := net.Dial("udp", far)
		if err != nil {
			continue // no route: no relays of this family
		}
		if u, ok := c.LocalAddr().(*net.UDPAddr); ok {
			add(u.AddrPort().Addr())
		}
		c.Close() // nothing was sent
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, x := range list {
		if n, ok := x.(*net.IPNet); ok {
			if ip, _ := netip.AddrFromSlice(n.IP); ip.IsGlobalUnicast() {
				add(ip)
			}
		}
	}
	if len(out) == 0 {
		return nil, errAddress
	}
	return out, nil
}

// mediaPorts are where a node on this machine has its audio.
func mediaPorts(listen string) relay.Ports {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return relay.Ports{}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || n+config.MediaPorts-1 > 65535 {
		return relay.Ports{}
	}
	return relay.Ports{First: uint16(n), Last: uint16(n + config.MediaPorts - 1)}
}
