package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/internal/pionlog"
)

// endWithin bounds the end of all allocations.
const endWithin = 3 * time.Second

// Address is where relay sockets are bound, and which address is told of them. The
// family is Public's.
type Address struct{ Bind, Public netip.Addr }

// Config is what a server needs. Its sockets are the server's from [New] on.
type Config struct {
	UDP       []*net.UDPConn
	TCP, TLS  []net.Listener // before TLS
	TLSConfig *tls.Config
	ConnsEach int // TCP connections of one address
	ConnsAll  int

	Realm     string
	Users     *Users
	Addresses []Address // at most one of each family
	Ports     Ports
	Peers     *Peers
	Quotas    Quotas
	Bandwidth int // bytes a second of one allocation in each direction
	Strangers Strangers

	Log     *zap.Logger
	Metrics *Metrics
}

// Server is a TURN server.
type Server struct {
	cfg   Config
	book  *book
	conns *conns
	turn  *turn.Server

	wrong atomic.Uint64 // requests with a wrong credential
}

// New starts a server; [Server.Run] ends it.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, book: newBook(cfg.Quotas, cfg.Log, cfg.Metrics), conns: newConns(cfg.Strangers.Patience)}
	gen := func(streams bool, t *taken) *ports {
		p := &ports{relayOf: map[string]netip.Addr{}, bindOf: map[string]netip.Addr{}, span: cfg.Ports, book: s.book,
			perSec: cfg.Bandwidth, peers: cfg.Peers, m: cfg.Metrics, streams: streams, taken: t}
		for _, a := range cfg.Addresses {
			family := "6"
			if a.Public.Unmap().Is4() {
				family = "4"
			}
			p.relayOf[family], p.bindOf[family] = a.Public, a.Bind
		}
		return p
	}
	t := newTaken()
	conf := turn.ServerConfig{
		Realm: cfg.Realm, AuthHandler: s.authenticate, LoggerFactory: pionlog.Factory{Log: cfg.Log},
		QuotaHandler: func(user, _ string, client net.Addr) bool { return s.book.reserve(user, client) },
		EventHandler: turn.EventHandler{
			OnAuth: func(client, server net.Addr, _, user, _, _ string, right bool) {
				if right {
					s.conns.known(client, server)
				} else {
					s.sawWrong(client)
				}
			},
			OnAllocationCreated: func(client, server net.Addr, _, user, _ string, relay net.Addr, _ int) {
				s.book.begin(client, server, user, relay)
			},
			OnAllocationDeleted: func(client, server net.Addr, _, _, _ string) {
				s.book.end(client, server)
				s.conns.over(client, server)
			},
			OnAllocationError: func(client, _ net.Addr, _, _ string) { s.book.failed(client) },
		},
	}
	permit := func(_ net.Addr, ip net.IP) bool {
		a, _ := netip.AddrFromSlice(ip)
		if cfg.Peers.Address(a) {
			return true
		}
		cfg.Metrics.forbidden.Inc()
		return false
	}
	for _, c := range cfg.UDP {
		conf.PacketConnConfigs = append(conf.PacketConnConfigs, turn.PacketConnConfig{
			PacketConn: newGate(c, s.book, cfg.Strangers, cfg.Metrics), RelayAddressGenerator: gen(false, t), PermissionHandler: permit})
	}
	places := limits.NewPlaces(cfg.ConnsEach, cfg.ConnsAll)
	for i, list := range [][]net.Listener{cfg.TCP, cfg.TLS} {
		for _, l := range list {
			l = limits.Listener{Listener: l, Places: places}
			if i == 1 {
				l = tls.NewListener(l, cfg.TLSConfig)
			}
			conf.ListenerConfigs = append(conf.ListenerConfigs, turn.ListenerConfig{
				Listener: listener{l, s.conns}, RelayAddressGenerator: gen(true, t), PermissionHandler: permit})
		}
	}
	var err error
	if s.turn, err = turn.NewServer(conf); err != nil {
		return nil, fmt.Errorf("turn: %w", err)
	}
	return s, nil
}

// Run waits until ctx ends, then ends all allocations and returns when they are over.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	if n := s.book.shut(); n > 0 {
		s.cfg.Log.Info("ending allocations", zap.Int("running", n))
	}
	err := s.turn.Close()
	s.conns.close()
	select {
	case <-s.book.empty:
	case <-time.After(endWithin):
		err = errors.Join(err, fmt.Errorf("%d allocations did not end within %s", s.book.count(), endWithin))
	}
	return err
}

// Allocations is how many run.
func (s *Server) Allocations() int { return s.book.count() }

// authenticate returns the key of a user (RFC 8489 §9.2.2).
func (s *Server) authenticate(r *turn.RequestAttributes) (who string, key []byte, ok bool) {
	if r.Realm != s.cfg.Realm {
		s.sawWrong(r.SrcAddr)
		return "", nil, false
	}
	who, password, ok := s.cfg.Users.Password(r.Username, false)
	switch r.Method {
	case stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind:
		if !ok { // expired, perhaps
			who, password, ok = s.cfg.Users.Password(r.Username, true)
			ok = ok && s.book.stands(r.SrcAddr, who)
		}
	}
	if !ok {
		s.sawWrong(r.SrcAddr)
		return "", nil, false
	}
	return who, turn.GenerateAuthKey(r.Username, r.Realm, password), true
}

// sawWrong counts a wrong credential and logs the 1st, 2nd, 4th, …
func (s *Server) sawWrong(client net.Addr) {
	s.cfg.Metrics.refused(refusedCredential)
	if n := s.wrong.Add(1); n&(n-1) == 0 {
		s.cfg.Log.Warn("wrong or expired credentials", zap.Uint64("total", n), zap.Stringer("last_from", client))
	}
}
