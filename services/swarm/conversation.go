package swarm

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// queueLen bounds the posts that wait in one conversation; at some 10 ms each
// the last one is answered within a second. Beyond it "busy" is the answer.
const queueLen = 64

// pageBytes bounds a page as it is sent: NATS carries messages of 1 MiB.
const pageBytes = 512 << 10

// retryOpen is how long a conversation that did not open is refused unasked.
const retryOpen = 2 * time.Second

// conversation is a room's chat: one goroutine that alone writes its repository.
type conversation struct {
	room string
	svc  *Service
	jobs chan job
	quit chan struct{}             // closed when it is to end; nobody uses it then
	repo atomic.Pointer[repo.Repo] // set once it is open; pages are read from it at once

	// of the service, under its mu
	users int // askers, and jobs that wait or run
	used  time.Time

	// of the goroutine
	failed   error
	failedAt time.Time
	loaded   bool
}

// verb is what a job is for.
type verb int

const (
	find   verb = iota // the conversation, where there is one
	open               // the conversation, made when there is none
	post               // message
	detach             // the conversation is no more this room's
)

type job struct {
	verb    verb
	account string          // that commits
	ctx     context.Context //nolint:containedctx // the asker's
	message commit.Message
	done    chan<- result // buffered
}

type result struct {
	conv  contract.Conversation
	entry *repo.Entry
	err   error
}

// run serves jobs until ctx ends; those that wait then are refused.
func (c *conversation) run(ctx context.Context, wg *sync.WaitGroup) {
	defer wg.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.quit:
			return
		case j := <-c.jobs:
			j.done <- c.do(ctx, j)
			c.svc.release(c)
		}
	}
}

func (c *conversation) do(ctx context.Context, j job) result {
	if j.ctx.Err() != nil {
		return result{err: contract.ErrTimeout} // nobody waits: don't write what nobody learns of
	}
	if j.verb == detach {
		return result{err: c.detach(ctx)}
	}
	r, err := c.open(ctx, j)
	if err != nil {
		return result{err: err}
	}
	res := result{}
	if j.verb == post {
		if j.ctx.Err() != nil {
			return result{err: contract.ErrTimeout} // verifying took too long for this one
		}
		if reply := j.message[commit.KeyReply]; reply != "" && !r.Has(reply) {
			return result{err: contract.ErrBadRequest.With("reply_to: there is no message %s in this room", reply)}
		}
		who, err := c.svc.authors.of(j.account)
		if err != nil {
			return result{err: err}
		}
		if res.entry, err = r.Append(who, j.message, time.Now()); err != nil {
			err = c.explain(err)
			if errors.Is(err, contract.ErrStorage) || errors.Is(err, contract.ErrStateDamaged) { // for who runs the node, not for who chats alone
				c.svc.log.Error("message not written", zap.String("room", c.room), zap.Error(err))
			}
			return result{err: err}
		}
	}
	res.conv = contract.Conversation{Room: c.room, ID: r.ID, Messages: r.Count()}
	return res
}

// detach takes the conversation off the room, a damaged one too. Killed at any
// moment and repeated it does no more: the repository stops naming its room before
// rooms.json does. One without a message is kept: it is as good as a new one.
func (c *conversation) detach(ctx context.Context) error {
	id := c.svc.rooms.get(c.room)
	if id == "" {
		return nil
	}
	r, err := c.open(ctx, job{verb: find})
	switch {
	case ctx.Err() != nil:
		return contract.ErrUnavailable
	case err == nil && r.Count() == 0:
		return nil
	}
	if err := repo.Detach(c.path(id)); err != nil {
		return c.explain(err)
	}
	if err := c.svc.rooms.remove(c.room); err != nil {
		return c.explain(err)
	}
	c.repo.Store(nil)
	c.loaded, c.failed = false, nil
	c.svc.log.Info("conversation taken off its room; it stays on the disk", zap.String("room", c.room), zap.String("conversation", id))
	return nil
}

// path is where a conversation's repository lies.
func (c *conversation) path(id string) string { return filepath.Join(c.svc.dir, "conversations", id) }

// open returns the verified repository; where there is none, one is made unless the job
// is to find it.
func (c *conversation) open(ctx context.Context, j job) (*repo.Repo, error) {
	if c.loaded {
		return c.repo.Load(), nil
	}
	if c.failed != nil && time.Since(c.failedAt) < retryOpen {
		return nil, c.failed
	}
	r, err := c.openDisk(ctx, j)
	if err != nil {
		if ctx.Err() != nil {
			return nil, contract.ErrUnavailable
		}
		if errors.Is(err, contract.ErrNotFound) {
			return nil, err
		}
		c.failed, c.failedAt = c.explain(err), time.Now()
		c.svc.log.Error("conversation not opened", zap.String("room", c.room), zap.Error(c.failed))
		return nil, c.failed
	}
	c.failed = nil
	return r, nil
}

func (c *conversation) openDisk(ctx context.Context, j job) (*repo.Repo, error) {
	id := c.svc.rooms.get(c.room)
	var r *repo.Repo
	var err error
	switch {
	case id != "":
		if r, err = repo.Open(c.path(id), id); err != nil {
			return nil, err
		}
	case j.verb == find:
		return nil, contract.ErrNotFound.With("room %s has no conversation", c.room)
	default:
		who, err := c.svc.authors.of(j.account)
		if err != nil {
			return nil, err
		}
		if r, err = repo.Create(filepath.Join(c.svc.dir, "conversations"), c.room, who, time.Now()); err != nil {
			return nil, err
		}
		if err := c.svc.rooms.set(c.room, r.ID); err != nil {
			c.svc.log.Warn("rooms.json not written; the repository itself names its room", zap.Error(err))
		}
		c.svc.log.Info("conversation made", zap.String("room", c.room), zap.String("conversation", r.ID))
	}
	select {
	case c.svc.verify <- struct{}{}:
		defer func() { <-c.svc.verify }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	start := time.Now()
	if err := r.Load(ctx, c.svc.gates.Revoked()); err != nil {
		return nil, err
	}
	c.svc.log.Debug("conversation verified", zap.String("room", c.room), zap.Int("messages", r.Count()), zap.Duration("took", time.Since(start)))
	c.repo.Store(r)
	c.loaded = true
	return r, nil
}

// explain turns what a repository says into what the asker can use.
func (c *conversation) explain(err error) error {
	if ce, ok := errors.AsType[*contract.Error](err); ok {
		return ce
	}
	switch {
	case errors.Is(err, repo.ErrDamaged):
		path := c.path(c.svc.rooms.get(c.room))
		return contract.ErrStateDamaged.With("the chat of room %s in %s: %v. It is left as it is: look with `git -C %s fsck`, put it back from a backup or fetch it from another copy; or, to begin a new chat, stop the node, move the folder away and remove the room's line from %s",
			c.room, path, err, path, c.svc.rooms.path)
	case errors.Is(err, repo.ErrStorage):
		return contract.ErrStorage.With("the chat of room %s could not be written: %v; look at the disk of %s", c.room, err, c.svc.dir)
	case errors.Is(err, repo.ErrNotFound):
		return contract.ErrNotFound.With("there is no such message in room %s", c.room)
	}
	return err
}

// ask queues a job and waits for its result. It may be called from any goroutine
// that uses the conversation.
func (c *conversation) ask(ctx context.Context, j job) result {
	done := make(chan result, 1)
	j.ctx, j.done = ctx, done
	c.svc.hold(c)
	select {
	case c.jobs <- j:
	default:
		c.svc.release(c)
		return result{err: contract.ErrBusy.With("too many messages at once in room %s; try again", c.room)}
	}
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
		return result{err: contract.ErrUnavailable.With("the chat is stopping or slow; send again with the same key")}
	}
}
