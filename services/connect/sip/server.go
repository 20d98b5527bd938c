package sip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"
)

// allow lists the methods of a dialog.
const allow = "INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS"

// Config is what the server is built from. Any of the sockets may be nil.
type Config struct {
	UDP     net.PacketConn
	TCP     net.Listener
	TLS     net.Listener // plain; the server adds TLS
	TLSConf *tls.Config
	Host    string // advertised in Contact; empty: the address that the caller reached
	Dir     string // where dialogs are kept
	Version string
	Rooms   Rooms
	Code    func(error) string // the stable code of an error from Rooms
	Log     *zap.Logger
}

// Server is the user agent server. It is safe for concurrent use.
type Server struct {
	cfg     Config
	log     *zap.Logger
	dialogs *table
	auth    *challenger
	invites *buckets
	wrong   *buckets
	ringing atomic.Int64
	junk    atomic.Uint64

	ua     *sipgo.UserAgent
	client *sipgo.Client

	ctx  context.Context // ends with Run
	stop context.CancelFunc
	wg   sync.WaitGroup // calls being set up and ended
}

// New builds the server and reads the dialogs that were left; nothing is
// received before Run.
func New(cfg Config) (*Server, error) {
	auth, err := newChallenger(time.Now)
	if err != nil {
		return nil, fmt.Errorf("sip: %w", err)
	}
	dialogs, errs := openTable(cfg.Dir)
	for _, err := range errs {
		cfg.Log.Error("dialog not read", zap.Error(err))
	}
	s := &Server{cfg: cfg, log: cfg.Log, dialogs: dialogs, auth: auth,
		invites: newBuckets(invitesPerSec, invitesPerSec, time.Now), wrong: newBuckets(wrongPerMin/60., wrongPerMin, time.Now)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	sip.SetDefaultLogger(slog.New(quiet{cfg.Log}))
	s.ua, err = sipgo.NewUA(sipgo.WithUserAgent("Parley"), sipgo.WithUserAgenTLSConfig(cfg.TLSConf),
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerReadFilter(readFilter(&s.junk, cfg.Log))))
	if err != nil {
		return nil, fmt.Errorf("sip: %w", err)
	}
	s.client, err = sipgo.NewClient(s.ua)
	if err != nil {
		return nil, fmt.Errorf("sip: %w", err)
	}
	return s, nil
}

// Run serves until ctx ends, then hangs up on everybody, for at most a second.
func (s *Server) Run(ctx context.Context) error {
	srv, err := sipgo.NewServer(s.ua)
	if err != nil {
		return fmt.Errorf("sip: %w", err)
	}
	srv.OnInvite(s.onInvite)
	srv.OnUpdate(s.onUpdate)
	srv.OnAck(s.onAck)
	srv.OnBye(s.onBye)
	srv.OnCancel(s.onCancel)
	srv.OnOptions(s.onOptions)
	srv.OnInfo(func(req *sip.Request, tx sip.ServerTransaction) { s.refuse(req, tx, 415, "Unsupported Media Type") })
	srv.OnNoRoute(func(req *sip.Request, tx sip.ServerTransaction) {
		s.refuse(req, tx, 405, "Method Not Allowed", sip.NewHeader("Allow", allow))
	})
	serve := make(chan error, 3)
	n := 0
	start := func(name string, fn func() error) {
		n++
		go func() {
			err := fn()
			if ctx.Err() != nil {
				err = nil
			} else {
				err = fmt.Errorf("sip over %s ended: %w", name, err)
			}
			serve <- err
		}()
	}
	if s.cfg.UDP != nil {
		start("udp", func() error { return srv.ServeUDP(s.cfg.UDP) })
	}
	if s.cfg.TCP != nil {
		start("tcp", func() error { return srv.ServeTCP(&limitListener{Listener: s.cfg.TCP}) })
	}
	if s.cfg.TLS != nil && s.cfg.TLSConf != nil {
		start("tls", func() error {
			return srv.ServeTLS(tls.NewListener(&limitListener{Listener: s.cfg.TLS}, s.cfg.TLSConf))
		})
	}
	var out error
	select {
	case <-ctx.Done():
	case out = <-serve:
		n--
	}
	s.hangUpAll()
	s.stop()
	for _, c := range []interface{ Close() error }{s.cfg.UDP, s.cfg.TCP, s.cfg.TLS} {
		if c != nil {
			if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				s.log.Debug("sip socket close", zap.Error(err))
			}
		}
	}
	if err := s.ua.Close(); err != nil {
		s.log.Debug("sip close", zap.Error(err))
	}
	for ; n > 0; n-- {
		if err := <-serve; out == nil {
			out = err
		}
	}
	s.wg.Wait()
	return out
}

// hangUpAll ends every call of this node's end. The dialogs of a process that
// is only started again stay: Run is not told to end then, it dies.
func (s *Server) hangUpAll() {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 32)
	for _, d := range s.dialogs.all() {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.bye(ctx, d, "node is stopping")
		})
	}
	wg.Wait()
}

// Hang ends the call of a participant, for a reason that the phone may show. It
// is harmless when there is none.
func (s *Server) Hang(id, reason string) {
	d := s.dialogs.byID(id)
	if d == nil || s.ctx.Err() != nil {
		return
	}
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, 32*time.Second)
		defer cancel()
		s.bye(ctx, d, reason)
	})
}

// IDs returns the participants with a call.
func (s *Server) IDs() []string {
	all := s.dialogs.all()
	out := make([]string, len(all))
	for i, d := range all {
		out[i] = d.ID
	}
	return out
}

// Room returns the room of a participant's call.
func (s *Server) Room(id string) (string, bool) {
	d := s.dialogs.byID(id)
	if d == nil {
		return "", false
	}
	return d.Room, true
}

// Junk returns how many datagrams were dropped because they are not SIP.
func (s *Server) Junk() uint64 { return s.junk.Load() }

// Calls returns how many calls there are.
func (s *Server) Calls() int { return s.dialogs.len() }

func (s *Server) refuse(req *sip.Request, tx sip.ServerTransaction, status int, reason string, headers ...sip.Header) {
	s.respond(tx, s.response(req, status, reason, nil, headers...))
}

func (s *Server) response(req *sip.Request, status int, reason string, body []byte, headers ...sip.Header) *sip.Response {
	res := sip.NewResponseFromRequest(req, status, reason, body)
	res.AppendHeader(sip.NewHeader("Server", "Parley/"+s.cfg.Version))
	for _, h := range headers {
		res.AppendHeader(h)
	}
	return res
}

func (s *Server) respond(tx sip.ServerTransaction, res *sip.Response) bool {
	if err := tx.Respond(res); err != nil {
		s.log.Debug("sip response not sent", zap.Int("status", res.StatusCode), zap.Error(err))
		return false
	}
	return true
}

func (s *Server) refuseError(req *sip.Request, tx sip.ServerTransaction, err error) {
	r := RefusalFor(s.cfg.Code(err))
	var hs []sip.Header
	if r.RetryAfter > 0 {
		hs = append(hs, sip.NewHeader("Retry-After", fmt.Sprint(r.RetryAfter)))
	}
	if r.Challenge {
		hs = append(hs, s.challenge(req, false)...)
	}
	s.refuse(req, tx, r.Status, r.Reason, hs...)
}

func (s *Server) challenge(req *sip.Request, stale bool) []sip.Header {
	var out []sip.Header
	for _, v := range s.auth.challenges(callID(req), stale) {
		out = append(out, sip.NewHeader("WWW-Authenticate", v))
	}
	return out
}

func callID(req *sip.Request) string {
	if h := req.CallID(); h != nil {
		return h.Value()
	}
	return ""
}

func tags(req *sip.Request) (to, from string) {
	if h := req.To(); h != nil {
		to, _ = h.Params.Get("tag")
	}
	if h := req.From(); h != nil {
		from, _ = h.Params.Get("tag")
	}
	return to, from
}

// roomOf returns the room that the Request-URI names (RFC 3261 §8.2.2.1).
func roomOf(req *sip.Request) string { return strings.ToLower(req.Recipient.User) }

// localIP returns the address that a peer reaches us by, for Contact and Via.
func (s *Server) localHost(source string) string {
	if s.cfg.Host != "" {
		return s.cfg.Host
	}
	c, err := net.Dial("udp", source) // sends nothing: asks the kernel for the route
	if err != nil {
		return "127.0.0.1"
	}
	defer c.Close()
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	if err != nil {
		return "127.0.0.1"
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// localPort returns our port for a transport ("UDP", "TCP", "TLS").
func (s *Server) localPort(transport string) int {
	var a net.Addr
	switch strings.ToUpper(transport) {
	case "UDP":
		if s.cfg.UDP != nil {
			a = s.cfg.UDP.LocalAddr()
		}
	case "TCP":
		if s.cfg.TCP != nil {
			a = s.cfg.TCP.Addr()
		}
	case "TLS":
		if s.cfg.TLS != nil {
			a = s.cfg.TLS.Addr()
		}
	}
	switch v := a.(type) {
	case *net.UDPAddr:
		return v.Port
	case *net.TCPAddr:
		return v.Port
	}
	return 0
}

func (s *Server) contact(room, transport, source string) string {
	scheme, param := "sip", ""
	switch t := strings.ToLower(transport); t {
	case "tls":
		scheme = "sips"
		param = ";transport=tcp"
	case "udp":
	default:
		param = ";transport=" + t
	}
	return fmt.Sprintf("<%s:%s@%s:%d%s>", scheme, room, s.localHost(source), s.localPort(transport), param)
}
