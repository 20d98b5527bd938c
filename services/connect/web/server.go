package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/internal/turn"
)

// Config is what a server needs. Plain and TLS may be nil: that listener is off.
type Config struct {
	Node          Node
	Log           *zap.Logger
	Registry      prometheus.Registerer
	Name          string // of this process, as rooms know who signals for whom
	Plain, TLS    net.Listener
	TLSConfig     *tls.Config
	Pages         fs.FS // start.html, room.html, operator.html and assets/
	SessionKey    []byte
	OperatorToken string // "": there is no operator's page here
	Ready         func() bool
	Endpoints     func() any    // what the operator's page shows of links and listeners
	Calls         func() any    // and of calls that the node makes and that nobody took yet; nil: nothing
	Organisation  Organisation  // nil: no account server is looked for
	Docs          http.Handler  // /docs and /asyncapi.json; nil: none
	OrphanAfter   time.Duration // 0: 20 s
	WriteWithin   time.Duration // how long a request may take until its answer is read; 0: 45 s
	Relays        *turn.List    // for browsers whose network lets nothing else through; nil: none
}

// Server is the HTTP server. Its methods are safe for concurrent use.
type Server struct {
	node     Node
	log      *zap.Logger
	name     string
	cfg      Config
	sessions sessions
	pages    *pages
	hub      *hub
	orphans  *orphans
	live     *live
	changes  *changes
	metrics  *metrics
	refused  atomic.Uint64 // WebSocket messages that were not understood

	conns, sockets *limits.Places
	joins, asks    limits.Addresses
	wrongTokens    limits.Addresses
}

type metrics struct {
	joins           *prometheus.CounterVec
	slow, malformed prometheus.Counter
}

// New builds the server; nothing is served before Run.
func New(cfg Config) (*Server, error) {
	s := &Server{node: cfg.Node, log: cfg.Log, name: cfg.Name, cfg: cfg, sessions: sessions{cfg.SessionKey}, hub: newHub(),
		conns: limits.NewPlaces(connsPerIP, connsInAll), sockets: limits.NewPlaces(socketsPerIP, socketsInAll),
		joins: limits.NewAddresses(joinsPerSec, joinsBurst), asks: limits.NewAddresses(asksPerSec, asksBurst), wrongTokens: limits.NewAddresses(authPerSec, authBurst)}
	if len(cfg.SessionKey) < 32 || cfg.OperatorToken != "" && len(cfg.OperatorToken) < 16 {
		return nil, errors.New("web: session key or operator token too short")
	}
	var err error
	if s.pages, err = loadPages(cfg.Pages); err != nil {
		return nil, err
	}
	after := cfg.OrphanAfter
	if after == 0 {
		after = orphanAfter
	}
	s.orphans = newOrphans(s, after)
	s.live = newLive(s)
	s.changes = newChanges()
	s.metrics = &metrics{
		joins:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_connect_joins_total", Help: "Joins by WebSocket, WHIP and WHEP."}, []string{"result"}),
		slow:      prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_connect_slow_sockets_total", Help: "WebSockets closed because they did not keep up."}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_connect_malformed_messages_total", Help: "WebSocket messages that were not understood."}),
	}
	s.metrics.joins.WithLabelValues("joined")
	s.metrics.joins.WithLabelValues("refused")
	for _, c := range []prometheus.Collector{s.metrics.joins, s.metrics.slow, s.metrics.malformed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "parley_connect_sockets", Help: "WebSockets open."}, func() float64 { return float64(s.hub.count()) })} {
		if err := cfg.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return s, nil
}

// Publish hands an event to the pages of its room and never waits.
func (s *Server) Publish(e *Event) { s.hub.publish(e) }

// Resync tells every page to read its room again, after events may have been
// lost.
func (s *Server) Resync() { s.hub.resync() }

// answerWithin is how long a request may take from its headers until its answer
// is read: the body's 20 s, the command's 10 s, and a slow line.
const answerWithin = 45 * time.Second

type rawKey struct{}

// rawConn returns the connection that a request came on.
func rawConn(r *http.Request) net.Conn {
	c, ok := r.Context().Value(rawKey{}).(net.Conn)
	if !ok { // a handler tested without a server
		c, _ = net.Pipe()
	}
	return c
}

// Run serves until ctx ends, then tells every page and closes, in less than a
// second.
func (s *Server) Run(ctx context.Context) error {
	within := s.cfg.WriteWithin
	if within == 0 {
		within = answerWithin
	}
	srv := &http.Server{
		Handler: s.Handler(),
		// A stranger's connection costs a goroutine until these end it.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      within, // sockets lose it when they are hijacked, the live state sets its own
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(s.log.Named("http").WithOptions(zap.IncreaseLevel(zap.ErrorLevel))),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, rawKey{}, c)
		},
		BaseContext: func(net.Listener) context.Context { return context.Background() },
	}
	srv.Protocols = new(http.Protocols) // WebSocket needs HTTP/1.1
	srv.Protocols.SetHTTP1(true)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	serve := func(l net.Listener, secure bool) {
		wg.Go(func() {
			var err error
			ln := limits.Listener{Listener: l, Places: s.conns}
			if secure {
				err = srv.Serve(tls.NewListener(ln, s.cfg.TLSConfig))
			} else {
				err = srv.Serve(ln)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("http: %w", err)
			}
		})
	}
	if s.cfg.Plain != nil {
		serve(s.cfg.Plain, false)
	}
	if s.cfg.TLS != nil {
		serve(s.cfg.TLS, true)
	}
	wg.Go(func() { s.orphans.run(ctx) })
	wg.Go(func() { s.live.run(ctx) })
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-failed:
	}
	s.hub.close(leftFarewell("shutdown"))
	cancel()
	// Sockets are hijacked: Shutdown waits for the plain requests, the hub for them.
	end, stop := context.WithTimeout(context.Background(), closeWithin)
	defer stop()
	if serr := srv.Shutdown(end); serr != nil {
		srv.Close()
	}
	s.hub.wait(end)
	wg.Wait()
	return err
}

// Handler returns the whole of what is served.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.pages.page("start.html"))
	mux.HandleFunc("GET /{page}", s.pages.missing)
	mux.HandleFunc("GET /r/{room}/{rest...}", s.pages.missing)
	mux.HandleFunc("GET /r/{room}", s.pages.page("room.html"))
	operator := s.pages.page("operator.html")
	if s.cfg.OperatorToken == "" {
		operator = s.pages.missing
	}
	mux.HandleFunc("GET /operator", operator)
	mux.HandleFunc("GET /assets/{name...}", s.pages.asset)
	mux.HandleFunc("GET /favicon.ico", s.pages.page("assets/icon.svg"))
	mux.HandleFunc("GET /robots.txt", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "User-agent: *\nDisallow: /\n")
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !s.cfg.Ready() {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /ws", s.serveSocket)
	if s.cfg.Docs != nil {
		mux.Handle("GET /docs", s.cfg.Docs)
		mux.Handle("GET /asyncapi.json", s.cfg.Docs)
	}
	s.routeWHIP(mux)
	s.routeAPI(mux)
	// A page of another site must not act through a visitor's browser: what
	// changes something and comes from elsewhere is refused, without cookies or CORS
	// being involved.
	return secureHeaders(http.NewCrossOriginProtection().Handler(mux))
}
