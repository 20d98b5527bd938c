// Package swarm is the process that keeps conversations: each room's chat is a Git
// repository in the layout of Jami's swarms, a message a commit that the account's
// device signed.
//
// It serves swarm.open, swarm.post, swarm.read and swarm.detach; conference decides
// who may. A post is answered when its commit is on the disk. Each conversation that
// is open has one goroutine that writes, with a queue of [queueLen]; reading waits
// for nobody. A conversation is verified before its first use: after a start all are,
// one by one, and sooner who is asked for.
//
// On the disk:
//
//	DATA/swarm/ACCOUNT/rooms.json                     room to conversation
//	DATA/swarm/ACCOUNT/conversations/CONVERSATION/    a Git repository
//	DATA/swarm/ACCOUNT/members/                       conversations with Jami accounts
//
// Conversations with Jami accounts are written by all their members. It fetches them from
// members' devices and serves them to these; connect has the channels, and brings them to
// the socket DATA/run/channels.sock ([contract.GitSocket]). Identity tells it of contacts with
// a conversation and of notices, and is told what members wrote.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/gate"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// maxOpen bounds the conversations that are open at once, with some hundred KiB
// each; the one that nobody used for the longest time is closed for another.
const maxOpen = 1024

// verifyAtOnce bounds the conversations that are verified at once: one after the
// other at a start, and one that somebody waits for.
const verifyAtOnce = 2

// Service is the swarm process.
type Service struct {
	env *host.Env
	log *zap.Logger

	// fixed after the start
	dir     string // DATA/swarm/ACCOUNT
	rooms   *roomMap
	damaged error // why rooms is nil
	maxOpen int
	verify  chan struct{} // holds an element for each conversation that is being verified
	posts   *prometheus.CounterVec
	took    prometheus.Histogram
	fetches *prometheus.CounterVec

	gates   *gate.Set
	authors *authors
	main    string         // the node's main account
	wg      sync.WaitGroup // of the conversations

	git      *gitSocket
	fetching chan struct{} // holds an element for each conversation that is being fetched

	mu      sync.Mutex
	convs   map[string]*conversation
	members map[string]*memberships // by account; nil: none are followed any more
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	s := &Service{env: env, log: env.Log, convs: map[string]*conversation{}, members: map[string]*memberships{}, maxOpen: maxOpen, verify: make(chan struct{}, verifyAtOnce), fetching: make(chan struct{}, fetchAtOnce),
		posts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_swarm_posts_total", Help: "Messages by result: an error code, or ok."}, []string{"result"}),
		took:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_swarm_post_seconds", Help: "From a post to its commit on the disk.", Buckets: prometheus.ExponentialBuckets(0.002, 2, 11)}),
	}
	s.fetches = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_swarm_fetches_total", Help: "Conversations fetched from members, by result: ok, unreachable or refused."}, []string{"result"})
	for _, r := range []string{fetchOK, fetchUnreachable, fetchRefused} {
		s.fetches.WithLabelValues(r)
	}
	for _, c := range []prometheus.Collector{s.posts, s.took, s.fetches} {
		if err := env.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return s, nil
}

// Run serves until ctx ends. A post that is being written then may be answered
// with "unavailable" and be there all the same: its key makes repeating it harmless.
func (s *Service) Run(ctx context.Context) error {
	c, acc, err := s.env.ConnectAccount(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if s.gates, err = gate.OpenAll(ctx, c); err != nil {
		return err
	}
	defer s.gates.Close()
	dir, err := s.env.Dir()
	if err != nil {
		return err
	}
	s.dir = filepath.Join(dir, acc.ID)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("conversations: %w", err)
	}
	if s.rooms, err = loadRooms(s.dir, s.log); errors.Is(err, contract.ErrStateDamaged) {
		s.damaged = err // said to whoever asks: ending would be a restart for ever
		s.log.Error("no chat", zap.Error(err))
	} else if err != nil {
		return err
	}
	// Signatures and open conversations outlast ctx until the last command is answered.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		stop()
		s.endMembers()
		s.wg.Wait()
	}()
	s.main, s.authors = acc.ID, newAuthors(work, c)
	sub, err := bus.Subscribe(c, contract.IdentityReady, func(_ context.Context, _ []string, st *contract.IdentityState) {
		if st.State == "ready" {
			s.authors.rename(st.Accounts)
		}
	})
	if err != nil {
		return err
	}
	defer sub.Stop()
	if err := s.learnAuthor(ctx); err != nil {
		return err
	}
	svc, err := bus.NewService(c.For(bus.Any), "swarm", s.env.Version, "conversations in Git")
	if err != nil {
		return err
	}
	defer svc.Stop()
	run, err := s.env.RunDir()
	if err != nil {
		return err
	}
	if s.git, err = listenGit(filepath.Join(run, contract.GitSocket), s.log.Named("git")); err != nil {
		return err
	}
	s.git.serve = s.serveGit
	s.wg.Go(func() { s.git.run(work) })
	if err := errors.Join(s.serve(work, svc), s.serveMembers(svc)); err != nil {
		return err
	}
	unfollow, err := s.followMembers(work, c)
	if err != nil {
		return err
	}
	defer unfollow()
	if err := c.NATS().FlushTimeout(bus.DefaultTimeout); err != nil { // the bus knows now what is served here
		return fmt.Errorf("bus: %w", err)
	}
	if s.damaged == nil {
		s.wg.Go(func() { s.warm(work) })
		s.env.SetReady(true)
	}
	<-ctx.Done()
	return ctx.Err()
}

// learnAuthor asks identity who commits, until it answers.
func (s *Service) learnAuthor(ctx context.Context) error {
	for {
		st, err := bus.Call(ctx, s.authors.conn, contract.IdentityGet, &contract.None{})
		if err == nil {
			s.authors.rename(st.Accounts)
			_, err = s.authors.of(s.main)
		}
		if err == nil {
			return nil
		}
		if ce, ok := err.(*contract.Error); !ok || !ce.Retry {
			return fmt.Errorf("certificates of the account: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *Service) serve(work context.Context, svc *bus.Service) error {
	return errors.Join(
		bus.Serve(svc, contract.SwarmOpen, whole(s, func(ctx context.Context, r *bus.Request[contract.None]) (*contract.Conversation, error) {
			res := s.ask(ctx, work, r.Param(1), job{verb: open, account: r.Param(0)})
			return &res.conv, res.err
		})),
		bus.Serve(svc, contract.SwarmDetach, whole(s, func(ctx context.Context, r *bus.Request[contract.None]) (*contract.None, error) {
			return &contract.None{}, s.ask(ctx, work, r.Param(1), job{verb: detach}).err
		})),
		bus.Serve(svc, contract.SwarmPost, whole(s, func(ctx context.Context, r *bus.Request[contract.ChatPost]) (*contract.ChatMessage, error) {
			start := time.Now()
			msg, err := s.post(ctx, work, r)
			result := "ok"
			if err != nil {
				result = "error"
				if ce, ok := err.(*contract.Error); ok {
					result = ce.Code
				}
			} else {
				s.took.Observe(time.Since(start).Seconds())
			}
			s.posts.WithLabelValues(result).Inc()
			return msg, err
		})),
		bus.Serve(svc, contract.SwarmRead, whole(s, func(ctx context.Context, r *bus.Request[contract.ChatQuery]) (*contract.ChatHistory, error) {
			return s.read(ctx, work, r)
		})),
	)
}

// whole refuses a command while rooms.json is damaged.
func whole[Q, A any](s *Service, fn func(context.Context, *bus.Request[Q]) (*A, error)) func(context.Context, *bus.Request[Q]) (*A, error) {
	return func(ctx context.Context, r *bus.Request[Q]) (*A, error) {
		if s.damaged != nil {
			return nil, s.damaged
		}
		return fn(ctx, r)
	}
}

// warm verifies the conversations one by one before somebody waits for them.
func (s *Service) warm(work context.Context) {
	for i, room := range s.rooms.all() {
		if i == s.maxOpen {
			return // the others when they are asked for
		}
		s.ask(work, work, room, job{verb: find})
	}
}

// use returns the actor of a room and starts it when there is none. It stays until
// release.
func (s *Service) use(work context.Context, room string) (*conversation, error) {
	if !validRoom(room) {
		return nil, contract.ErrBadRequest.With("a room's name is 1 to 64 of a-z, 0-9 and -")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.convs[room]
	if !ok {
		if len(s.convs) >= s.maxOpen && !s.closeOneLocked() {
			return nil, contract.ErrBusy.With("%d conversations are in use at once; try again", s.maxOpen)
		}
		c = &conversation{room: room, svc: s, jobs: make(chan job, queueLen), quit: make(chan struct{})}
		s.convs[room] = c
		s.wg.Add(1)
		go c.run(work, &s.wg)
	}
	c.users++
	c.used = time.Now()
	return c, nil
}

// hold keeps a conversation that is in use for one more.
func (s *Service) hold(c *conversation) {
	s.mu.Lock()
	c.users++
	s.mu.Unlock()
}

// release ends use and hold.
func (s *Service) release(c *conversation) {
	s.mu.Lock()
	c.users--
	s.mu.Unlock()
}

// closeOneLocked ends the conversation that was idle the longest; false when all
// are in use.
func (s *Service) closeOneLocked() bool {
	var oldest *conversation
	for _, c := range s.convs {
		if c.users == 0 && (oldest == nil || c.used.Before(oldest.used)) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	delete(s.convs, oldest.room)
	close(oldest.quit) // it has no job, and gets none
	return true
}

// ask has the room's conversation do a job.
func (s *Service) ask(ctx, work context.Context, room string, j job) result {
	c, err := s.use(work, room)
	if err != nil {
		return result{err: err}
	}
	defer s.release(c)
	return c.ask(ctx, j)
}

func (s *Service) post(ctx, work context.Context, r *bus.Request[contract.ChatPost]) (*contract.ChatMessage, error) {
	if r.Body.Key == "" {
		r.Body.Key = r.Key
	}
	m, err := textMessage(&r.Body)
	if err != nil {
		return nil, err
	}
	room := r.Param(1)
	res := s.ask(ctx, work, room, job{verb: post, account: r.Param(0), message: m})
	if res.err != nil {
		return nil, res.err
	}
	out := chatMessage(room, res.entry)
	return &out, nil
}

func (s *Service) read(ctx, work context.Context, r *bus.Request[contract.ChatQuery]) (*contract.ChatHistory, error) {
	q := r.Body
	if q.Limit == 0 {
		q.Limit = 50
	}
	if q.Limit < 1 || q.Limit > 200 {
		return nil, contract.ErrBadRequest.With("limit is 1 to 200")
	}
	if q.Before != "" && !commit.IsID(q.Before) {
		return nil, contract.ErrBadRequest.With("before is the id of a message: 40 hex digits")
	}
	room := r.Param(1)
	nothing := &contract.ChatHistory{Messages: []contract.ChatMessage{}} // was said yet; reading makes nothing
	if validRoom(room) && s.rooms.get(room) == "" {
		return nothing, nil
	}
	conv, err := s.use(work, room)
	if err != nil {
		return nil, err
	}
	defer s.release(conv)
	rep := conv.repo.Load()
	if rep == nil { // being verified: wait for that
		if res := conv.ask(ctx, job{verb: find}); errors.Is(res.err, contract.ErrNotFound) {
			return nothing, nil
		} else if res.err != nil {
			return nil, res.err
		}
		if rep = conv.repo.Load(); rep == nil {
			return nothing, nil // detached meanwhile
		}
	}
	page, more, err := rep.Page(q.Before, q.Limit, pageBytes, func(e *repo.Entry) int { return sent(room, e) })
	if err != nil {
		return nil, conv.explain(err)
	}
	h := &contract.ChatHistory{Conversation: rep.ID, More: more, Messages: make([]contract.ChatMessage, 0, len(page))}
	for _, e := range page {
		h.Messages = append(h.Messages, chatMessage(room, e))
	}
	return h, nil
}
