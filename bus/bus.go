// Package bus is a typed view of NATS: it sends and serves the commands and
// events that package contract defines, with deadlines, error envelopes,
// idempotency and trace context.
//
// Order: events of one publisher on one subject arrive in order; commands are
// served concurrently, at most [maxInFlight] for each endpoint, and answered with
// "busy" beyond that. Blocking: nothing here waits for a slow reader; a
// subscriber that falls behind by [pendingLimit] messages loses the newest and its
// loss is counted and logged. A lost connection is re-established for ever.
package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/natscreds"
)

// flushTime bounds how long the server may take to read what was sent.
const flushTime = time.Second

// DefaultTimeout bounds a command whose context has no deadline.
const DefaultTimeout = 5 * time.Second

// pendingLimit bounds what a subscription holds in memory; at 1 KiB a message
// it is 16 MiB, several seconds of a busy room.
const pendingLimit = 16 << 10

// Options say how to reach the bus.
type Options struct {
	URL   string // "nats://127.0.0.1:4223", or several with commas between; empty: those that Creds names
	Creds string // path of the credentials file, which also says how the bus is verified
	// InProcess connects to a server of this process instead of URL.
	InProcess nats.InProcessConnProvider
	Name      string // the process, as the server shows it; also its inbox prefix
	Log       *zap.Logger
	// Refused, when not nil, is called for each time that the bus does not let these credentials in;
	// revoked: they were until now.
	Refused func(revoked bool, err error)
}

// Conn is one process's connection, as used for one account. It is safe for
// concurrent use.
type Conn struct {
	*link
	account atomic.Pointer[string]
}

// Any is the account of commands and events of every account: see [Conn.For].
const Any = "*"

// For returns the same connection as used for another account. With [Any] it
// serves and subscribes what is meant for any account, and sends nothing. What is
// called on one of them for the connection itself, Close too, is for all.
func (c *Conn) For(account string) *Conn {
	v := &Conn{link: c.link}
	v.SetAccount(account)
	return v
}

// link is the connection itself.
type link struct {
	nc   *nats.Conn
	log  *zap.Logger
	name string
	slow atomic.Uint64

	mu      sync.Mutex
	onAgain []*func()
	waiting map[*waiter]struct{} // requests without an answer
}

// waiter is a request that waits for its answer.
type waiter struct {
	subject string
	fail    context.CancelCauseFunc
}

// GuestUser is the name of a connection of a service on another machine, which has credentials of its own.
func GuestUser(service, name string) string { return service + "-" + name }

// WorkerUser is that of a media worker.
func WorkerUser(worker string) string { return GuestUser("media", worker) }

// InboxPrefix returns the inbox prefix of a process; its permissions name it.
func InboxPrefix(name string) string { return "_INBOX_" + name }

// pingEvery is how often a server of the bus is asked whether it is there; who leaves two unanswered is not.
// Where there are others, a worker must be at one of them before it counts as gone
// (1.6 s after its last beat), though it only was at a machine that is.
func pingEvery(url string) time.Duration {
	if strings.Contains(url, ",") {
		return 250 * time.Millisecond
	}
	return 5 * time.Second
}

// Connect dials the bus and retries until ctx ends: at a start of the node the
// bus may come later than its users.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	c := &Conn{link: &link{log: o.Log, name: o.Name, waiting: map[*waiter]struct{}{}}}
	opts := []nats.Option{
		nats.Name(o.Name), nats.CustomInboxPrefix(InboxPrefix(o.Name)),
		nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond), nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond),
		nats.Timeout(2 * time.Second), nats.PingInterval(pingEvery(o.URL)), nats.MaxPingsOutstanding(2),
		nats.ReconnectBufSize(1 << 20), nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				o.Log.Warn("bus connection lost", zap.Error(err))
			}
			// Their answers went to a connection that is no more.
			c.failWaiting("", contract.ErrUnavailable.With("the bus was lost before the answer came; whether it was done is not known"))
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			o.Log.Info("bus connection back")
			c.mu.Lock()
			fns := slices.Clone(c.onAgain)
			c.mu.Unlock()
			for _, fn := range fns {
				(*fn)()
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) {
				if n := c.slow.Add(1); n&(n-1) == 0 {
					o.Log.Warn("bus subscription too slow, messages lost", zap.String("subject", sub.Subject), zap.Uint64("times", n))
				}
				return
			}
			if subject, ok := refusedPublish(err); ok {
				c.failWaiting(subject, contract.ErrForbidden.With("%s is not allowed to send %s", o.Name, subject))
			}
			o.refused(err)
			o.Log.Error("bus refused", zap.Error(err))
		}),
	}
	if o.Creds != "" {
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.InProcess != nil {
		opts = append(opts, nats.InProcessServer(o.InProcess))
	}
	said := ""
	for {
		nc, url, err := o.dial(opts)
		if err == nil {
			c.nc = nc
			return c, nil
		}
		o.refused(err)
		if now := err.Error(); now != said && !errors.Is(err, nats.ErrNoServers) {
			said = now
			o.Log.Warn("bus not reached yet", zap.String("url", url), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("bus at %s: %w", url, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// dial tries once. The credentials file is read each time: the bus may have made it anew meanwhile.
func (o *Options) dial(opts []nats.Option) (_ *nats.Conn, url string, err error) {
	url = o.URL
	if o.Creds != "" && o.InProcess == nil {
		a, err := natscreds.ReadAccess(o.Creds)
		if err != nil {
			return nil, url, err
		}
		if url == "" {
			url = strings.Join(a.URLs, ",")
		}
		secure, err := natscreds.TLS(a)
		if err != nil {
			return nil, url, err
		}
		if secure != nil {
			opts = append(slices.Clip(opts), nats.Secure(secure))
		}
	}
	nc, err := nats.Connect(url, opts...)
	return nc, url, err
}

// refused tells of an error that says that the bus does not let these credentials in.
func (o *Options) refused(err error) {
	if o.Refused == nil {
		return
	}
	revoked := errors.Is(err, nats.ErrAuthRevoked)
	if revoked || errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAccountAuthExpired) {
		o.Refused(revoked, err)
	}
}

// NATS returns the connection itself, for what the contract does not cover
// (JetStream, audio frames).
func (c *Conn) NATS() *nats.Conn { return c.nc }

// Log returns the logger of the connection.
func (c *Conn) Log() *zap.Logger { return c.log }

// OnReconnect registers fn for every time the connection comes back, until stop, which
// may be called more than once. A call that runs then goes on.
func (c *Conn) OnReconnect(fn func()) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onAgain = append(c.onAgain, &fn)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.onAgain = slices.DeleteFunc(c.onAgain, func(f *func()) bool { return f == &fn })
	}
}

// Connected reports whether the bus is reachable now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Account returns the Jami Id that fills {account}, empty until it is known.
func (c *Conn) Account() string {
	if p := c.account.Load(); p != nil {
		return *p
	}
	return ""
}

// SetAccount sets what fills {account}.
func (c *Conn) SetAccount(id string) { c.account.Store(&id) }

// WaitAccount asks identity until it has an account, which takes some seconds
// at the very first start.
func (c *Conn) WaitAccount(ctx context.Context) (contract.Account, error) {
	changed := make(chan struct{}, 1)
	sub, err := Subscribe(c, contract.IdentityReady, func(context.Context, []string, *contract.IdentityState) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return contract.Account{}, err
	}
	defer sub.Stop()
	for {
		st, err := Call(ctx, c, contract.IdentityGet, &contract.None{})
		if err == nil && st.State == "ready" {
			c.SetAccount(st.Account.ID)
			return st.Account, nil
		}
		select {
		case <-ctx.Done():
			return contract.Account{}, ctx.Err()
		case <-changed:
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close flushes what is queued and disconnects; subscriptions end.
func (c *Conn) Close() {
	if c.nc.IsConnected() {
		if err := c.nc.FlushTimeout(flushTime); err != nil {
			c.log.Warn("bus flush at close", zap.Error(err))
		}
	}
	c.nc.Close()
}

// params puts the account before the given tokens where the pattern asks for it.
func (c *Conn) params(d *contract.Def, given []string) []string {
	if p := d.Params(); len(p) > 0 && p[0] == "account" {
		acc := c.Account()
		if acc == "" {
			acc = "*"
		}
		return append([]string{acc}, given...)
	}
	return given
}

// known refuses to send before the account is known: the subject would have a
// wildcard in it.
func (c *Conn) known(d *contract.Def) error {
	if acc := c.Account(); acc == "" || acc == Any {
		if p := d.Params(); len(p) > 0 && p[0] == "account" {
			return contract.ErrUnavailable.With("%s: the node's account is not known yet", d.Name)
		}
	}
	return nil
}

// request sends m and waits. Unlike the client alone it ends at once when the
// server refuses the subject or the connection breaks; the error is then a
// *contract.Error.
func (c *Conn) request(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &waiter{m.Subject, cancel}
	c.mu.Lock()
	c.waiting[w] = struct{}{}
	c.mu.Unlock()
	r, err := c.nc.RequestMsgWithContext(ctx, m)
	c.mu.Lock()
	delete(c.waiting, w)
	c.mu.Unlock()
	if err != nil {
		if e, ok := errors.AsType[*contract.Error](context.Cause(ctx)); ok {
			return nil, e
		}
	}
	return r, err
}

// failWaiting ends the requests that wait on subject, or all when it is empty.
func (c *Conn) failWaiting(subject string, err *contract.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.waiting {
		if subject == "" || w.subject == subject {
			w.fail(err)
		}
	}
}

// refusedPublish returns the subject that the server refused to take.
func refusedPublish(err error) (string, bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	_, after, ok := strings.Cut(err.Error(), `Publish to "`)
	if !ok {
		return "", false
	}
	subject, _, ok := strings.Cut(after, `"`)
	return subject, ok
}

type keyCtx struct{}

// WithKey gives the commands called with ctx an idempotency key.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyCtx{}, key)
}

var propagator = propagation.TraceContext{}

// Call sends a command and waits for its reply. params fill the tokens of the
// subject after {account}. An error is a *contract.Error: "unavailable" when nobody
// serves the command or the bus is lost while waiting, "forbidden" when this
// process may not send it, "timeout" when ctx (or [DefaultTimeout]) ended first.
// With the bus away the command waits and is sent when it is back.
func Call[Q, A any](ctx context.Context, c *Conn, cmd contract.Command[Q, A], q *Q, params ...string) (_ *A, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	ctx, span := otel.Tracer("parley/bus").Start(ctx, "call "+cmd.Name)
	defer func() { endSpan(span, err) }()
	if err := c.known(cmd.Def); err != nil {
		return nil, err
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, contract.ErrBadRequest.With("%s: %v", cmd.Name, err)
	}
	m := nats.NewMsg(cmd.Subject(c.params(cmd.Def, params)...))
	m.Data = body
	propagator.Inject(ctx, propagation.HeaderCarrier(m.Header))
	if at, ok := ctx.Deadline(); ok {
		m.Header.Set(contract.HeaderTimeout, strconv.FormatInt(max(time.Until(at).Milliseconds(), 1), 10))
	}
	if k, ok := ctx.Value(keyCtx{}).(string); ok && k != "" {
		m.Header.Set(contract.HeaderKey, k)
	}
	r, err := c.request(ctx, m)
	if err != nil {
		return nil, requestError(err, cmd.Name, cmd.Service)
	}
	if r.Header.Get("Nats-Service-Error-Code") != "" {
		e := new(contract.Error)
		if json.Unmarshal(r.Data, e) != nil || e.Code == "" {
			return nil, contract.ErrInternal.With("%s: %s", cmd.Name, r.Header.Get("Nats-Service-Error"))
		}
		return nil, e
	}
	a := new(A)
	if err := json.Unmarshal(r.Data, a); err != nil {
		return nil, contract.ErrInternal.With("%s: reply of %s: %v", cmd.Name, cmd.Service, err)
	}
	return a, nil
}

// endSpan ends a span with the error that it ended with, if any.
func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// Publish sends an event, with the trace of ctx. It does not wait; with the bus away
// it is buffered up to 1 MiB, then refused.
func Publish[E any](ctx context.Context, c *Conn, ev contract.Event[E], e *E, params ...string) error {
	if err := c.known(ev.Def); err != nil {
		return err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("%s: %w", ev.Name, err)
	}
	m := nats.NewMsg(ev.Subject(c.params(ev.Def, params)...))
	m.Data = body
	propagator.Inject(ctx, propagation.HeaderCarrier(m.Header))
	if err := c.nc.PublishMsg(m); err != nil {
		return fmt.Errorf("%s: %w", ev.Name, err)
	}
	return nil
}

// Subscription ends with Stop.
type Subscription struct{ sub *nats.Subscription }

// Stop ends the delivery; a handler that runs finishes.
func (s *Subscription) Stop() {
	if err := s.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
		zap.L().Debug("unsubscribe", zap.Error(err))
	}
}

// Subscribe calls fn for each event, one at a time and in order. Missing params
// match anything; fn gets the tokens of the subject, {account} first where the
// pattern has it. A payload that does not parse is logged and passed over. With
// the bus there, what is published after Subscribe has returned arrives.
func Subscribe[E any](c *Conn, ev contract.Event[E], fn func(ctx context.Context, params []string, e *E), params ...string) (*Subscription, error) {
	sub, err := c.nc.Subscribe(ev.Subject(c.params(ev.Def, params)...), func(m *nats.Msg) {
		e := new(E)
		if err := json.Unmarshal(m.Data, e); err != nil {
			c.log.Warn("event does not parse", zap.String("subject", m.Subject), zap.Error(err))
			return
		}
		toks, ok := ev.Match(m.Subject)
		if !ok {
			return
		}
		ctx := propagator.Extract(context.Background(), propagation.HeaderCarrier(m.Header))
		fn(ctx, toks, e)
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", ev.Name, err)
	}
	if err := sub.SetPendingLimits(pendingLimit, pendingLimit<<10); err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", ev.Name, err)
	}
	c.settle(ev.Name)
	return &Subscription{sub}, nil
}

// settle waits until the bus knows of a subscription.
func (c *Conn) settle(name string) {
	if c.Connected() {
		if err := c.nc.FlushTimeout(flushTime); err != nil { // lost meanwhile: it is subscribed when it is back
			c.log.Debug("subscribed later", zap.String("name", name), zap.Error(err))
		}
	}
}
