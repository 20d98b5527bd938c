package swarm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/gitwire"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// clone fetches all of it from who invited.
func (c *membership) clone(ctx context.Context, rec record) error {
	from := rec.From
	if from == "" {
		from = rec.With
	}
	a, err := c.m.svc.authors.of(c.m.account)
	if err != nil {
		return err
	}
	head, objs, err := c.m.svc.fetch(ctx, c.m, source{account: from}, c.id, func(plumbing.Hash) bool { return false }, nil)
	if err != nil {
		c.count(err)
		return err
	}
	r, err := repo.Clone(ctx, c.m.dir, c.id, a.URI, head, objs, c.m.svc.gates.Revoked())
	if c.count(err); err != nil {
		return err
	}
	c.repo.Store(r)
	c.m.log.Info("conversation fetched", zap.String("conversation", c.id), zap.String("from", from), zap.Int("commits", r.Commits()))
	return nil
}

// Results of fetching, as the metric has them.
const (
	fetchOK          = "ok"
	fetchUnreachable = "unreachable" // no device answers, or none has it
	fetchRefused     = "refused"     // what came is not taken
)

// count counts a fetch by what became of it.
func (c *membership) count(err error) {
	result := fetchUnreachable
	switch {
	case err == nil:
		result = fetchOK
	case errors.Is(err, repo.ErrInvalid), errors.Is(err, gitwire.ErrWire), errors.Is(err, gitwire.ErrPack), errors.Is(err, gitwire.ErrLarge):
		result = fetchRefused
	}
	c.m.svc.fetches.WithLabelValues(result).Inc()
}

// pull fetches what is new at somebody, and merges it.
func (c *membership) pull(ctx context.Context, r *repo.Swarm, from source) error {
	if !r.May(from.account, from.device) {
		return fmt.Errorf("%s is not in the conversation", from.account)
	}
	head, objs, err := c.m.svc.fetch(ctx, c.m, from, c.id, r.Has, r.Haves(maxHaves))
	if err != nil {
		c.count(err)
		return err
	}
	a, err := c.m.svc.authors.of(c.m.account)
	if err != nil {
		return err
	}
	if !joined(r.Members()[a.URI]) {
		a = nil
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	before := r.Head()
	_, err = r.Receive(ctx, head, objs, c.m.svc.gates.Revoked(), a, time.Now())
	c.unlock()
	if c.count(err); err != nil {
		return err
	}
	if after := r.Head(); after != before {
		c.m.log.Debug("conversation moved on", zap.String("conversation", c.id), zap.String("from", from.account), zap.Stringer("head", after))
		c.tell()
	}
	return nil
}

// fetch asks a device for a conversation, by connect.
func (s *Service) fetch(ctx context.Context, m *memberships, from source, id string, known func(plumbing.Hash) bool, haves []plumbing.Hash) (plumbing.Hash, gitwire.Objects, error) {
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return plumbing.ZeroHash, nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	token := rand.Text()
	came, forget := s.git.want(token)
	defer forget()
	asked, stop := context.WithTimeout(ctx, 28*time.Second)
	r, err := bus.Call(asked, m.conn, contract.PeerGitCmd, &contract.PeerGit{Of: from.account, Device: from.device, Conversation: id, Token: token})
	stop()
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	select {
	case c := <-came:
		defer c.Close()                                      //nolint:errcheck // all was read
		defer context.AfterFunc(ctx, func() { c.Close() })() //nolint:errcheck // it wakes who reads
		return gitwire.Fetch(c, id, r.Device, known, haves, gitLimits)
	case <-ctx.Done():
		return plumbing.ZeroHash, nil, ctx.Err()
	}
}
