package swarm

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// Bounds of answers.
const (
	maxPage  = 100
	maxFiles = 100
)

// of returns the conversations of an account, which are read the first time.
func (s *Service) of(account string) (*memberships, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.members[account]; m != nil {
		return m, nil
	}
	if _, err := jami.ParseID(account); err != nil {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	if s.members == nil {
		return nil, contract.ErrUnavailable
	}
	m, err := loadMemberships(s.authors.work, s, account, filepath.Join(filepath.Dir(s.dir), account, "members"))
	if err != nil {
		return nil, err
	}
	s.members[account] = m
	m.begin()
	return m, nil
}

// endMembers has nothing begin any more.
func (s *Service) endMembers() {
	s.mu.Lock()
	all := s.members
	s.members = nil
	s.mu.Unlock()
	for _, m := range all {
		m.mu.Lock()
		m.left = true
		m.mu.Unlock()
	}
}

// followMembers follows contacts and notices of all accounts until the returned function is called.
func (s *Service) followMembers(work context.Context, c *bus.Conn) (stop func(), err error) {
	var subs []*bus.Subscription
	look := make(chan string, 64) // accounts whose contacts are to be read
	read := func(account string) {
		select {
		case look <- account:
		default:
		}
	}
	contacts, err1 := bus.Subscribe(c.For(bus.Any), contract.ContactEvents, func(_ context.Context, p []string, e *contract.ContactChanged) {
		m, err := s.of(p[0])
		switch {
		case err != nil:
			s.log.Error("conversations of an account cannot be followed", zap.String("account", p[0]), zap.Error(err))
		case e.Contact.ID == "":
			read(p[0])
		default:
			m.contact(&e.Contact)
		}
	})
	notices, err2 := bus.Subscribe(c.For(bus.Any), contract.NoticeEvents, func(_ context.Context, p []string, n *contract.Notice) {
		if m, err := s.of(p[0]); err == nil {
			m.heard(n)
		}
	})
	online, err3 := bus.Subscribe(c.For(bus.Any), contract.PresenceEvents, func(_ context.Context, p []string, e *contract.PresenceChanged) {
		if m, err := s.of(p[0]); err == nil && e.Online {
			m.online(e.ID)
		}
	})
	for _, sub := range []*bus.Subscription{contacts, notices, online} {
		if sub != nil {
			subs = append(subs, sub)
		}
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err // the process ends, and its connection
	}
	s.wg.Go(func() { s.readMembers(work, c, look) })
	off := c.OnReconnect(func() { read("") })
	read("")
	return func() {
		off()
		for _, sub := range subs {
			sub.Stop()
		}
	}, nil
}

// readMembers reads contacts of accounts, and which of them are online, until ctx ends.
func (s *Service) readMembers(ctx context.Context, c *bus.Conn, look <-chan string) {
	for {
		var account string
		select {
		case <-ctx.Done():
			return
		case account = <-look:
		}
		all := []string{account}
		if account == "" {
			all = s.authors.accounts()
		}
		for _, id := range all {
			m, err := s.of(id)
			if err == nil {
				err = m.readContacts(ctx)
			}
			if err != nil && ctx.Err() == nil {
				s.log.Info("contacts of an account not read; their next change is heard", zap.String("account", id), zap.Error(err))
				continue
			}
			if there, err := bus.Call(ctx, c.For(id), contract.PresenceList, &contract.None{}); err == nil {
				for _, p := range there.Contacts {
					if p.Online {
						m.online(p.ID)
					}
				}
			}
		}
	}
}

// serveGit serves a channel that a peer opened.
func (s *Service) serveGit(_ context.Context, h *contract.GitHello, ch *packets) error {
	m, err := s.of(h.Account)
	if err == nil {
		if c := m.get(h.Conversation); c != nil {
			return c.serve(h, ch)
		}
		err = errors.New("there is no such conversation")
	}
	_, werr := ch.UnixConn.Write([]byte("no"))
	return errors.Join(err, werr)
}

func (s *Service) serveMembers(svc *bus.Service) error {
	return errors.Join(
		bus.Serve(svc, contract.ConversationList, s.listMembers),
		bus.Serve(svc, contract.ConversationStart, s.startWith),
		bus.Serve(svc, contract.ConversationAnswered, s.answer),
		bus.Serve(svc, contract.ConversationPut, s.put),
		bus.Serve(svc, contract.ConversationRead, s.readMember),
		bus.Serve(svc, contract.ConversationMay, s.mayHave),
		bus.Serve(svc, contract.ConversationFiles, s.listFiles))
}

func (s *Service) listMembers(_ context.Context, r *bus.Request[contract.None]) (*contract.MemberConversations, error) {
	m, err := s.of(r.Param(0))
	if err != nil {
		return nil, err
	}
	out := &contract.MemberConversations{Conversations: []contract.MemberConversation{}}
	for _, c := range m.list() {
		rec := c.state()
		if rec.State == stateLeft {
			continue
		}
		x := contract.MemberConversation{ID: c.id, State: rec.State, With: rec.With, From: rec.From, Title: rec.Title}
		if why := c.why.Load(); why != nil {
			x.Why = *why
		}
		if live := c.live(); live != nil {
			x.Commits, x.Head = live.Commits(), live.Head().String()
			for id, role := range live.Members() {
				x.Members = append(x.Members, contract.ConversationMember{ID: id, Role: string(role)})
			}
			slices.SortFunc(x.Members, func(a, b contract.ConversationMember) int { return strings.Compare(a.ID, b.ID) })
		}
		out.Conversations = append(out.Conversations, x)
	}
	return out, nil
}

func (s *Service) startWith(ctx context.Context, r *bus.Request[contract.ConversationWith]) (*contract.ConversationID, error) {
	if id, err := jami.ParseID(r.Body.ID); err != nil || id.IsZero() {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	m, err := s.of(r.Param(0))
	if err != nil {
		return nil, err
	}
	if c := m.with(r.Body.ID); c != nil {
		return &contract.ConversationID{ID: c.id}, nil
	}
	a, err := s.authors.of(m.account)
	if err != nil {
		return nil, err
	}
	if a.URI == r.Body.ID {
		return nil, contract.ErrBadRequest.With("that is this account itself")
	}
	conv, err := repo.CreateSwarm(ctx, m.dir, a, r.Body.ID, time.Now())
	if err != nil {
		return nil, contract.ErrStorage.With("%v", err)
	}
	_, err = m.change(conv.ID, func(x *record) error {
		x.State, x.With = contract.ConversationReady, r.Body.ID
		return nil
	})
	return &contract.ConversationID{ID: conv.ID}, err
}

func (s *Service) answer(_ context.Context, r *bus.Request[contract.ConversationAnswer]) (*contract.None, error) {
	m, err := s.of(r.Param(0))
	if err != nil {
		return nil, err
	}
	if m.get(r.Body.ID) == nil {
		return nil, contract.ErrNotFound.With("there is no conversation %.50s; parley conversation list lists all", r.Body.ID)
	}
	_, err = m.change(r.Body.ID, func(x *record) error {
		switch {
		case x.State != contract.ConversationInvited:
			return contract.ErrBadRequest.With("the conversation waits for no answer")
		case r.Body.Answer == "accept":
			x.State = contract.ConversationWanted
		case r.Body.Answer == "refuse":
			x.State = stateLeft
		default:
			return contract.ErrBadRequest.With("answer is accept or refuse")
		}
		return nil
	})
	return &contract.None{}, err
}

func (s *Service) put(ctx context.Context, r *bus.Request[contract.ConversationWrite]) (*contract.ConversationPost, error) {
	q := &r.Body
	m, err := s.of(r.Param(0))
	if err != nil {
		return nil, err
	}
	c := m.get(q.ID)
	if q.With != "" {
		c = m.with(q.With)
	}
	var live *repo.Swarm
	if c != nil {
		live = c.live()
	}
	if live == nil || q.With != "" && !joined(live.Members()[q.With]) {
		return nil, contract.ErrNotFound.With("there is no such conversation, or the contact has not joined it")
	}
	var msg commit.Message
	switch f := q.File; {
	case f != nil:
		if n, err := strconv.ParseUint(f.TID, 10, 64); err != nil || n == 0 || f.Size < 0 || len(f.SHA3) != 128 || f.Name == "" || !clean(f.Name, "") {
			return nil, contract.ErrBadRequest.With("a file has a name, a size, a SHA3-512 and a number")
		}
		msg = commit.Message{commit.KeyType: commit.TypeFile, commit.KeyTID: f.TID, commit.KeyFile: f.Name, commit.KeySize: strconv.FormatInt(f.Size, 10), commit.KeySHA3: f.SHA3}
	case q.Body == "" || len(q.Body) > contract.MaxMessage || !clean(q.Body, "\n\t\r"):
		return nil, contract.ErrBadRequest.With("a message is UTF-8 of 1 to %d bytes without control characters", contract.MaxMessage)
	default:
		msg = commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: q.Body}
	}
	p, err := c.write(ctx, msg)
	if err != nil {
		return nil, err
	}
	x := postOf(c.id, p)
	return &x, nil
}

func (s *Service) readMember(_ context.Context, r *bus.Request[contract.ConversationQuery]) (*contract.ConversationPage, error) {
	m, err := s.of(r.Param(0))
	if err != nil {
		return nil, err
	}
	limit := cmp.Or(r.Body.Limit, 50)
	if limit < 1 || limit > maxPage {
		return nil, contract.ErrBadRequest.With("limit is 1 to %d", maxPage)
	}
	c := m.get(r.Body.ID)
	if c == nil || c.live() == nil {
		return nil, contract.ErrNotFound.With("there is no conversation %.50s here", r.Body.ID)
	}
	posts, more, err := c.live().Posts(r.Body.Before, limit)
	if errors.Is(err, repo.ErrNotFound) {
		return nil, contract.ErrNotFound.With("there is no commit %.50s", r.Body.Before)
	} else if err != nil {
		return nil, contract.ErrStateDamaged.With("%v", err)
	}
	out := &contract.ConversationPage{Posts: []contract.ConversationPost{}, More: more}
	sum := 0
	for i := range posts {
		x := postOf(c.id, &posts[i])
		if sum += len(x.Body) + 1024; sum > pageBytes && i > 0 {
			out.More = true
			break
		}
		out.Posts = append(out.Posts, x)
	}
	return out, nil
}

// postOf is a commit as others see it.
func postOf(conversation string, p *repo.Post) contract.ConversationPost {
	return contract.ConversationPost{ID: p.ID, Conversation: conversation, From: p.User, Device: p.Device, Type: p.Message[commit.KeyType], Body: p.Message[commit.KeyBody],
		File: fileOf(conversation, p), Time: p.Time}
}

// fileOf is the file that a post announces; nil: none that could be fetched.
func fileOf(conversation string, p *repo.Post) *contract.FileOffered {
	m := p.Message
	size, err := strconv.ParseInt(m[commit.KeySize], 10, 64)
	_, err2 := strconv.ParseUint(m[commit.KeyTID], 10, 64)
	if m[commit.KeyType] != commit.TypeFile || err != nil || err2 != nil || size < 0 || len(m[commit.KeySHA3]) != 128 {
		return nil
	}
	return &contract.FileOffered{FileRef: contract.FileRef{Conversation: conversation, Commit: p.ID, TID: m[commit.KeyTID]}, Name: fileName(m[commit.KeyFile]), Size: size, SHA3: m[commit.KeySHA3]}
}

// fileName is what a peer calls a file, as people may be shown it.
func fileName(s string) string {
	if i := strings.LastIndexAny(s, `/\`); i >= 0 {
		s = s[i+1:]
	}
	s = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	for len(s) > 255 { // the end says what it is
		_, n := utf8.DecodeRuneInString(s)
		s = s[n:]
	}
	if s == "" || s == "." || s == ".." {
		return "file"
	}
	return s
}

func (s *Service) mayHave(_ context.Context, r *bus.Request[contract.FileAsked]) (*contract.FileOffered, error) {
	m, err := s.of(r.Param(0))
	if err != nil {
		return nil, err
	}
	refused := contract.ErrForbidden.With("the account has no such file in a conversation with the node")
	c := m.get(r.Body.Conversation)
	if c == nil || !c.may(r.Body.Peer, r.Body.Device) || !commit.IsID(r.Body.Commit) {
		return nil, refused
	}
	live := c.live()
	if live == nil || !joined(live.Members()[r.Body.Peer]) {
		return nil, refused
	}
	p, err := live.Post(plumbing.NewHash(r.Body.Commit))
	if err != nil {
		return nil, refused
	}
	f := fileOf(c.id, p)
	if f == nil || f.TID != r.Body.TID {
		return nil, refused
	}
	return f, nil
}

func (s *Service) listFiles(_ context.Context, r *bus.Request[contract.None]) (*contract.FilesAnnounced, error) {
	m, err := s.of(r.Param(0))
	if err != nil {
		return nil, err
	}
	a, err := s.authors.of(m.account)
	if err != nil {
		return nil, err
	}
	out := &contract.FilesAnnounced{Files: []contract.FileAnnounced{}}
	for _, c := range m.list() {
		live := c.live()
		if live == nil {
			continue
		}
		for _, h := range live.OfType(commit.TypeFile, maxFiles) {
			p, err := live.Post(h)
			if err != nil || p.User == a.URI {
				continue
			}
			if f := fileOf(c.id, p); f != nil {
				out.Files = append(out.Files, contract.FileAnnounced{FileOffered: *f, From: p.User, Time: p.Time})
			}
		}
	}
	slices.SortFunc(out.Files, func(a, b contract.FileAnnounced) int { return b.Time.Compare(a.Time) })
	out.Files = out.Files[:min(len(out.Files), maxFiles)]
	return out, nil
}
