package swarm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// tell has what members wrote be told.
func (c *membership) tell() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// tellAll tells what members wrote, in order and each at least once: identity knows what it told.
func (c *membership) tellAll(ctx context.Context) {
	for wait := time.Second; ; {
		var again <-chan time.Time
		select {
		case <-ctx.Done():
			return
		case <-c.news:
		}
		if err := c.tellNews(ctx); err != nil && ctx.Err() == nil {
			c.m.log.Info("what members wrote is told later", zap.String("conversation", c.id), zap.Error(err))
			again, wait = time.After(wait), min(2*wait, 30*time.Second)
		} else {
			wait = time.Second
		}
		if again != nil {
			select {
			case <-ctx.Done():
				return
			case <-again:
				c.tell()
			}
		}
	}
}

func (c *membership) tellNews(ctx context.Context) error {
	r := c.live()
	if r == nil {
		return nil
	}
	file, head := filepath.Join(c.m.dir, c.id+".told"), r.Head()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	most, told := maxFirst, plumbing.NewHash(strings.TrimSpace(string(text)))
	if r.Has(told) {
		most = maxNews
	}
	posts, err := r.Since(told, most)
	if err != nil {
		return err
	}
	a, err := c.m.svc.authors.of(c.m.account)
	if err != nil {
		return err
	}
	for i := range posts {
		p := &posts[i]
		if p.User == a.URI || !readable(p) || c.seen[p.ID] {
			continue
		}
		x := postOf(c.id, p)
		q := &contract.MessageHeard{From: p.User, Device: p.Device, ID: p.ID[:16], Type: x.Type, Body: x.Body, Conversation: c.id, Commit: p.ID, Sent: p.Time.Unix(), File: x.File}
		if q.File != nil {
			q.Body = q.File.Name
		}
		if len(q.Body) > contract.MaxMessage || q.ID == strings.Repeat("0", 16) {
			c.m.log.Info("message not told: it is in the conversation", zap.String("commit", p.ID), zap.Int("bytes", len(q.Body)))
			continue
		}
		if _, err := bus.Call(ctx, c.m.conn, contract.MessageTake, q); err != nil && !errors.Is(err, contract.ErrBadRequest) {
			return err
		}
		c.seen[p.ID] = true
	}
	if err := repo.ReplaceFile(file, []byte(head.String()+"\n")); err != nil {
		return err
	}
	clear(c.seen)
	return nil
}

// readable reports whether a post is for people: a text that is no edit nor a reaction, or a file.
func readable(p *repo.Post) bool {
	m := p.Message
	switch m[commit.KeyType] {
	case commit.TypeText:
		return m[commit.KeyBody] != "" && m["edit"] == "" && m["react-to"] == ""
	case commit.TypeFile:
		return fileOf("", p) != nil
	}
	return false
}
