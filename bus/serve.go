package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
)

// maxInFlight bounds the handlers of one endpoint that run at once.
const maxInFlight = 256

// slowHandler is when a handler is logged by name.
const slowHandler = 5 * time.Second

// Replies to commands with an idempotency key are kept this long, this many and
// so many bytes of them: beyond, the oldest go.
const (
	keepReplies      = 2 * time.Minute
	keepRepliesMax   = 16 << 10
	keepRepliesBytes = 16 << 20
)

// maxKey bounds an idempotency key.
const maxKey = 128

// maxTimeout bounds how long a caller can have a command go on; the right to
// answer it ends sooner.
const maxTimeout = 5 * time.Minute

// Service serves commands under one name of `nats micro ls`.
type Service struct {
	c     *Conn
	svc   micro.Service
	ctx   context.Context // ends the handlers when the service stops
	stop  context.CancelFunc
	wg    sync.WaitGroup
	mu    sync.Mutex
	ended bool // no command begins any more
	done  map[string]*pastReply
	order []*pastReply // oldest first; those that done does not hold any more too
	bytes int          // of the replies in done, with their ids
	sweep *time.Timer  // forgets what got too old while no command comes; nil: nothing is kept
}

type pastReply struct {
	id   string
	at   time.Time
	wait chan struct{} // closed when body and err are set
	body []byte
	err  *contract.Error
	kept int // bytes that it counts for
}

// Request is a command as its handler gets it.
type Request[Q any] struct {
	Params []string // tokens of the subject, {account} first where the pattern has it
	Body   Q
	Key    string // idempotency key, may be empty
}

// Param returns the token with that name in the pattern's order, or "".
func (r *Request[Q]) Param(i int) string {
	if i < len(r.Params) {
		return r.Params[i]
	}
	return ""
}

// NewService registers the process with NATS micro.
func NewService(c *Conn, name, version, doc string) (*Service, error) {
	svc, err := micro.AddService(c.nc, micro.Config{Name: "parley-" + name, Version: semver(version), Description: doc})
	if err != nil {
		return nil, fmt.Errorf("micro service %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Service{c: c, svc: svc, ctx: ctx, stop: cancel, done: map[string]*pastReply{}}, nil
}

var semverForm = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// semver makes a version that NATS micro takes of one that names a commit.
func semver(v string) string {
	v = strings.TrimPrefix(v, "v")
	if semverForm.MatchString(v) {
		return v
	}
	build := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '.' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') {
			return r
		}
		return '-'
	}, v)
	if build == "" {
		return "0.0.0"
	}
	return "0.0.0+" + build
}

// Stop refuses new commands, ends the context of those that run and waits for
// them.
func (s *Service) Stop() {
	if err := s.svc.Stop(); err != nil {
		s.c.log.Debug("micro stop", zap.Error(err))
	}
	s.mu.Lock()
	s.ended = true // micro has stopped, and may deliver what it had received
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweep != nil {
		s.sweep.Stop()
	}
}

// begin counts a command that [Service.Stop] has to wait for, or refuses it.
func (s *Service) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.wg.Add(1)
	return true
}

// Serve answers a command. params pin tokens of the subject after {account};
// the others match anything. The handler's error is sent as it is when it is a
// *contract.Error, else as "internal" and logged. A command that names no inbox for
// its answer is ignored. The context that fn gets ends when nobody waits for the
// answer any more, or with the return.
func Serve[Q, A any](s *Service, cmd contract.Command[Q, A], fn func(ctx context.Context, r *Request[Q]) (*A, error), params ...string) error {
	slots := make(chan struct{}, maxInFlight)
	subject := cmd.Subject(s.c.params(cmd.Def, params)...)
	h := micro.HandlerFunc(func(req micro.Request) {
		select {
		case slots <- struct{}{}:
		default:
			s.refuse(req, contract.ErrBusy)
			return
		}
		if !s.begin() {
			<-slots
			s.refuse(req, contract.ErrUnavailable)
			return
		}
		go func() {
			defer s.wg.Done()
			defer func() { <-slots }()
			s.handle(req, cmd.Def, func(ctx context.Context, toks []string, key string) ([]byte, error) {
				r := &Request[Q]{Params: toks, Key: key}
				if len(req.Data()) > 0 {
					if err := json.Unmarshal(req.Data(), &r.Body); err != nil {
						return nil, contract.ErrBadRequest.With("%s: %v", cmd.Name, err)
					}
				}
				a, err := fn(ctx, r)
				if err != nil {
					return nil, err
				}
				return json.Marshal(a)
			})
		}()
	})
	err := s.svc.AddEndpoint(strings.ReplaceAll(cmd.Name, ".", "-"), h, micro.WithEndpointSubject(subject),
		micro.WithEndpointQueueGroup(cmd.Service))
	if err != nil {
		return fmt.Errorf("serve %s: %w", cmd.Name, err)
	}
	s.c.settle(cmd.Name)
	return nil
}

// isInbox reports whether reply is where an asker waits: an inbox of a process, or
// the server's own for a request out of a bot's account.
func isInbox(reply string) bool {
	return strings.HasPrefix(reply, "_INBOX") || strings.HasPrefix(reply, "_R_.")
}

func (s *Service) handle(req micro.Request, d *contract.Def, run func(ctx context.Context, toks []string, key string) ([]byte, error)) {
	if !isInbox(req.Reply()) {
		// The answer would be sent with this process's permissions to a
		// subject that the asker chose; and what was stored and is delivered by
		// JetStream is no command at all.
		s.c.log.Warn("command without an inbox to answer to, ignored", zap.String("subject", req.Subject()), zap.String("reply", req.Reply()))
		return
	}
	toks, ok := d.Match(req.Subject())
	if !ok {
		s.refuse(req, contract.ErrBadRequest)
		return
	}
	ctx := propagator.Extract(s.ctx, propagation.HeaderCarrier(req.Headers()))
	ctx, span := otel.Tracer("parley/bus").Start(ctx, "serve "+d.Name)
	var err *contract.Error
	defer func() {
		if err != nil {
			endSpan(span, err)
			return
		}
		endSpan(span, nil)
	}()
	ctx, cancel := context.WithTimeout(ctx, waits(req.Headers().Get(contract.HeaderTimeout)))
	defer cancel()
	key := req.Headers().Get(contract.HeaderKey)
	if len(key) > maxKey {
		s.refuse(req, contract.ErrBadRequest.With("the header %s has at most %d bytes", contract.HeaderKey, maxKey))
		return
	}
	if d.Query { // asking again has no effect that could be had twice
		key = ""
	}
	if key == "" {
		var body []byte
		body, err = s.run(ctx, d, toks, "", run)
		s.answer(req, body, err)
		return
	}
	id := req.Subject() + " " + key
	s.mu.Lock()
	past, again := s.done[id]
	if again && time.Since(past.at) >= keepReplies {
		again = false
	}
	if !again {
		past = &pastReply{id: id, at: time.Now(), wait: make(chan struct{})}
		s.rememberLocked(past)
	}
	s.mu.Unlock()
	if !again {
		past.body, past.err = s.run(ctx, d, toks, key, run)
		s.mu.Lock()
		if past.err != nil && past.err.Retry { // what may succeed later is not answered from memory
			s.forgetLocked(past)
		} else if s.done[id] == past {
			s.bytes += len(past.body)
			past.kept += len(past.body)
			s.trimLocked()
		}
		s.mu.Unlock()
		close(past.wait)
	}
	select {
	case <-past.wait:
		err = past.err
		s.answer(req, past.body, err)
	case <-ctx.Done():
		err = contract.ErrUnavailable
		s.refuse(req, err)
	}
}

// waits reads how long a caller waits.
func waits(header string) time.Duration {
	ms, err := strconv.ParseInt(header, 10, 64)
	if err != nil || ms <= 0 {
		return DefaultTimeout
	}
	return min(time.Duration(min(ms, maxTimeout.Milliseconds()))*time.Millisecond, maxTimeout)
}

// rememberLocked keeps p and forgets what is too old or too much.
func (s *Service) rememberLocked(p *pastReply) {
	s.forgetLocked(s.done[p.id])
	s.done[p.id] = p
	s.order = append(s.order, p)
	p.kept = len(p.id)
	s.bytes += p.kept
	s.trimLocked()
	if s.sweep == nil {
		s.sweep = time.AfterFunc(keepReplies, s.forgetOld)
	}
}

// forgetLocked drops p where it is kept; its place in the order goes later.
func (s *Service) forgetLocked(p *pastReply) {
	if p != nil && s.done[p.id] == p {
		delete(s.done, p.id)
		s.bytes -= p.kept
	}
}

func (s *Service) trimLocked() {
	for len(s.order) > 0 {
		first := s.order[0]
		if s.done[first.id] == first && len(s.done) <= keepRepliesMax && s.bytes <= keepRepliesBytes && time.Since(first.at) < keepReplies {
			return
		}
		s.forgetLocked(first)
		s.order[0] = nil
		s.order = s.order[1:]
	}
}

// forgetOld runs from time to time while replies are kept.
func (s *Service) forgetOld() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trimLocked()
	if len(s.order) == 0 {
		s.sweep = nil
		return
	}
	s.sweep.Reset(max(keepReplies-time.Since(s.order[0].at), time.Second))
}

func (s *Service) run(ctx context.Context, d *contract.Def, toks []string, key string, run func(context.Context, []string, string) ([]byte, error)) (body []byte, cerr *contract.Error) {
	start, ref := time.Now(), reference(ctx)
	internal := fmt.Sprintf("%s: an error in the node; its log says more under reference %s", d.Name, ref)
	defer func() {
		if p := recover(); p != nil {
			s.c.log.Error("handler panicked", zap.String("command", d.Name), zap.String("reference", ref), zap.Any("panic", p), zap.Stack("stack"))
			cerr = contract.ErrInternal.With("%s", internal)
		}
		if took := time.Since(start); took > slowHandler {
			s.c.log.Warn("slow command", zap.String("command", d.Name), zap.Duration("took", took))
		}
	}()
	body, err := run(ctx, toks, key)
	if err == nil {
		return body, nil
	}
	if e, ok := errors.AsType[*contract.Error](err); ok {
		return nil, e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		return nil, contract.ErrTimeout.With("%s: it was not done in the time that its caller gave", d.Name)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return nil, contract.ErrUnavailable.With("%s: %s is ending", d.Name, d.Service)
	}
	// Its text is for the operator: it may name files and addresses.
	s.c.log.Error("command failed", zap.String("command", d.Name), zap.String("reference", ref), zap.Error(err))
	return nil, contract.ErrInternal.With("%s", internal)
}

// reference is what finds a command again in the log: its trace, where there is one.
func reference(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return nuid.Next()
}

func (s *Service) answer(req micro.Request, body []byte, err *contract.Error) {
	if err != nil {
		s.refuse(req, err)
		return
	}
	if int64(len(body)) > s.c.nc.MaxPayload() {
		s.c.log.Error("reply larger than a message of the bus", zap.String("subject", req.Subject()), zap.Int("bytes", len(body)))
		s.refuse(req, contract.ErrInternal.With("the answer has %d bytes, more than a message of the bus holds; ask for less", len(body)))
		return
	}
	if e := req.Respond(body); e != nil {
		s.c.log.Warn("reply not sent", zap.String("subject", req.Subject()), zap.Error(e))
	}
}

func (s *Service) refuse(req micro.Request, e *contract.Error) {
	body, err := json.Marshal(e)
	if err == nil {
		// Not req.Error: it writes into req what micro reads when the handler has
		// returned, and ours answers later, on a goroutine of its own. Who calls
		// sees the same headers.
		err = req.Respond(body, micro.WithHeaders(micro.Headers{micro.ErrorCodeHeader: {e.Code}, micro.ErrorHeader: {e.Message}}))
	}
	if err != nil {
		s.c.log.Warn("refusal not sent", zap.String("subject", req.Subject()), zap.Error(err))
	}
}
