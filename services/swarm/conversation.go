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

// pageBytes bounds a page: NATS carries messages of 1 MiB.
const pageBytes = 512 << 10

// retryOpen is how long a conversation that did not open is refused unasked.
const retryOpen = 2 * time.Second

// conversation is a room's chat: one goroutine that alone writes its repository.
type conversation struct {
	room string
	svc  *Service
	jobs chan job
	repo atomic.Pointer[repo.Repo] // set once it is open; pages are read from it at once

	// of the goroutine
	failed   error
	failedAt time.Time
	loaded   bool
}

// job asks for the conversation, made when there is none, and to post to it when
// message is not nil.
type job struct {
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
		case j := <-c.jobs:
			j.done <- c.do(ctx, j)
		}
	}
}

func (c *conversation) do(ctx context.Context, j job) result {
	if j.ctx.Err() != nil {
		return result{err: contract.ErrTimeout} // nobody waits: don't write what nobody learns of
	}
	r, err := c.open(ctx, true)
	if err != nil {
		return result{err: err}
	}
	res := result{}
	if j.message != nil {
		if reply := j.message[commit.KeyReply]; reply != "" && !r.Has(reply) {
			return result{err: contract.ErrBadRequest.With("reply_to: there is no message %s in this room", reply)}
		}
		if res.entry, err = r.Append(c.svc.author.Load(), j.message, time.Now()); err != nil {
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

// open returns the verified repository; create says whether to make one.
func (c *conversation) open(ctx context.Context, create bool) (*repo.Repo, error) {
	if c.loaded {
		return c.repo.Load(), nil
	}
	if c.failed != nil && time.Since(c.failedAt) < retryOpen {
		return nil, c.failed
	}
	r, err := c.openDisk(ctx, create)
	if err != nil {
		if ctx.Err() != nil {
			return nil, contract.ErrUnavailable
		}
		c.failed, c.failedAt = c.explain(err), time.Now()
		c.svc.log.Error("conversation not opened", zap.String("room", c.room), zap.Error(c.failed))
		return nil, c.failed
	}
	c.failed = nil
	return r, nil
}

func (c *conversation) openDisk(ctx context.Context, create bool) (*repo.Repo, error) {
	base := filepath.Join(c.svc.dir, "conversations")
	id := c.svc.rooms.get(c.room)
	var r *repo.Repo
	var err error
	switch {
	case id != "":
		if r, err = repo.Open(filepath.Join(base, id), id); err != nil {
			return nil, err
		}
	case !create:
		return nil, contract.ErrNotFound
	default:
		if r, err = repo.Create(base, c.room, c.svc.author.Load(), time.Now()); err != nil {
			return nil, err
		}
		if err := c.svc.rooms.set(c.room, r.ID); err != nil {
			c.svc.log.Warn("rooms.json not written; the repository itself names its room", zap.Error(err))
		}
		c.svc.log.Info("conversation made", zap.String("room", c.room), zap.String("conversation", r.ID))
	}
	start := time.Now()
	if err := r.Load(ctx); err != nil {
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
		path := filepath.Join(c.svc.dir, "conversations", c.svc.rooms.get(c.room))
		return contract.ErrStateDamaged.With("the chat of room %s in %s: %v. It is left as it is: look with `git -C %s fsck`, put it back from a backup or fetch it from another copy; or, to begin a new chat, stop the node, move the folder away and remove the room's line from %s",
			c.room, path, err, path, c.svc.rooms.path)
	case errors.Is(err, repo.ErrStorage):
		return contract.ErrStorage.With("the chat of room %s could not be written: %v; look at the disk of %s", c.room, err, c.svc.dir)
	case errors.Is(err, repo.ErrNotFound):
		return contract.ErrNotFound.With("there is no such message in room %s", c.room)
	}
	return err
}

// ask queues a job and waits for its result. It may be called from any goroutine.
func (c *conversation) ask(ctx context.Context, m commit.Message) result {
	done := make(chan result, 1)
	select {
	case c.jobs <- job{ctx: ctx, message: m, done: done}:
	default:
		return result{err: contract.ErrBusy.With("too many messages at once in room %s; try again", c.room)}
	}
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
		return result{err: contract.ErrUnavailable.With("the chat is stopping or slow; send again with the same key")}
	}
}
