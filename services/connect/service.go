// Package connect is the process that everybody signals through: browsers by
// WebSocket, WHIP and WHEP, phones by SIP. It keeps nothing about rooms: every
// action is a command to conference, and whoever is in a room stays in it when
// this process dies.
//
// A door (connect.name) takes browsers' and phones' calls for a node that runs elsewhere. It has no
// operator's page, no connections to devices, no files and no calls that the node makes, and serves no
// commands.
package connect

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/gate"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/keyfile"
	"github.com/parley-jami/parley/internal/portmap"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/turn"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device"
	"github.com/parley-jami/parley/services/connect/files"
	"github.com/parley-jami/parley/services/connect/gitlink"
	"github.com/parley-jami/parley/services/connect/sip"
	"github.com/parley-jami/parley/services/connect/texts"
	"github.com/parley-jami/parley/services/connect/web"
	pages "github.com/parley-jami/parley/web"
)

// Service is the connect process.
type Service struct {
	env   *host.Env
	node  *node
	calls atomic.Pointer[calls] // of the node's, once there is a bus

	mu        sync.Mutex
	listeners map[string]string // "http" -> address, as in contract.Endpoints
	token     string
	account   string
	relays    *turn.List // fixed before a device connects; nil: there are none
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	return &Service{env: env, node: newNode(), listeners: map[string]string{}}, nil
}

// door reports whether this process takes calls for a node that runs elsewhere.
func (s *Service) door() bool { return s.env.Config.Connect.Name != "" }

// name is how rooms know who signals for whom.
func (s *Service) name() string {
	if s.door() {
		return s.env.Name + "@" + s.env.Config.Connect.Name
	}
	return s.env.Name
}

// Run serves until ctx ends. The page answers before the bus and the account
// are there, and says what is being waited for. When one part fails, all end.
func (s *Service) Run(ctx context.Context) error {
	dir, err := s.env.Dir()
	if err != nil {
		return err
	}
	tlsConf, err := s.tlsConfig(dir)
	if err != nil {
		return err
	}
	page, err := s.buildWeb(dir, tlsConf)
	if err != nil {
		return err
	}
	sipConf, err := s.openPhones(dir, tlsConf)
	if err != nil {
		return err
	}
	ports, err := s.openDevices()
	if err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return page.Run(ctx) })
	parts.Go(func() error { return s.join(ctx, page, sipConf, ports, dir) })
	s.mapPorts(ctx, parts)
	err = parts.Wait()
	if conn := s.node.conn.Load(); conn != nil {
		conn.Close() // after everything that uses it
	}
	return err
}

// mapPorts keeps the router's ports open for HTTPS and SIP. Plain HTTP is for this machine
// and for a proxy before it.
func (s *Service) mapPorts(ctx context.Context, parts *errgroup.Group) {
	kind := s.env.Config.Media.PortMapping
	if kind == "" || kind == portmap.Off {
		return
	}
	specs := slices.DeleteFunc(sockets.ConnectSpecs(s.env.Config), func(sp sockets.Spec) bool { return sp.Name == sockets.HTTP })
	ports := portmap.Of(specs)
	if len(ports) == 0 {
		return
	}
	k := portmap.New(portmap.Config{Kind: kind, Ports: ports, Log: s.env.Log.Named("portmap")})
	parts.Go(func() error {
		k.Run(ctx)
		return nil
	})
}

// join connects to the bus and serves what needs it.
func (s *Service) join(ctx context.Context, page *web.Server, sipConf sip.Config, ports devicePorts, dir string) error {
	conn, err := s.env.Connect(ctx)
	if err != nil {
		return err
	}
	s.node.conn.Store(conn)
	acc, err := conn.WaitAccount(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the account: %w", err)
	}
	s.mu.Lock()
	s.account = acc.ID
	s.mu.Unlock()
	// What any account of the node revoked is refused, and whom the main one banned; whom
	// another one banned in its own rooms.
	gates, err := gate.OpenAll(ctx, conn)
	if err != nil {
		return err
	}
	defer gates.Close()
	peers, err := gates.Of(acc.ID)
	if err != nil {
		return err
	}
	barred := newBarred(gates, s.env.Log.Named("gate"))
	defer barred.close()
	calls := newJamiRooms(conn, s.env.Config.Rooms.Default, s.env.Log.Named("jami"))
	defer calls.close()
	phones, err := s.buildPhones(sipConf, conn, peers, barred, calls)
	if err != nil {
		return err
	}
	events, err := bus.Subscribe(conn, contract.RoomEvents, func(_ context.Context, _ []string, e *contract.RoomEvent) {
		pe, err := pageEvent(e)
		if err != nil {
			s.env.Log.Error("event does not marshal", zap.Error(err))
			return
		}
		page.Publish(pe)
		phoneEvent(phones, s.name(), e)
		calls.event(e)
		if e.Type == contract.EventLeft || e.Type == contract.EventClosed {
			barred.heard(e)
		}
	})
	if err != nil {
		return err
	}
	defer events.Stop()
	if !s.door() {
		unfollow, err := followAccounts(conn, page)
		if err != nil {
			return err
		}
		defer unfollow()
	}
	var tidy sync.WaitGroup
	defer tidy.Wait()
	reconcile := func() { tidy.Go(func() { s.reconcile(ctx, conn, phones) }) }
	conn.OnReconnect(page.Resync)
	conn.OnReconnect(calls.resync)
	conn.OnReconnect(reconcile)
	reconcile()
	if s.door() {
		s.env.SetReady(true)
		return phones.Run(ctx)
	}
	svc, err := bus.NewService(conn.For(bus.Any), "connect", s.env.Version, "signalling: HTTP, WebSocket, WHIP, WHEP, SIP and Jami")
	if err != nil {
		return err
	}
	defer svc.Stop()
	err = bus.Serve(svc, contract.ConnectStatus, func(context.Context, *bus.Request[contract.None]) (*contract.Endpoints, error) {
		e := s.endpoints(true)
		return &e, nil
	})
	if err != nil {
		return err
	}
	out := newCalls(conn, phones, barred, s.env.Config.SIP.CallHosts, s.env.Log.Named("call"))
	defer out.close()
	s.calls.Store(out)
	placed, err := bus.Subscribe(conn, contract.RoomEvents, func(_ context.Context, _ []string, e *contract.RoomEvent) { out.event(e) })
	if err != nil {
		return err
	}
	defer placed.Stop()
	parts, ctx := errgroup.WithContext(ctx)
	if ports.tcp != nil {
		inbox := texts.NewInbox(calls.text, s.env.Log.Named("texts"))
		defer inbox.Close()
		desk, err := openDesk(dir, int64(s.env.Config.Jami.MaxFile)<<20, conn, s.env.Log.Named("files"))
		if err != nil {
			return err
		}
		defer desk.close()
		run, err := s.env.RunDir()
		if err != nil {
			return err
		}
		links := gitlink.New(filepath.Join(run, contract.GitSocket), s.env.Log.Named("git"))
		defer links.Close()
		peers, err := s.buildDevices(ports, dir, conn, gates, phones, map[string]channel.Handler{device.Lasts: phones, texts.Scheme: inbox, files.Scheme: desk.giver, gitlink.Scheme: links})
		if err != nil {
			return err
		}
		if err := desk.fetchFrom(peers); err != nil {
			return err
		}
		gits := &gits{links, peers}
		teller := &teller{peers.manager, phones, s.env.Log.Named("texts")}
		err = errors.Join(bus.Serve(svc, contract.PeerReach, peers.reach), bus.Serve(svc, contract.PeerSay, teller.say), bus.Serve(svc, contract.PeerGitCmd, gits.fetch), desk.serve(svc))
		if err != nil {
			return err
		}
		out.dial = peers.dial
		parts.Go(func() error { return peers.run(ctx) })
	}
	if err := errors.Join(bus.Serve(svc, contract.RoomCall, out.call), bus.Serve(svc, contract.RoomHangUp, out.hangUp)); err != nil {
		return err
	}
	parts.Go(func() error { return phones.Run(ctx) })
	s.env.SetReady(true)
	return parts.Wait()
}

// going is what the operator's page shows of the node's calls.
func (s *Service) going() any {
	if c := s.calls.Load(); c != nil {
		return c.going()
	}
	return nil
}

// endpoints says where the node is reached. The operator's token is for the
// command line alone, which reads it over the node's own bus; it is never logged.
func (s *Service) endpoints(withToken bool) contract.Endpoints {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := ""
	if withToken {
		token = s.token
	}
	return contract.Endpoints{Links: links(s.env.Config, s.listeners, s.account, token), Listeners: maps.Clone(s.listeners)}
}

// listens notes an address for [Service.endpoints].
func (s *Service) listens(name string, addr net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[name] = addr.String()
}

// tlsConfig is for HTTPS and for SIP over TLS.
func (s *Service) tlsConfig(dir string) (*tls.Config, error) {
	c := s.env.Config.HTTP
	if c.Cert != "" || c.Key != "" {
		t, err := certs.Given(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("http.cert, http.key: %w", err)
		}
		return t, nil
	}
	hosts := append([]string{"localhost", publicHost(s.env.Config), s.env.Config.SIP.Host}, certs.LocalHosts()...)
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	return certs.Own(filepath.Join(dir, "tls"), hosts)
}

// buildWeb opens the listeners and builds the HTTP server.
func (s *Service) buildWeb(dir string, tlsConf *tls.Config) (*web.Server, error) {
	sessionKey, err := keyfile.Load(filepath.Join(dir, "session.key"), 32)
	if err != nil {
		return nil, err
	}
	if !s.door() {
		token, err := keyfile.Load(filepath.Join(dir, "operator.token"), 24)
		if err != nil {
			return nil, err
		}
		s.token = hex.EncodeToString(token)
	}
	cfg := web.Config{Node: s.node, Log: s.env.Log.Named("web"), Registry: s.env.Registry, Name: s.name(), TLSConfig: tlsConf,
		Pages: pages.Files, SessionKey: sessionKey, OperatorToken: s.token, Ready: s.env.Ready,
		Endpoints: func() any { return s.endpoints(false) }, Calls: s.going, Docs: docsPages()}
	if !s.door() {
		cfg.Organisation = jams.NewOperator(jams.OperatorSocket(s.env.Config.JAMSDir()))
	}
	if s.relays, err = turn.Relays(s.env.Config); err != nil {
		return nil, err
	}
	cfg.Relays = s.relays
	if cfg.Plain, err = s.listen("http", s.env.Config.HTTP.Listen); err != nil {
		return nil, fmt.Errorf("%w (setting http.listen)", err)
	}
	if cfg.TLS, err = s.listen("https", s.env.Config.HTTP.TLSListen); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (setting http.tls_listen)", err), closeAll(cfg.Plain))
	}
	srv, err := web.New(cfg)
	if err != nil {
		return nil, errors.Join(err, closeAll(cfg.Plain), closeAll(cfg.TLS))
	}
	return srv, nil
}

// listen opens one listener; an empty address is none.
func (s *Service) listen(name, addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := sockets.TCP(name, addr)
	if err != nil {
		return nil, err
	}
	s.listens(name, l.Addr())
	return l, nil
}

func closeAll(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}
