package embed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// Limits of the server.
const (
	maxPayload     = 1 << 20          // an SDP is a few KiB, a page of chat at most some 100 KiB
	maxControlLine = 16 << 10         // the longest line of a client: a bot with every right presents a credential of 4 KiB, which is the default
	maxPending     = 16 << 20         // what one slow client may hold in memory before it is cut off
	writeDeadline  = 2 * time.Second  // a client whose socket takes nothing for so long is cut off
	maxConns       = 4096             // bots bring one each
	maxSubs        = 8192             // of one connection
	jsMemory       = 256 << 20        // leases
	jsStore        = 8 << 30          // streams reserve their own limits of it
	syncInterval   = 10 * time.Second // kill -9 loses nothing; a power failure at most so much
	startTimeout   = 10 * time.Second
	// authTimeout is how long a stranger may hold a connection without having
	// shown credentials.
	authTimeout = 2.0
)

// servers hold the accounts of the bus.
type servers interface {
	make(pub, tok string) error                          // lets them know of a new account
	put(ac *jwt.AccountClaims) error                     // makes these the claims that hold
	shutOut(users []string) error                        // closes the connections of users of NODE and refuses them from now on
	conns(accounts []string) ([]*server.ConnInfo, error) // of these accounts at least
	alone() bool                                         // it is one server, gone with the node's machine
}

// nats is a running server with the keys it trusts.
type nats struct {
	srv      *server.Server
	keys     *keys
	resolver server.AccountResolver
	cluster  *cluster               // nil: alone
	fatal    atomic.Pointer[string] // what it gave up with
	log      *zap.Logger
	dir      string
	off      time.Time // of the watch alone: when JetStream was last switched

	mu sync.Mutex // while claims change

	sysMu sync.Mutex
	sys   *natsgo.Conn // of a cluster, once it was needed
}

// start runs a server on listen with its state in dir, in clear where secure is nil, alone where cl
// is. It returns when clients can connect.
func start(ctx context.Context, dir, listen string, secure *tls.Config, cl *cluster, k *keys, accounts map[string]string, log *zap.Logger) (*nats, error) {
	host, port, err := splitListen(listen)
	if err != nil {
		return nil, err
	}
	oc, err := k.operatorClaims()
	if err != nil {
		return nil, err
	}
	n := &nats{keys: k, resolver: &server.MemAccResolver{}, cluster: cl, log: log, dir: dir}
	if cl != nil {
		if n.resolver, err = cl.resolver(filepath.Join(dir, "resolver")); err != nil {
			return nil, err
		}
	}
	for pub, tok := range accounts {
		if err := n.resolver.Store(pub, tok); err != nil {
			return nil, fmt.Errorf("account %s: %w", pub, err)
		}
	}
	opts := &server.Options{
		ServerName: "parley", Host: host, Port: port,
		NoSigs: true, NoLog: true, MaxTracedMsgLen: 256, DisableJetStreamBanner: true,
		TrustedOperators: []*jwt.OperatorClaims{oc}, SystemAccount: oc.SystemAccount, AccountResolver: n.resolver,
		JetStream: true, StoreDir: dir, JetStreamMaxMemory: jsMemory, JetStreamMaxStore: jsStore, SyncInterval: syncInterval,
		// Without this one reader that is late slows the sender down.
		NoFastProducerStall: true,
		MaxPayload:          maxPayload, MaxPending: maxPending, WriteDeadline: writeDeadline, MaxConn: maxConns, MaxSubs: maxSubs,
		MaxControlLine: maxControlLine, // a bot with every right has a long credential
		AuthTimeout:    authTimeout, PingInterval: 10 * time.Second, MaxPingsOut: 2,
	}
	if cl != nil {
		opts.ServerName, opts.Cluster, opts.Routes = cl.name, cl.opts, cl.routes
		opts.ConnectErrorReports, opts.ReconnectErrorReports = 60, 60 // of tries: they are a second apart
	}
	if secure != nil {
		opts.TLSConfig, opts.TLS, opts.TLSTimeout = secure, true, authTimeout
	}
	// The server only logs that it cannot listen; asking first makes it an error.
	if err := probe(ctx, listen); err != nil {
		return nil, err
	}
	if n.srv, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("nats-server: %w", err)
	}
	n.srv.SetLoggerV2(&logger{log: log, fatal: &n.fatal}, false, false, false)
	n.srv.Start()
	if !n.srv.ReadyForConnections(startTimeout) || n.fatal.Load() != nil {
		n.srv.Shutdown()
		if msg := n.fatal.Load(); msg != nil {
			return nil, fmt.Errorf("nats-server: %s", *msg)
		}
		return nil, fmt.Errorf("nats-server did not start within %s; is the disk of %s slow or full?", startTimeout, dir)
	}
	return n, nil
}

func splitListen(listen string) (string, int, error) {
	host, p, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("bus.listen %q is not host:port: %w", listen, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("bus.listen %q: %q is not a port", listen, p)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return host, port, nil
}

func probe(ctx context.Context, listen string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("bus cannot listen on %s (%w): end what uses that address or set bus.listen to another", listen, err)
	}
	return l.Close()
}

// url returns where clients of this machine connect.
func (n *nats) url() string {
	a, ok := n.srv.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := a.IP.String()
	if a.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// stop ends the server; it takes some milliseconds for each stream.
func (n *nats) stop() {
	n.sysMu.Lock()
	if n.sys != nil {
		n.sys.Close()
	}
	n.sysMu.Unlock()
	n.srv.Shutdown()
	n.srv.WaitForShutdown()
}

// jetStream looks after JetStream; the server carries messages on without it. It
// is switched off when the disk is nearly full or a write has failed (a stream
// then takes nothing more and does not answer either, so who writes would wait
// for nothing), and on again when there is room. back says that this call
// switched it on; the error says why it is off.
func (n *nats) jetStream() (back bool, err error) {
	free, err := freeBytes(n.dir)
	if err != nil {
		return false, err
	}
	if n.srv.JetStreamEnabled() {
		why := ""
		if free < fullBelow {
			why = n.full(free)
		} else if err := n.healthy(); err != nil {
			why = err.Error()
		}
		if why == "" {
			return false, nil
		}
		n.off = time.Now()
		if err := n.srv.ShutdownJetStream(); err != nil {
			return false, fmt.Errorf("jetstream, which failed with %s, cannot be switched off: %w", why, err)
		}
		return false, errors.New(why)
	}
	switch {
	case free < minFree:
		return false, errors.New(n.full(free))
	case time.Since(n.off) < offTime:
		return false, errWaiting
	}
	n.off = time.Now()
	err = n.srv.EnableJetStream(&server.JetStreamConfig{StoreDir: n.dir, MaxMemory: jsMemory, MaxStore: jsStore, SyncInterval: syncInterval})
	if err != nil {
		return false, fmt.Errorf("jetstream: %w", err)
	}
	return true, nil
}

func (n *nats) full(free uint64) string {
	return fmt.Sprintf("the disk of %s is full (%d MiB free, %d needed): rooms go on, but their events are not kept; make room",
		filepath.Join(n.dir, "jetstream"), free>>20, minFree>>20)
}

// logger sends the server's log lines to zap, its chatter at a lower level.
type logger struct {
	log   *zap.Logger
	fatal *atomic.Pointer[string]
}

func (l *logger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *logger) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *logger) Tracef(format string, v ...any)  {}

func (l *logger) Warnf(format string, v ...any) {
	if strings.HasPrefix(format, "Waiting for routing") || strings.Contains(format, "blocking snapshot") {
		l.Debugf(format, v...) // again and again, and nothing to be done about it
		return
	}
	l.log.Warn(fmt.Sprintf(format, v...))
}

func (l *logger) Errorf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	if strings.Contains(msg, "Permissions Violation") || strings.Contains(msg, "authentication error") {
		l.log.Warn(msg) // the client's fault
		return
	}
	l.log.Error(msg)
}

// Fatalf is called where the stand-alone server would exit.
func (l *logger) Fatalf(format string, v ...any) {
	msg := fmt.Sprintf(format, v...)
	l.fatal.CompareAndSwap(nil, &msg)
	l.log.Error(msg)
}

// errWaiting says that JetStream is off for a moment yet.
var errWaiting = errors.New("switched off a moment ago")

var errStopped = errors.New("nats-server has stopped")
