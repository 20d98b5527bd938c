package push

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/limits"
)

// Errors of targets.
var (
	// ErrUnsupported says that this node does not push to a platform; it says how it would.
	ErrUnsupported = errors.New("platform not supported")
	// ErrFull says that too much waits to be pushed.
	ErrFull = errors.New("too many pushes are waiting")
)

// Bounds of what is pushed.
const (
	workers     = 16
	maxWaiting  = 4096
	keepTrying  = 10 * time.Minute // a notice that is older is no use: the client looks anyway
	retryFirst  = 2 * time.Second
	retryMost   = 2 * time.Minute
	perEndpoint = 1 // a second
	endBurst    = 30
	perHost     = 50
	hostBurst   = 500
)

// lifetime is how long a push service may keep a notice.
const lifetime = 24 * time.Hour

// Target is where a client is woken up.
type Target struct {
	Platform string
	Token    string
	Topic    string
}

// Message is one notice.
type Message struct {
	Target
	Data   []byte // JSON
	Urgent bool
	// Timeout: it says that something ends.
	Timeout bool
}

// Options of a pusher.
type Options struct {
	// AllowPrivate takes endpoints in private networks and without TLS.
	AllowPrivate bool
	// Gorush is the URL of a gorush server for android and ios; "" is none.
	Gorush string
	// Secret signs webhooks; empty: there are none.
	Secret []byte
	// VAPID signs Web Push; nil: there is none.
	VAPID *VAPID
	Log   *zap.Logger
	// Metrics may be nil.
	Metrics *Metrics
	// Gone is called when a push service says that an endpoint is gone. It may not block.
	Gone func(Target)
}

// Pusher sends notices. It is safe for concurrent use.
type Pusher struct {
	o       Options
	now     func() time.Time
	client  *http.Client
	gorush  *http.Client
	senders map[string]sender
	ends    *limits.Limiter[string]
	hosts   *limits.Limiter[string]
	queue   chan *job

	mu      sync.Mutex
	waiting int
}

// sender makes the request of a message.
type sender interface {
	// check says whether a target can be pushed to, and its host.
	check(Target) (host string, err error)
	// send pushes once. The answer's body is closed.
	send(ctx context.Context, m Message, now time.Time) (*http.Response, error)
}

type job struct {
	Message
	host  string
	born  time.Time
	tries int
}

// New returns a pusher; it pushes while Run runs.
func New(o Options) *Pusher {
	if o.Metrics == nil {
		o.Metrics = newMetrics()
	}
	p := &Pusher{o: o, now: time.Now, client: newClient(o.AllowPrivate), gorush: newClient(true), queue: make(chan *job, maxWaiting),
		ends: limits.New[string](perEndpoint, endBurst), hosts: limits.New[string](perHost, hostBurst)}
	post := plain{p}
	p.senders = map[string]sender{"unifiedpush": post}
	if o.VAPID != nil {
		p.senders["webpush"] = web{p}
	}
	if len(o.Secret) > 0 {
		p.senders["webhook"] = hook{p}
	}
	if o.Gorush != "" {
		p.senders["android"], p.senders["ios"] = gorush{p, android}, gorush{p, ios}
	}
	return p
}

// missing says what has to be set for a platform.
var missing = map[string]string{
	"android": "dht.push_gorush", "ios": "dht.push_gorush", "webhook": "dht.push_webhook_secret_file",
}

// Check says whether a target can be pushed to: [ErrUnsupported] or [ErrEndpoint].
func (p *Pusher) Check(t Target) error {
	s, ok := p.senders[t.Platform]
	if !ok {
		if set, ok := missing[t.Platform]; ok {
			return fmt.Errorf("%w: this server has no way to push to %s (its operator has to set %s); unifiedpush and webpush work", ErrUnsupported, t.Platform, set)
		}
		return fmt.Errorf("%w: %.32q; there are android, ios, unifiedpush, webpush and webhook", ErrUnsupported, t.Platform)
	}
	_, err := s.check(t)
	return err
}

// Send hands a message over to be pushed, or says why it never will be: [ErrFull] or as
// [Pusher.Check].
func (p *Pusher) Send(m Message) error {
	if err := p.Check(m.Target); err != nil {
		return err
	}
	host, err := p.senders[m.Platform].check(m.Target)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting >= maxWaiting {
		p.o.Metrics.dropped.Inc()
		return ErrFull
	}
	p.waiting++
	p.queue <- &job{Message: m, host: host, born: p.now()} // has room for all that wait
	return nil
}

// done gives a place in the queue back.
func (p *Pusher) done() {
	p.mu.Lock()
	p.waiting--
	p.mu.Unlock()
}

// Waiting is how many messages are not pushed yet.
func (p *Pusher) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

// Run pushes until ctx ends; what waits then is not pushed.
func (p *Pusher) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case j := <-p.queue:
					p.try(ctx, &wg, j)
				}
			}
		})
	}
	wg.Wait()
	p.client.CloseIdleConnections()
	p.gorush.CloseIdleConnections()
}

// try pushes once, and has it tried again when that may help.
func (p *Pusher) try(ctx context.Context, wg *sync.WaitGroup, j *job) {
	wait := p.allowed(j)
	if wait == 0 {
		res := p.once(ctx, j)
		if ctx.Err() != nil {
			p.done()
			return
		}
		if res.final {
			p.done()
			return
		}
		wait = res.wait
	}
	if p.now().Add(wait).Sub(j.born) > keepTrying {
		p.o.Metrics.failed[j.Platform].Inc()
		p.o.Log.Info("push given up", zap.String("platform", j.Platform), zap.String("host", j.host), zap.Int("tries", j.tries))
		p.done()
		return
	}
	wg.Go(func() {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-ctx.Done():
			p.done()
		case <-t.C:
			p.queue <- j // its place is still taken
		}
	})
}

// allowed says how long a push has to wait for others to the same endpoint or host.
func (p *Pusher) allowed(j *job) time.Duration {
	now := p.now()
	if wait := p.hosts.Take(j.host, now); wait > 0 {
		return wait
	}
	return p.ends.Take(j.Platform+" "+j.Token, now)
}

// outcome of one push: final, or to be tried again after wait.
type outcome struct {
	final bool
	wait  time.Duration
}

func (p *Pusher) once(ctx context.Context, j *job) outcome {
	j.tries++
	resp, err := p.senders[j.Platform].send(ctx, j.Message, p.now())
	m, log := p.o.Metrics, p.o.Log.With(zap.String("platform", j.Platform), zap.String("host", j.host))
	again := func(at time.Duration) outcome {
		m.retried[j.Platform].Inc()
		log.Debug("push failed", zap.Error(err), zap.Int("try", j.tries), zap.Duration("again_in", at))
		return outcome{wait: at}
	}
	fail := func() outcome { m.failed[j.Platform].Inc(); return outcome{final: true} }
	switch {
	case errors.Is(err, ErrEndpoint):
		log.Info("push refused", zap.Error(err))
		p.gone(j)
		return fail()
	case err != nil:
		return again(backoff(j.tries))
	}
	switch status := resp.StatusCode; {
	case status < 300:
		m.sent[j.Platform].Inc()
		return outcome{final: true}
	case status == http.StatusNotFound, status == http.StatusGone:
		log.Info("the push service says that an endpoint is gone", zap.Int("status", status))
		p.gone(j)
		return fail()
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		err = fmt.Errorf("status %d", status)
		return again(max(retryAfter(resp, p.now()), backoff(j.tries)))
	default:
		log.Info("the push service refuses a push", zap.Int("status", status))
		return fail()
	}
}

// gone ends what is subscribed with an endpoint; that of gorush is the operator's own.
func (p *Pusher) gone(j *job) {
	if p.o.Gone != nil && j.Platform != "android" && j.Platform != "ios" {
		p.o.Gone(j.Target)
	}
}

// backoff doubles with each try, and varies, so that not all come at once.
func backoff(tries int) time.Duration {
	d := min(retryFirst<<min(tries-1, 10), retryMost)
	return d/2 + rand.N(d)
}

// retryAfter reads seconds or a date (RFC 9110 §10.2.3); what is beyond the time that a
// push is tried ends it.
func retryAfter(r *http.Response, now time.Time) time.Duration {
	text := r.Header.Get("Retry-After")
	if text == "" {
		return 0
	}
	if at, err := http.ParseTime(text); err == nil {
		return at.Sub(now)
	}
	d, err := time.ParseDuration(text + "s")
	if err != nil || d < 0 {
		return 0
	}
	return d
}
