package sip

import (
	"context"
	"crypto/sha256"
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

// allow lists the methods of a dialog, allowJami those of one with a Jami peer, which sends
// no MESSAGE where it is not named (connect-and-calls §3.1).
const (
	allow     = "INVITE, ACK, CANCEL, BYE, UPDATE, OPTIONS"
	allowJami = allow + ", INFO, MESSAGE"
)

// jamiAgent has the form that stock peers read a version from (§3.1): those below 10 get no
// change of the media.
const jamiAgent = "Jami Daemon 13.7.0 (Parley)"

// accepted are the bodies that are understood.
const accepted = "application/sdp, multipart/mixed"

// Config is what the server is built from. Any of the sockets may be nil.
type Config struct {
	UDP      net.PacketConn
	TCP      net.Listener
	TLS      net.Listener // plain; the server adds TLS
	TLSConf  *tls.Config
	Host     string // advertised in Contact; empty: the address that the caller reached
	SHA256   bool   // challenges offer it beside MD5; an answer with either is taken
	Dir      string // where dialogs are kept
	Version  string
	Rooms    Rooms
	Callers  Callers            // what Jami devices call; nil: they call nothing
	Farewell Message            // what a Jami device is told before its call is ended from here; without a type nothing
	Peers    Peers              // who clients with certificates of Jami devices are; nil: nobody is asked for one
	Code     func(error) string // the stable code of an error from Rooms
	Log      *zap.Logger
}

// Server is the user agent server. It is safe for concurrent use.
type Server struct {
	cfg      Config
	log      *zap.Logger
	dialogs  *table
	auth     *challenger
	invites  *buckets
	wrong    *buckets
	ringing  atomic.Int64
	open     *counter // calls until their ACK
	setups   *setups
	gate     *gate
	conns    *conns
	guests   *guests
	channels *channels
	doors    *doors
	rings    *rings
	udpUp    chan struct{} // closed when the UDP socket is served, and so can be sent from

	ua     *sipgo.UserAgent
	client *sipgo.Client

	ctx  context.Context // ends with Run
	stop context.CancelFunc
	last context.Context // ends stopTime after Run was told to end: nothing is waited for any more
	cut  context.CancelFunc
	wg   sync.WaitGroup // calls being set up and ended
}

// New builds the server and reads the dialogs that were left; nothing is
// received before Run.
func New(cfg Config) (*Server, error) {
	auth, err := newChallenger(cfg.SHA256, time.Now)
	if err != nil {
		return nil, fmt.Errorf("sip: %w", err)
	}
	dialogs, errs := openTable(cfg.Dir)
	for _, err := range errs {
		cfg.Log.Error("dialog not read", zap.Error(err))
	}
	s := &Server{cfg: cfg, log: cfg.Log, dialogs: dialogs, auth: auth, setups: newSetups(),
		invites: newBuckets(invitesPerSec, invitesPerSec, time.Now), wrong: newBuckets(wrongPerMin/60., wrongPerMin, time.Now),
		open: newCounter(unconfirmedIP, maxUnconfirmed), gate: newGate(dialogs.knows, time.Now, cfg.Log), doors: newDoors(), rings: newRings(), udpUp: make(chan struct{}), guests: &guests{peers: cfg.Peers, by: map[[sha256.Size]byte]*guest{}}}
	s.guests.gone = s.shutOut
	s.channels = newChannels(s.channelGone)
	s.conns = newConns(dialogs.uses, func(x *guest, c *streamConn) { s.guests.leave(x, c, nil) })
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.last, s.cut = context.WithCancel(context.Background())
	library(cfg.Log)
	s.ua, err = sipgo.NewUA(sipgo.WithUserAgent("Parley"), sipgo.WithUserAgentDNSResolver(noNames), sipgo.WithUserAgenTLSConfig(cfg.TLSConf),
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerReadFilter(s.gate.slow(s.ctx)),
			sip.WithTransportLayerTransports(sip.TransportsConfig{TCP: s.dialer(), TLS: &sip.TransportTLS{TransportTCP: s.dialer()}})),
		sipgo.WithUserAgentTransactionLayerOptions(sip.WithTransactionLayerUnhandledResponseHandler(s.onStray)))
	if err != nil {
		return nil, fmt.Errorf("sip: %w", err)
	}
	s.client, err = sipgo.NewClient(s.ua)
	if err != nil {
		return nil, fmt.Errorf("sip: %w", err)
	}
	return s, nil
}

// library sets what the SIP library has for the whole process.
var library = func() func(*zap.Logger) {
	var once sync.Once
	return func(log *zap.Logger) {
		once.Do(func() {
			sip.SetDefaultLogger(slog.New(quiet{log}))
			// An answer has to go where the request came from, whatever its size (RFC 3261
			// §18.2.2): up to the largest datagram. Own requests above 1,300 bytes should go
			// over TCP (§18.1.1); but the phone is known to have UDP only, and the
			// fragments arrive where a connection through its NAT does not.
			sip.UDPMTUSize = 65_507 + 200
		})
	}
}()

const (
	// stopTime bounds all that is said to far ends, and to rooms, when the node stops: the process
	// has 2.2 s, after which it is killed.
	stopTime = 1200 * time.Millisecond
	// stopCancel is how long those whom we call may take then to answer a CANCEL.
	stopCancel = 600 * time.Millisecond
)

// Run serves until ctx ends, then hangs up on everybody, for at most [stopTime].
func (s *Server) Run(ctx context.Context) error {
	srv, err := sipgo.NewServer(s.ua)
	if err != nil {
		return fmt.Errorf("sip: %w", err)
	}
	for method, h := range s.handlers() {
		srv.OnRequest(method, h)
	}
	srv.OnNoRoute(s.onUnknown)
	s.resume()
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
		start("udp", func() error { return s.serveUDP(srv.ServeUDP) })
	}
	if s.cfg.TCP != nil {
		start("tcp", func() error { return srv.ServeTCP(s.streams(s.cfg.TCP)) })
	}
	if s.cfg.TLS != nil && s.cfg.TLSConf != nil {
		start("tls", func() error {
			return srv.ServeTLS(tls.NewListener(s.streams(s.cfg.TLS), s.guestTLS(s.cfg.TLSConf)))
		})
	}
	if s.cfg.Callers != nil {
		start("channels", func() error { return srv.ServeTLS(s.channels) })
	}
	var out error
	select {
	case <-ctx.Done():
	case out = <-serve:
		n--
	}
	defer s.cut()
	defer time.AfterFunc(stopTime, s.cut).Stop()
	var calls sync.WaitGroup
	calls.Go(s.rings.end)
	s.hangUpAll()
	calls.Wait()
	s.hangUpAll() // who took a call of ours meanwhile
	s.stop()
	for _, c := range []interface{ Close() error }{s.cfg.UDP, s.cfg.TCP, s.cfg.TLS} {
		if c != nil {
			if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				s.log.Debug("sip socket close", zap.Error(err))
			}
		}
	}
	s.channels.Close() //nolint:errcheck // it has none
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

// handlers are by method; [Server.onUnknown] gets the others.
func (s *Server) handlers() map[sip.RequestMethod]sipgo.RequestHandler {
	return map[sip.RequestMethod]sipgo.RequestHandler{
		sip.INVITE:  s.checked(s.onInvite),
		sip.UPDATE:  s.checked(s.onUpdate),
		sip.BYE:     s.checked(s.onBye),
		sip.OPTIONS: s.checked(s.onOptions),
		sip.INFO:    s.checked(s.onInfo),
		sip.MESSAGE: s.checked(s.onMessage),
		sip.ACK:     s.onAck,
		sip.CANCEL:  s.onCancel,
	}
}

// hangUpAll ends every call of this node's end. The dialogs of a process that
// is only started again stay: Run is not told to end then, it dies.
func (s *Server) hangUpAll() {
	ctx, cancel := context.WithTimeout(s.last, time.Second)
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

// Forget takes a participant without a call out of a room.
func (s *Server) Forget(room, id string) {
	if s.ctx.Err() == nil {
		s.wg.Go(func() { s.leave(&dialog{record: record{Room: room, ID: id}}, "lost") })
	}
}

// Has reports whether a participant has a call, or one that is being set up.
func (s *Server) Has(id string) bool { return s.setups.has(id) || s.dialogs.byID(id) != nil }

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
func (s *Server) Junk() uint64 { return s.gate.junk.Load() }

// Flood returns how many SIP datagrams were dropped because there were too many.
func (s *Server) Flood() uint64 { return s.gate.flood.Load() }

// Calls returns how many calls there are.
func (s *Server) Calls() int { return s.dialogs.len() }

func (s *Server) streams(l net.Listener) net.Listener {
	return &streamListener{Listener: l, conns: s.conns, bound: newCounter(connsIP, maxConns)}
}

// checked answers what is malformed or asks for an extension (RFC 3261 §8.2),
// before h sees it.
func (s *Server) checked(h sipgo.RequestHandler) sipgo.RequestHandler {
	return func(req *sip.Request, tx sip.ServerTransaction) {
		s.conns.heard(req.Source())
		_, from := tags(req)
		switch {
		case req.SipVersion != "SIP/2.0":
			s.turnDown(req, tx, 505, "Version Not Supported")
			return
		case callID(req) == "" || req.CSeq() == nil || req.From() == nil || req.To() == nil || from == "":
			s.turnDown(req, tx, 400, "Missing Header")
			return
		case req.CSeq().MethodName != req.Method:
			s.turnDown(req, tx, 400, "CSeq Is for Another Method")
			return
		}
		var unsupported []string
		for _, h := range req.GetHeaders("Require") {
			if v := strings.TrimSpace(h.Value()); v != "" {
				unsupported = append(unsupported, v)
			}
		}
		if len(unsupported) > 0 {
			s.turnDown(req, tx, 420, "Bad Extension", sip.NewHeader("Unsupported", strings.Join(unsupported, ", ")))
			return
		}
		if c := s.channels.at(req.Source()); c != nil && !s.fromPeer(req, tx, c) {
			return
		}
		h(req, tx)
	}
}

// turnDown answers a request and keeps nothing of it (RFC 3261 §8.2.7): should
// the answer get lost, the repeated request is answered anew. It is for answers
// that cost nothing and come before a 100 has stopped the repetitions.
func (s *Server) turnDown(req *sip.Request, tx sip.ServerTransaction, status int, reason string, headers ...sip.Header) {
	s.refuse(req, tx, status, reason, headers...)
	tx.Terminate()
}

func (s *Server) onUnknown(req *sip.Request, tx sip.ServerTransaction) {
	s.conns.heard(req.Source())
	s.turnDown(req, tx, 405, "Method Not Allowed", s.allowed(req.Source()))
}

func (s *Server) refuse(req *sip.Request, tx sip.ServerTransaction, status int, reason string, headers ...sip.Header) {
	s.respond(tx, s.response(req, status, reason, nil, headers...))
}

func (s *Server) response(req *sip.Request, status int, reason string, body []byte, headers ...sip.Header) *sip.Response {
	res := sip.NewResponseFromRequest(req, status, reason, body)
	res.SipVersion = "SIP/2.0"
	if s.channels.at(req.Source()) != nil {
		res.AppendHeader(sip.NewHeader("User-Agent", jamiAgent))
	} else {
		res.AppendHeader(sip.NewHeader("Server", "Parley/"+s.cfg.Version))
	}
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
	if s.channels.at(req.Source()) != nil {
		r = jamiRefusal(s.cfg.Code(err))
		hs = append(hs, sip.NewHeader("Warning", warning(err)))
	}
	if r.RetryAfter > 0 {
		hs = append(hs, sip.NewHeader("Retry-After", fmt.Sprint(r.RetryAfter)))
	}
	if r.Challenge {
		hs = append(hs, s.challenge(req, false)...)
	}
	s.refuse(req, tx, r.Status, r.Reason, hs...)
}

// allowed is the Allow header for who is at source.
func (s *Server) allowed(source string) sip.Header {
	if s.channels.at(source) != nil {
		return sip.NewHeader("Allow", allowJami)
	}
	return sip.NewHeader("Allow", allow)
}

func (s *Server) challenge(req *sip.Request, stale bool) []sip.Header {
	var out []sip.Header
	for _, v := range s.auth.challenges(boundTo(req), stale) {
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

// contact is our Contact: a sips URI for who called one alone (RFC 5630 §5.1.2); some
// phones know no other than sip.
func (s *Server) contact(room, transport, source string, secure bool) string {
	scheme, param := "sip", ""
	switch t := strings.ToLower(transport); {
	case t == "tls" && secure:
		scheme, param = "sips", ";transport=tcp"
	case t == "udp":
	default:
		param = ";transport=" + t
	}
	return fmt.Sprintf("<%s:%s@%s:%d%s>", scheme, room, s.localHost(source), s.localPort(transport), param)
}
