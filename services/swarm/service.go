// Package swarm is the process that keeps conversations: each room's chat is a Git
// repository in the layout of Jami's swarms, a message a commit that the account's
// device signed.
//
// It serves swarm.open, swarm.post and swarm.read; conference decides who may. A
// post is answered when its commit is on the disk. Each conversation has one
// goroutine that writes, with a queue of [queueLen]; reading waits for nobody.
//
// On the disk:
//
//	DATA/swarm/ACCOUNT/rooms.json                     room to conversation
//	DATA/swarm/ACCOUNT/conversations/CONVERSATION/    a Git repository
package swarm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// maxRooms bounds the conversations that are open at once.
const maxRooms = 4096

// Service is the swarm process.
type Service struct {
	env *host.Env
	log *zap.Logger

	// fixed after the start
	dir   string // DATA/swarm/ACCOUNT
	rooms *roomMap
	posts *prometheus.CounterVec
	took  prometheus.Histogram

	author atomic.Pointer[repo.Author]
	wg     sync.WaitGroup // of the conversations

	mu    sync.Mutex
	convs map[string]*conversation
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	s := &Service{env: env, log: env.Log, convs: map[string]*conversation{},
		posts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_swarm_posts_total", Help: "Messages by result: an error code, or ok."}, []string{"result"}),
		took:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_swarm_post_seconds", Help: "From a post to its commit on the disk.", Buckets: prometheus.ExponentialBuckets(0.002, 2, 11)}),
	}
	for _, c := range []prometheus.Collector{s.posts, s.took} {
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
	dir, err := s.env.Dir()
	if err != nil {
		return err
	}
	s.dir = filepath.Join(dir, acc.ID)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("conversations: %w", err)
	}
	if s.rooms, err = loadRooms(s.dir, s.log); err != nil {
		return err
	}
	// Signatures and open conversations outlast ctx until the last command is answered.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		stop()
		s.wg.Wait()
	}()
	if err := s.learnAuthor(ctx, work, c, acc.Alias); err != nil {
		return err
	}
	sub, err := bus.Subscribe(c, contract.IdentityReady, func(_ context.Context, _ []string, st *contract.IdentityState) {
		if st.Account.ID == acc.ID && st.State == "ready" {
			a := *s.author.Load()
			a.Name = st.Account.Alias
			s.author.Store(&a)
		}
	})
	if err != nil {
		return err
	}
	defer sub.Stop()
	for _, room := range s.rooms.all() { // verify them before somebody waits for it
		if _, err := s.conversation(work, room); err != nil {
			return err
		}
	}
	svc, err := bus.NewService(c, "swarm", s.env.Version, "conversations in Git")
	if err != nil {
		return err
	}
	defer svc.Stop()
	if err := s.serve(work, svc); err != nil {
		return err
	}
	if err := c.NATS().FlushTimeout(bus.DefaultTimeout); err != nil { // the bus knows now what is served here
		return fmt.Errorf("bus: %w", err)
	}
	s.env.SetReady(true)
	<-ctx.Done()
	return ctx.Err()
}

// learnAuthor asks identity who commits, until it answers.
func (s *Service) learnAuthor(ctx, work context.Context, c *bus.Conn, alias string) error {
	for {
		a, err := author(work, c, alias)
		if err == nil {
			s.author.Store(a)
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
	err := bus.Serve(svc, contract.SwarmOpen, func(ctx context.Context, r *bus.Request[contract.None]) (*contract.Conversation, error) {
		conv, err := s.conversation(work, r.Param(1))
		if err != nil {
			return nil, err
		}
		res := conv.ask(ctx, nil)
		return &res.conv, res.err
	})
	if err != nil {
		return err
	}
	err = bus.Serve(svc, contract.SwarmPost, func(ctx context.Context, r *bus.Request[contract.ChatPost]) (*contract.ChatMessage, error) {
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
	})
	if err != nil {
		return err
	}
	return bus.Serve(svc, contract.SwarmRead, func(ctx context.Context, r *bus.Request[contract.ChatQuery]) (*contract.ChatHistory, error) {
		return s.read(ctx, work, r)
	})
}

// conversation returns the actor of a room and starts it when there is none.
func (s *Service) conversation(work context.Context, room string) (*conversation, error) {
	if !validRoom(room) {
		return nil, contract.ErrBadRequest.With("a room's name is 1 to 64 of a-z, 0-9 and -")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.convs[room]; ok {
		return c, nil
	}
	if len(s.convs) >= maxRooms {
		return nil, contract.ErrBusy.With("%d conversations are open; no more", maxRooms)
	}
	c := &conversation{room: room, svc: s, jobs: make(chan job, queueLen)}
	s.convs[room] = c
	s.wg.Add(1)
	go c.run(work, &s.wg)
	if s.rooms.get(room) != "" {
		c.jobs <- job{ctx: work, done: make(chan result, 1)} // open it now; the queue is empty
	}
	return c, nil
}

func (s *Service) post(ctx, work context.Context, r *bus.Request[contract.ChatPost]) (*contract.ChatMessage, error) {
	if r.Body.Key == "" {
		r.Body.Key = r.Key
	}
	m, err := textMessage(&r.Body)
	if err != nil {
		return nil, err
	}
	conv, err := s.conversation(work, r.Param(1))
	if err != nil {
		return nil, err
	}
	res := conv.ask(ctx, m)
	if res.err != nil {
		return nil, res.err
	}
	out := chatMessage(conv.room, res.entry)
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
	if validRoom(room) && s.rooms.get(room) == "" {
		return &contract.ChatHistory{Messages: []contract.ChatMessage{}}, nil // nothing was said yet; reading makes nothing
	}
	conv, err := s.conversation(work, room)
	if err != nil {
		return nil, err
	}
	rep := conv.repo.Load()
	if rep == nil { // being verified: wait for that
		if res := conv.ask(ctx, nil); res.err != nil {
			return nil, res.err
		}
		rep = conv.repo.Load()
	}
	page, more, err := rep.Page(q.Before, q.Limit, pageBytes)
	if err != nil {
		return nil, conv.explain(err)
	}
	h := &contract.ChatHistory{Conversation: rep.ID, More: more, Messages: make([]contract.ChatMessage, 0, len(page))}
	for _, e := range page {
		h.Messages = append(h.Messages, chatMessage(room, e))
	}
	return h, nil
}
