package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/gitwire"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// gitLimits are of what a peer sends at once: a history of some 20,000 messages. In memory it is all of it.
var gitLimits = gitwire.Limits{Pack: 32 << 20, Objects: 200_000, Object: repo.MaxObject, All: 64 << 20}

// Times and bounds of fetching.
const (
	fetchTime    = 2 * time.Minute // one
	fetchAtOnce  = 4               // of all accounts
	maxHaves     = 200             // commits that a peer is told of
	cloneFirst   = 2 * time.Second // before the next try, doubling
	cloneMost    = 5 * time.Minute
	maxSources   = 16 // that wait
	maxFirst     = 32 // messages of before the account came that are told
	maxNews      = 10_000
	maxUnfetched = 256 // own messages of which it is told who has them
)

// remindAfter is when members are told again of what the account wrote, after they were told the last time, as long as
// no device of theirs has fetched it. A stock daemon that is told while its connection is dead finds that out by it,
// and fetches with the next word.
var remindAfter = []time.Duration{3 * time.Second, 10 * time.Second, 30 * time.Second}

// source is who has something of a conversation. The zero one means: look yourself.
type source struct{ account, device string }

// membership is one conversation of an account.
type membership struct {
	m       *memberships
	id      string
	turn    chan struct{} // held by who writes the repository
	sources chan source
	news    chan struct{} // has an element when something is to be told
	wrote   chan struct{} // has an element when the account wrote something
	opened  chan struct{} // closed once the repository is open
	repo    atomic.Pointer[repo.Swarm]
	why     atomic.Pointer[string] // it is not here

	// under memberships.mu
	rec       record
	end       context.CancelFunc // nil: it is not followed
	unfetched []*unfetched

	seen map[string]bool // of tellAll: posts that were told, of which the file does not say so yet
}

// unfetched is a message of the account.
type unfetched struct {
	commit plumbing.Hash
	by     map[string]bool // accounts that have it
}

func newMembership(m *memberships, r record) *membership {
	return &membership{m: m, id: r.ID, rec: r, turn: make(chan struct{}, 1), sources: make(chan source, maxSources), news: make(chan struct{}, 1), wrote: make(chan struct{}, 1), opened: make(chan struct{}), seen: map[string]bool{}}
}

// startLocked begins to follow it.
func (c *membership) startLocked() {
	if c.end != nil || c.m.left || c.rec.State == stateLeft || c.rec.State == contract.ConversationInvited {
		return
	}
	ctx, end := context.WithCancel(c.m.work)
	c.end = end
	c.m.svc.wg.Go(func() { c.follow(ctx) })
	c.m.svc.wg.Go(func() { c.tellAll(ctx) })
}

func (c *membership) state() record {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return c.rec
}

// live returns the repository of one that is followed, or nil.
func (c *membership) live() *repo.Swarm {
	if c.state().State != contract.ConversationReady {
		return nil
	}
	return c.repo.Load()
}

// may reports whether a device may have the conversation.
func (c *membership) may(account, device string) bool {
	r := c.live()
	return r != nil && r.May(account, device)
}

// poke has it be fetched from somebody; of very many at once some are passed over.
func (c *membership) poke(s source) {
	select {
	case c.sources <- s:
	default:
	}
}

func (c *membership) announced(from string, a *announcement) {
	if r := c.live(); r != nil && !r.Has(plumbing.NewHash(a.Commit)) {
		c.poke(source{from, a.Device})
	}
}

// online is told that a contact has a device online.
func (c *membership) online(contact string) {
	r, rec := c.live(), c.state()
	switch {
	case rec.State == contract.ConversationWanted && (rec.With == contact || rec.From == contact):
		c.poke(source{})
	case r != nil && joined(r.Members()[contact]):
		c.poke(source{account: contact})
		c.announceTo(contact)
	}
}

func joined(r repo.Role) bool { return r == repo.Admin || r == repo.Member }

// follow fetches it, first and then whenever somebody has something new, until ctx ends.
func (c *membership) follow(ctx context.Context) {
	var remind <-chan time.Time
	reminded := 0
	for wait := cloneFirst; ; {
		rec := c.state()
		var again <-chan time.Time
		if rec.State == contract.ConversationWanted || rec.State == contract.ConversationReady && c.repo.Load() == nil {
			if err := c.here(ctx, rec); err != nil {
				if ctx.Err() != nil {
					return
				}
				why := err.Error()
				c.why.Store(&why)
				c.m.log.Info("conversation is not here yet", zap.String("conversation", c.id), zap.Duration("again", wait), zap.Error(err))
				again, wait = time.After(wait), min(2*wait, cloneMost)
			} else {
				c.why.Store(nil)
				wait = cloneFirst
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-c.wrote:
			remind, reminded = time.After(remindAfter[0]), 0
		case <-remind:
			if remind, reminded = nil, reminded+1; c.remind() && reminded < len(remindAfter) {
				remind = time.After(remindAfter[reminded])
			}
		case s := <-c.sources:
			if r := c.live(); r != nil && s.account != "" {
				if err := c.pull(ctx, r, s); err != nil && ctx.Err() == nil {
					c.m.log.Info("conversation not fetched", zap.String("conversation", c.id), zap.String("from", s.account), zap.Error(err))
				}
			} else if s == (source{}) {
				wait = cloneFirst
			}
		}
	}
}

// here opens the repository, or fetches it and joins.
func (c *membership) here(ctx context.Context, rec record) error {
	path := filepath.Join(c.m.dir, c.id)
	_, err := os.Stat(path)
	switch {
	case err == nil:
		r, err := repo.OpenSwarm(ctx, path, c.id)
		if err != nil {
			return err
		}
		c.repo.Store(r)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		if err := c.clone(ctx, rec); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil { // it was given up meanwhile
		return err
	}
	if rec.State != contract.ConversationReady {
		if _, err := c.m.change(c.id, func(r *record) error {
			if r.State != stateLeft {
				r.State = contract.ConversationReady
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if err := c.join(ctx); err != nil {
		c.repo.Store(nil) // it is tried again
		return err
	}
	select {
	case <-c.opened:
	default:
		close(c.opened)
	}
	c.tell()
	return nil
}

// join makes the account a member where it is invited.
func (c *membership) join(ctx context.Context) error {
	r := c.repo.Load()
	a, err := c.m.svc.authors.of(c.m.account)
	if err != nil {
		return err
	}
	if r.Members()[a.URI] != repo.Invited {
		return nil
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	p, err := r.Join(a, time.Now())
	c.unlock()
	if err != nil {
		return err
	}
	if p != nil {
		c.m.log.Info("conversation joined", zap.String("conversation", c.id))
		c.announce()
	}
	return nil
}

func (c *membership) lock(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *membership) unlock() { <-c.turn }

// write commits a message of the account and announces it.
func (c *membership) write(ctx context.Context, m commit.Message) (*repo.Post, error) {
	r := c.live()
	if r == nil {
		return nil, contract.ErrUnavailable.With("conversation %s is not here yet", c.id)
	}
	a, err := c.m.svc.authors.of(c.m.account)
	if err != nil {
		return nil, err
	}
	if err := c.lock(ctx); err != nil {
		return nil, contract.ErrBusy.With("conversation %s is being written", c.id)
	}
	p, err := r.Write(a, m, time.Now())
	c.unlock()
	switch {
	case errors.Is(err, repo.ErrInvalid):
		return nil, contract.ErrForbidden.With("%v", err)
	case errors.Is(err, repo.ErrStorage):
		return nil, contract.ErrStorage.With("%v", err)
	case err != nil:
		return nil, err
	}
	c.m.mu.Lock()
	c.unfetched = append(c.unfetched, &unfetched{plumbing.NewHash(p.ID), map[string]bool{}})
	c.unfetched = c.unfetched[max(0, len(c.unfetched)-maxUnfetched):]
	c.m.mu.Unlock()
	c.announce()
	select {
	case c.wrote <- struct{}{}:
	default:
	}
	return p, nil
}

// remind tells members again who have not fetched the last of what the account wrote; false: all have.
func (c *membership) remind() bool {
	r := c.live()
	if r == nil {
		return false
	}
	var late []string
	c.m.mu.Lock()
	if n := len(c.unfetched); n > 0 {
		for id, role := range r.Members() {
			if joined(role) && !c.unfetched[n-1].by[id] {
				late = append(late, id)
			}
		}
	}
	c.m.mu.Unlock()
	a, err := c.m.svc.authors.of(c.m.account)
	late = slices.DeleteFunc(late, func(id string) bool { return err != nil || id == a.URI })
	for _, id := range late {
		c.announceTo(id)
	}
	return len(late) > 0
}

// announce tells all members of the newest commit.
func (c *membership) announce() {
	r := c.live()
	if r == nil {
		return
	}
	for id, role := range r.Members() {
		if joined(role) {
			c.announceTo(id)
		}
	}
}

// announceTo tells a member. Who is not told by it hears of the next.
func (c *membership) announceTo(id string) {
	a, err := c.m.svc.authors.of(c.m.account)
	r := c.live()
	if err != nil || r == nil || id == a.URI {
		return
	}
	c.notify(id, contract.NoticeCommit, (&announcement{c.id, r.Head().String(), a.Device}).text())
}

// inviteAgain tells somebody who is invited, and does not know of it any more.
func (c *membership) inviteAgain(id string) {
	r := c.live()
	if r == nil {
		return
	}
	text, err := json.Marshal(map[string]any{"conversationId": c.id, "metadatas": map[string]string{"mode": r.Conversation.Mode}})
	if err == nil {
		c.notify(id, contract.NoticeInvite, string(text))
	}
}

// notify sends a notice without waiting for it.
func (c *membership) notify(to, typ, body string) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.left {
		return
	}
	c.m.svc.wg.Go(func() {
		if _, err := bus.Call(c.m.work, c.m.conn, contract.NoticeSendCmd, &contract.NoticeSend{To: to, Type: typ, Body: body}); err != nil && c.m.work.Err() == nil {
			c.m.log.Info("member not told of a conversation", zap.String("conversation", c.id), zap.String("to", to), zap.Error(err))
		}
	})
}

// openTime is how long a device waits for a conversation that is being opened: connect waits a little longer.
const openTime = time.Second

// serve serves it to a member's device.
func (c *membership) serve(h *contract.GitHello, ch *packets) error {
	if c.state().State == contract.ConversationReady {
		select {
		case <-c.opened:
		case <-time.After(openTime):
		}
	}
	r := c.live()
	if r == nil || !r.May(h.Peer, h.Device) {
		_, err := ch.UnixConn.Write([]byte("no"))
		return errors.Join(fmt.Errorf("%s is not in the conversation", h.Peer), err)
	}
	if _, err := ch.UnixConn.Write([]byte("ok")); err != nil {
		return err
	}
	return gitwire.Serve(ch, c.id, member{r, h.Peer, h.Device}, func(head plumbing.Hash) { c.fetched(r, h, head) })
}

// member is a repository as long as a device may have it.
type member struct {
	*repo.Swarm
	account, device string
}

// Missing implements [gitwire.Source].
func (m member) Missing(want plumbing.Hash, haves []plumbing.Hash) ([]plumbing.Hash, error) {
	if !m.May(m.account, m.device) {
		return nil, errors.New("it is not in the conversation any more")
	}
	return m.Swarm.Missing(want, haves)
}

// fetched notes that a device has all up to a commit: the account's messages in it are delivered.
func (c *membership) fetched(r *repo.Swarm, h *contract.GitHello, head plumbing.Hash) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	for _, u := range c.unfetched {
		if u.by[h.Peer] || c.m.left || !r.Reaches(head, u.commit) {
			continue
		}
		u.by[h.Peer] = true
		q := &contract.PostFetched{ID: u.commit.String()[:16], To: h.Peer, Device: h.Device}
		c.m.svc.wg.Go(func() {
			if _, err := bus.Call(c.m.work, c.m.conn, contract.PostFetchedCmd, q); err != nil && c.m.work.Err() == nil {
				c.m.log.Info("a delivered message not told", zap.Error(err))
			}
		})
	}
}
