package swarm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// Bounds of the conversations of an account.
const (
	maxMemberships = 4096
	maxInvitations = 64
	maxInvitedBy   = 8   // of these by one account
	maxTitle       = 256 // bytes
)

// record is what is known of a conversation beside its repository.
type record struct {
	ID       string `json:"id"`
	State    string `json:"state"`          // of package contract, or stateLeft
	With     string `json:"with,omitempty"` // Jami Id
	From     string `json:"from,omitempty"` // Jami Id of who invited
	Title    string `json:"title,omitempty"`
	Received int64  `json:"received,omitempty"` // unix seconds
}

// stateLeft is of one that is not followed any more; its repository stays on the disk.
const stateLeft = "left"

// memberships are the conversations of one of the node's accounts:
//
//	DATA/swarm/ACCOUNT/members/state.json        what is known of them
//	DATA/swarm/ACCOUNT/members/CONVERSATION/     a Git repository
//	DATA/swarm/ACCOUNT/members/CONVERSATION.told the commit up to which was told what members wrote
type memberships struct {
	svc     *Service
	account string
	dir     string
	conn    *bus.Conn
	log     *zap.Logger
	work    context.Context //nolint:containedctx // of what is done in the background

	mu   sync.Mutex
	all  map[string]*membership
	left bool // nothing begins any more
}

// loadMemberships reads what is known.
func loadMemberships(work context.Context, s *Service, account, dir string) (*memberships, error) {
	m := &memberships{svc: s, account: account, dir: dir, conn: s.authors.conn.For(account), log: s.log.With(zap.String("account", account)), work: work, all: map[string]*membership{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("conversations: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, repo.TempPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, p := range left {
		if err := os.RemoveAll(p); err != nil {
			return nil, fmt.Errorf("conversations: %w", err)
		}
	}
	text, err := os.ReadFile(m.file())
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	var list []record
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		return nil, contract.ErrStateDamaged.With("%s: %v; put it back from a backup, or move it away: contacts' conversations are found again", m.file(), err)
	}
	for _, r := range list {
		if !commit.IsID(r.ID) {
			return nil, contract.ErrStateDamaged.With("%s names %.60q as a conversation", m.file(), r.ID)
		}
		m.all[r.ID] = newMembership(m, r)
	}
	return m, nil
}

func (m *memberships) file() string { return filepath.Join(m.dir, "state.json") }

// begin has what is known be followed.
func (m *memberships) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.all {
		c.startLocked()
	}
}

// get returns a conversation, or nil.
func (m *memberships) get(id string) *membership {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[id]
}

// list returns all, in the order of their ids.
func (m *memberships) list() []*membership {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*membership, 0, len(m.all))
	for _, c := range m.all {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *membership) int { return strings.Compare(a.id, b.id) })
	return out
}

// with returns the one with a contact, or nil.
func (m *memberships) with(contact string) *membership {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.withLocked(contact)
}

func (m *memberships) withLocked(contact string) *membership {
	for _, c := range m.all {
		if c.rec.With == contact && c.rec.State != stateLeft && c.rec.State != contract.ConversationInvited {
			return c
		}
	}
	return nil
}

// change makes a record what fn makes of it, and writes the file; where that fails it is as it was.
func (m *memberships) change(id string, fn func(r *record) error) (*membership, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.all[id]
	if c == nil {
		if len(m.all) >= maxMemberships {
			return nil, contract.ErrFull.With("the account has %d conversations", maxMemberships)
		}
		c = newMembership(m, record{ID: id})
	}
	next := c.rec
	if err := fn(&next); err != nil {
		return nil, err
	}
	if next == c.rec && m.all[id] != nil {
		return c, nil
	}
	list := make([]record, 0, len(m.all)+1)
	for _, x := range m.all {
		if x != c {
			list = append(list, x.rec)
		}
	}
	forgotten := next.State == stateLeft && c.rec.State != contract.ConversationReady && c.repo.Load() == nil
	if !forgotten {
		list = append(list, next)
	}
	slices.SortFunc(list, func(a, b record) int { return cmp.Compare(a.ID, b.ID) })
	text, err := json.MarshalIndent(list, "", "  ")
	if err == nil {
		err = repo.ReplaceFile(m.file(), append(text, '\n'))
	}
	if err != nil {
		return nil, contract.ErrStorage.With("%v", err)
	}
	c.rec = next
	if forgotten {
		delete(m.all, id)
		if c.end != nil {
			c.end()
		}
		return c, nil
	}
	m.all[id] = c
	c.startLocked()
	c.poke(source{})
	return c, nil
}

// contact follows what a contact is now.
func (m *memberships) contact(x *contract.Contact) {
	if !x.Active {
		if c := m.with(x.ID); c != nil {
			m.leave(c.id)
		}
		return
	}
	if !commit.IsID(x.Conversation) {
		return
	}
	if c := m.with(x.ID); c != nil && c.id != x.Conversation {
		m.leave(c.id) // who accepted says that it is another one (swarm §4.1)
	}
	_, err := m.change(x.Conversation, func(r *record) error {
		if r.State == contract.ConversationReady && r.With == x.ID {
			return nil
		}
		r.With = x.ID
		if r.State != contract.ConversationReady {
			r.State = contract.ConversationWanted
		}
		return nil
	})
	if err != nil {
		m.log.Error("conversation of a contact not noted", zap.String("contact", x.ID), zap.Error(err))
	}
}

// leave no longer follows a conversation. One that never came is forgotten.
func (m *memberships) leave(id string) {
	_, err := m.change(id, func(r *record) error {
		r.State = stateLeft
		return nil
	})
	if err != nil {
		m.log.Error("conversation is still followed", zap.String("conversation", id), zap.Error(err))
	}
}

// readContacts follows all contacts as they are now.
func (m *memberships) readContacts(ctx context.Context) error {
	for after := ""; ; {
		page, err := bus.Call(ctx, m.conn, contract.ContactList, &contract.ContactQuery{After: after})
		if err != nil {
			return err
		}
		for i := range page.Contacts {
			m.contact(&page.Contacts[i])
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// heard takes a notice.
func (m *memberships) heard(n *contract.Notice) {
	switch n.Type {
	case contract.NoticeCommit:
		a, err := parseAnnouncement(n.Body)
		if err != nil {
			m.log.Info("announcement passed over", zap.String("from", n.From), zap.Error(err))
			return
		}
		c := m.get(a.Conversation)
		if c == nil || !c.may(n.From, a.Device) {
			return
		}
		c.announced(n.From, a)
	case contract.NoticeInvite:
		in, err := parseInvitation(n.Body)
		if err == nil {
			err = m.invited(n.From, in)
		}
		if err != nil {
			m.log.Info("invitation passed over", zap.String("from", n.From), zap.Error(err))
		}
	case contract.NoticeAsk:
		c := m.get(strings.TrimSpace(n.Body))
		if c == nil || !c.may(n.From, n.Device) {
			return
		}
		c.inviteAgain(n.From)
	}
}

// invited notes an invitation; the first to a conversation counts (swarm §4.2).
func (m *memberships) invited(from string, in *invitation) error {
	m.mu.Lock()
	waiting, his := 0, 0
	for _, c := range m.all {
		if c.rec.State == contract.ConversationInvited {
			if waiting++; c.rec.From == from {
				his++
			}
		}
	}
	m.mu.Unlock()
	_, err := m.change(in.Conversation, func(r *record) error {
		switch {
		case r.State == contract.ConversationReady, r.State == contract.ConversationWanted, r.State == contract.ConversationInvited:
			return nil
		case waiting >= maxInvitations, his >= maxInvitedBy:
			return contract.ErrFull.With("%d invitations wait for an answer", waiting)
		}
		*r = record{ID: in.Conversation, State: contract.ConversationInvited, From: from, Title: in.Title, Received: time.Now().Unix()}
		return nil
	})
	if err == nil {
		m.log.Info("invited to a conversation", zap.String("conversation", in.Conversation), zap.String("from", from))
	}
	return err
}

// online has the conversations with a contact that came be brought level.
func (m *memberships) online(contact string) {
	for _, c := range m.list() {
		c.online(contact)
	}
}

// announcement tells of a commit (swarm §3.4).
type announcement struct{ Conversation, Commit, Device string }

// parseAnnouncement reads one.
func parseAnnouncement(text string) (*announcement, error) {
	var x struct{ ID, Commit, DeviceID string }
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		return nil, err
	}
	device, err := jami.ParseLongID(x.DeviceID)
	if err != nil || !commit.IsID(x.ID) || !commit.IsID(x.Commit) {
		return nil, fmt.Errorf("conversation %.50q, commit %.50q, device %.70q", x.ID, x.Commit, x.DeviceID)
	}
	return &announcement{x.ID, x.Commit, device.String()}, nil
}

// text is the announcement as devices read it.
func (a *announcement) text() string {
	return fmt.Sprintf(`{"commit":%q,"deviceId":%q,"id":%q}`, a.Commit, a.Device, a.Conversation)
}

// invitation asks to join a conversation (swarm §4.2).
type invitation struct{ Conversation, Mode, Title string }

// parseInvitation reads one.
func parseInvitation(text string) (*invitation, error) {
	var x struct {
		ConversationID string
		Metadatas      map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		return nil, err
	}
	if !commit.IsID(x.ConversationID) {
		return nil, fmt.Errorf("conversation %.50q", x.ConversationID)
	}
	in := &invitation{Conversation: x.ConversationID}
	for key, to := range map[string]*string{"mode": &in.Mode, "title": &in.Title} {
		if raw, ok := x.Metadatas[key]; ok {
			if json.Unmarshal(raw, to) != nil { // a number, in some
				*to = string(raw)
			}
		}
	}
	if in.Title = strings.ToValidUTF8(in.Title, ""); len(in.Title) > maxTitle || !clean(in.Title, "") {
		in.Title = ""
	}
	return in, nil
}
