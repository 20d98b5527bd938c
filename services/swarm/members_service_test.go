package swarm_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/gitwire"
	"github.com/parley-jami/parley/services/swarm/repo"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

var wide = gitwire.Limits{Pack: 1 << 20, Objects: 1000, Object: 1 << 20, All: 4 << 20}

// friend is a contact of the account with a repository of her own, and what the node's other processes are
// told.
type friend struct {
	*node
	*swarmtest.Identity
	repo     *repo.Swarm
	ident    *bus.Conn
	took     chan *contract.MessageHeard
	notices  chan *contract.NoticeSend
	fetched  chan *contract.PostFetched
	dialled  chan *contract.PeerGit
	declines func() bool            // no channel opens to her
	serves   atomic.Pointer[forged] // in the place of her repository
}

func newFriend(t *testing.T) *friend {
	t.Helper()
	f := &friend{node: startNode(t), Identity: swarmtest.New(t), took: make(chan *contract.MessageHeard, 64), notices: make(chan *contract.NoticeSend, 64),
		fetched: make(chan *contract.PostFetched, 64), dialled: make(chan *contract.PeerGit, 64), declines: func() bool { return false }}
	var err error
	if f.repo, err = repo.CreateSwarm(t.Context(), t.TempDir(), &f.Author, f.id.URI, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.ident = f.bus.Conn("identity")
	ident, err := bus.NewService(f.ident, "identity", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ident.Stop)
	connect, err := bus.NewService(f.bus.Conn("connect"), "connect", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connect.Stop)
	err = errors.Join(
		bus.Serve(ident, contract.MessageTake, func(_ context.Context, r *bus.Request[contract.MessageHeard]) (*contract.None, error) {
			f.took <- &r.Body
			return &contract.None{}, nil
		}),
		bus.Serve(ident, contract.NoticeSendCmd, func(_ context.Context, r *bus.Request[contract.NoticeSend]) (*contract.MessageQueued, error) {
			f.notices <- &r.Body
			return &contract.MessageQueued{}, nil
		}),
		bus.Serve(ident, contract.PostFetchedCmd, func(_ context.Context, r *bus.Request[contract.PostFetched]) (*contract.None, error) {
			f.fetched <- &r.Body
			return &contract.None{}, nil
		}),
		bus.Serve(connect, contract.PeerGitCmd, func(_ context.Context, r *bus.Request[contract.PeerGit]) (*contract.PeerGitFrom, error) {
			f.dialled <- &r.Body
			if f.declines() {
				return nil, contract.ErrUnavailable
			}
			c := f.dial(contract.GitHello{Account: bustest.Account, Conversation: r.Body.Conversation, Token: r.Body.Token})
			go func() {
				defer c.Close()
				var src gitwire.Source = f.repo
				if x := f.serves.Load(); x != nil {
					src = x
				}
				gitwire.Serve(&stream{UnixConn: c}, f.repo.ID, src, func(plumbing.Hash) {}) //nolint:errcheck // the asker ends it
			}()
			return &contract.PeerGitFrom{Device: f.Device}, nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// stream reads messages of the socket as a stream.
type stream struct {
	*net.UnixConn
	rest []byte
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		b := make([]byte, contract.GitMessage)
		n, err := s.UnixConn.Read(b)
		if err != nil {
			return 0, err
		}
		s.rest = b[:n]
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// dial makes a connection as connect does.
func (f *friend) dial(h contract.GitHello) *net.UnixConn {
	f.t.Helper()
	dir, err := f.env.RunDir()
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(dir, contract.GitSocket), Net: "unixpacket"})
	if err != nil {
		f.t.Fatal(err)
	}
	text, err := json.Marshal(h)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := c.Write(text); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// asks opens a channel as a device, and returns what swarm says to it.
func (f *friend) asks(account, device, conversation string) (*net.UnixConn, string) {
	f.t.Helper()
	c := f.dial(contract.GitHello{Account: bustest.Account, Conversation: conversation, Peer: account, Device: device})
	b := make([]byte, 16)
	n, err := c.Read(b)
	if err != nil {
		f.t.Fatal(err)
	}
	return c, string(b[:n])
}

// pulls has the friend fetch what the node has.
func (f *friend) pulls() {
	f.t.Helper()
	c, said := f.asks(f.URI, f.Device, f.repo.ID)
	defer c.Close()
	if said != "ok" {
		f.t.Fatalf("a member hears %q", said)
	}
	head, objs, err := gitwire.Fetch(&stream{UnixConn: c}, f.repo.ID, "d", f.repo.Has, f.repo.Haves(100), wide)
	if err == nil {
		_, err = f.repo.Receive(f.t.Context(), head, objs, nil, &f.Author, time.Now())
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// says writes at the friend's, and tells the node.
func (f *friend) says(m commit.Message) *repo.Post {
	f.t.Helper()
	p, err := f.repo.Write(&f.Author, m, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	f.tells(f.URI, contract.NoticeCommit, `{"id":"`+f.repo.ID+`","commit":"`+p.ID+`","deviceId":"`+f.Device+`"}`)
	return p
}

func (f *friend) tells(from, typ, body string) {
	f.t.Helper()
	if err := bus.Publish(f.t.Context(), f.ident, contract.NoticeEvents, &contract.Notice{From: from, Device: f.Device, Type: typ, Body: body}, from); err != nil {
		f.t.Fatal(err)
	}
}

func (f *friend) contact(c contract.Contact) {
	f.t.Helper()
	if err := bus.Publish(f.t.Context(), f.ident, contract.ContactEvents, &contract.ContactChanged{Contact: c, Revision: 2}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *friend) list() []contract.MemberConversation {
	f.t.Helper()
	l, err := bus.Call(f.t.Context(), f.bus.Conn("cli"), contract.ConversationList, &contract.None{})
	if err != nil {
		f.t.Fatal(err)
	}
	return l.Conversations
}

// becomes waits until the node's conversations are right.
func (f *friend) becomes(what string, right func([]contract.MemberConversation) bool) {
	f.t.Helper()
	for end := time.Now().Add(20 * time.Second); !right(f.list()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("not %s: %+v", what, f.list())
		}
	}
}

func came[T any](t *testing.T, what string, ch chan *T) *T {
	t.Helper()
	select {
	case x := <-ch:
		return x
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not come", what)
		return nil
	}
}

func text2(s string) commit.Message {
	return commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: s}
}

// accepted is a friend whose conversation the node has joined.
func accepted(t *testing.T) *friend {
	t.Helper()
	f := newFriend(t)
	if _, err := f.repo.Write(&f.Author, text2("hello"), time.Now()); err != nil {
		t.Fatal(err)
	}
	f.contact(contract.Contact{ID: f.URI, Active: true, Confirmed: true, Conversation: f.repo.ID})
	if m := came(t, "what was written before", f.took); m.Body != "hello" || m.From != f.URI || m.Device != f.Device || m.Conversation != f.repo.ID || m.Sent == 0 {
		t.Errorf("%+v", m)
	}
	if n := came(t, "the news that we joined", f.notices); n.To != f.URI || n.Type != contract.NoticeCommit || !strings.Contains(n.Body, f.repo.ID) {
		t.Errorf("%+v", n)
	}
	f.pulls()
	if r := f.repo.Members()[f.id.URI]; r != repo.Member {
		t.Fatalf("we are %q", r)
	}
	return f
}

func TestAContactsConversation(t *testing.T) {
	f := accepted(t)
	f.becomes("here", func(l []contract.MemberConversation) bool {
		return len(l) == 1 && l[0].State == contract.ConversationReady && l[0].With == f.URI && len(l[0].Members) == 2 && l[0].Head == f.repo.Head().String()
	})
	// A text of ours.
	put := func(w contract.ConversationWrite) (*contract.ConversationPost, error) {
		return bus.Call(t.Context(), f.ident, contract.ConversationPut, &w)
	}
	p, err := put(contract.ConversationWrite{With: f.URI, Body: "Grüße"})
	if err != nil || p.From != f.id.URI || p.Body != "Grüße" {
		t.Fatalf("%+v, %v", p, err)
	}
	came(t, "the announcement", f.notices)
	f.pulls()
	if f.repo.Head().String() != p.ID {
		t.Error("she does not have it")
	}
	if x := came(t, "the news that she has it", f.fetched); x.ID != p.ID[:16] || x.To != f.URI || x.Device != f.Device {
		t.Errorf("%+v", x)
	}
	// One of hers; what is for no reader is not told.
	f.says(commit.Message{commit.KeyType: "application/call-history+json", "to": f.id.URI, "duration": "0"})
	f.says(commit.Message{commit.KeyType: commit.TypeText, commit.KeyBody: "👍", "react-to": p.ID})
	f.says(text2("two"))
	if m := came(t, "her text", f.took); m.Body != "two" {
		t.Errorf("%+v", m)
	}
	// Files, both ways.
	sum := strings.Repeat("0", 128)
	file, err := put(contract.ConversationWrite{ID: f.repo.ID, File: &contract.FileOffered{FileRef: contract.FileRef{TID: "77"}, Name: "a.png", Size: 5, SHA3: sum}})
	if err != nil || file.File == nil || file.File.Commit != file.ID || file.File.Conversation != f.repo.ID {
		t.Fatalf("%+v, %v", file, err)
	}
	may := func(account, device string, r contract.FileRef) (*contract.FileOffered, error) {
		return bus.Call(t.Context(), f.bus.Conn("connect"), contract.ConversationMay, &contract.FileAsked{FileRef: r, Peer: account, Device: device})
	}
	if x, err := may(f.URI, f.Device, file.File.FileRef); err != nil || x.Size != 5 || x.SHA3 != sum || x.Name != "a.png" {
		t.Errorf("%+v, %v", x, err)
	}
	stranger := swarmtest.New(t)
	other := file.File.FileRef
	other.TID = "78"
	text := file.File.FileRef
	text.Commit = p.ID
	for name, err := range map[string]error{
		"a stranger":      second(may(stranger.URI, stranger.Device, file.File.FileRef)),
		"another number":  second(may(f.URI, f.Device, other)),
		"a text":          second(may(f.URI, f.Device, text)),
		"no conversation": second(may(f.URI, f.Device, contract.FileRef{Conversation: p.ID, Commit: p.ID, TID: "77"})),
	} {
		if !errors.Is(err, contract.ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.pulls()
	f.says(commit.Message{commit.KeyType: commit.TypeFile, commit.KeyFile: "../../x.mkv", commit.KeyTID: "9", commit.KeySize: "12", commit.KeySHA3: sum})
	if m := came(t, "her file", f.took); m.File == nil || m.File.Name != "x.mkv" || m.File.Size != 12 || m.Body != "x.mkv" {
		t.Errorf("%+v", m)
	}
	l, err := bus.Call(t.Context(), f.bus.Conn("connect"), contract.ConversationFiles, &contract.None{})
	if err != nil || len(l.Files) != 1 || l.Files[0].From != f.URI || l.Files[0].TID != "9" {
		t.Errorf("%+v, %v", l, err)
	}
	// What cannot be written.
	for name, err := range map[string]error{
		"nothing":            second(put(contract.ConversationWrite{With: f.URI})),
		"a control":          second(put(contract.ConversationWrite{With: f.URI, Body: "\x1b[2J"})),
		"a file of no size":  second(put(contract.ConversationWrite{With: f.URI, File: &contract.FileOffered{FileRef: contract.FileRef{TID: "1"}, Name: "x", Size: -1, SHA3: sum}})),
		"a file of no name":  second(put(contract.ConversationWrite{With: f.URI, File: &contract.FileOffered{FileRef: contract.FileRef{TID: "1"}, SHA3: sum}})),
		"a file of no order": second(put(contract.ConversationWrite{With: f.URI, File: &contract.FileOffered{FileRef: contract.FileRef{TID: "x"}, Name: "x", SHA3: sum}})),
	} {
		if !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := second(put(contract.ConversationWrite{With: stranger.URI, Body: "x"})); !errors.Is(err, contract.ErrNotFound) {
		t.Errorf("to a stranger: %v", err)
	}

	// Started again it knows all, and does not tell it twice.
	head := f.list()[0].Head
	f.stop()
	f.start()
	f.becomes("here again", func(l []contract.MemberConversation) bool { return len(l) == 1 && l[0].Head == head })
	f.says(text2("after"))
	if m := came(t, "her text after that", f.took); m.Body != "after" {
		t.Errorf("%+v", m)
	}
	page, err := bus.Call(t.Context(), f.bus.Conn("cli"), contract.ConversationRead, &contract.ConversationQuery{ID: f.repo.ID, Limit: 3})
	if err != nil || len(page.Posts) != 3 || !page.More || page.Posts[0].Body != "after" || page.Posts[1].File == nil {
		t.Errorf("%+v, %v", page, err)
	}
	// Who is no contact any more has nothing.
	f.contact(contract.Contact{ID: f.URI, Banned: true})
	f.becomes("left", func(l []contract.MemberConversation) bool { return len(l) == 0 })
	if c, said := f.asks(f.URI, f.Device, f.repo.ID); said != "no" {
		t.Errorf("a blocked contact hears %q", said)
	} else {
		c.Close()
	}
}

func second[T any](_ T, err error) error { return err }

func TestHostileMembers(t *testing.T) {
	f := accepted(t)
	stranger := swarmtest.New(t)
	for name, who := range map[string][3]string{"a stranger": {stranger.URI, stranger.Device, f.repo.ID}, "another conversation": {f.URI, f.Device, f.repo.Head().String()}, "a path": {f.URI, f.Device, "../../../x"}, "nobody": {"", "", f.repo.ID}} {
		c, said := f.asks(who[0], who[1], who[2])
		if said != "no" {
			t.Errorf("%s hears %q", name, said)
		}
		c.Close()
	}
	// Another commit than those of the conversation is not given.
	c, _ := f.asks(f.URI, f.Device, f.repo.ID)
	if _, err := c.Write([]byte("0084git-upload-pack /" + strings.Repeat("0", 40) + "\x00host=" + strings.Repeat("d", 64) + "\x00")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes of another conversation", n)
	}
	c.Close()
	// A hello that is none.
	dir, err := f.env.RunDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, hello := range []string{"x", `{"token":"nobody wants it"}`} {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(dir, contract.GitSocket), Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(hello)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 100)); err == nil {
			t.Errorf("%q: %d bytes", hello, n)
		}
		c.Close()
	}

	// A commit that is against the rules is not taken, nor what stands on it.
	head := f.list()[0].Head
	f.tells(stranger.URI, contract.NoticeCommit, `{"id":"`+f.repo.ID+`","commit":"`+strings.Repeat("1", 40)+`","deviceId":"`+f.Device+`"}`) // nobody asks a stranger
	bad := forge(t, f, stranger)
	f.serves.Store(bad)
	f.tells(f.URI, contract.NoticeCommit, `{"id":"`+f.repo.ID+`","commit":"`+bad.head.String()+`","deviceId":"`+f.Device+`"}`)
	for q := came(t, "a fetch", f.dialled); q.Of != f.URI || q.Device != f.Device; {
		q = came(t, "a fetch of what was announced", f.dialled)
	}
	f.tells(f.URI, contract.NoticeInvite, `{"conversationId":"../../x"}`)
	f.tells(f.URI, contract.NoticeCommit, "{")
	f.serves.Store(nil)
	f.says(text2("honest"))
	if m := came(t, "her next text", f.took); m.Body != "honest" {
		t.Errorf("%+v", m)
	}
	if f.list()[0].Head == head {
		t.Error("it did not move")
	}
}

// forged is a conversation with one commit more, which another signed in its author's name.
type forged struct {
	gitwire.Source
	head plumbing.Hash
	raw  []byte
}

func forge(t *testing.T, f *friend, by *swarmtest.Identity) *forged {
	t.Helper()
	o, err := f.repo.Object(f.repo.Head())
	if err != nil {
		t.Fatal(err)
	}
	last, _, err := commit.Parse(o.Data)
	if err != nil {
		t.Fatal(err)
	}
	c := &commit.Commit{Tree: last.Tree, Parents: []plumbing.Hash{f.repo.Head()}, Name: "x", Device: f.Device, Time: time.Now(), Message: text2("forged").Encode()}
	sum := sha512.Sum512(c.Unsigned())
	if c.Signature, err = by.DeviceKey.Sign(rand.Reader, sum[:], crypto.SHA512); err != nil {
		t.Fatal(err)
	}
	return &forged{f.repo, plumbing.ComputeHash(plumbing.CommitObject, c.Raw()), c.Raw()}
}

func (f *forged) Head() plumbing.Hash { return f.head }

func (f *forged) Missing(_ plumbing.Hash, haves []plumbing.Hash) ([]plumbing.Hash, error) {
	more, err := f.Source.Missing(f.Source.Head(), haves)
	return append([]plumbing.Hash{f.head}, more...), err
}

func (f *forged) Object(h plumbing.Hash) (gitwire.Object, error) {
	if h == f.head {
		return gitwire.Object{Type: plumbing.CommitObject, Data: f.raw}, nil
	}
	return f.Source.Object(h)
}

func TestInvitationIsAnswered(t *testing.T) {
	f := newFriend(t)
	invite := `{"conversationId":"` + f.repo.ID + `","metadatas":{"mode":"0","title":"Chess"}}`
	answer := func(id, a string) error {
		return second(bus.Call(t.Context(), f.bus.Conn("cli"), contract.ConversationAnswered, &contract.ConversationAnswer{ID: id, Answer: a}))
	}
	invited := func(l []contract.MemberConversation) bool {
		return len(l) == 1 && l[0].State == contract.ConversationInvited && l[0].From == f.URI && l[0].Title == "Chess"
	}
	f.tells(f.URI, contract.NoticeInvite, invite)
	f.becomes("invited", invited)
	if err := answer(f.repo.ID, "perhaps"); !errors.Is(err, contract.ErrBadRequest) {
		t.Error(err)
	}
	if err := answer(f.repo.ID, "refuse"); err != nil {
		t.Fatal(err)
	}
	f.becomes("refused", func(l []contract.MemberConversation) bool { return len(l) == 0 })
	f.tells(f.URI, contract.NoticeInvite, invite)
	f.becomes("invited again", invited)
	if err := answer(f.repo.ID, "accept"); err != nil {
		t.Fatal(err)
	}
	f.becomes("joined", func(l []contract.MemberConversation) bool {
		return len(l) == 1 && slices.ContainsFunc(l[0].Members, func(m contract.ConversationMember) bool { return m.ID == f.id.URI && m.Role == "member" })
	})
	if err := answer(f.repo.ID, "refuse"); !errors.Is(err, contract.ErrBadRequest) {
		t.Error(err)
	}
	if err := answer(strings.Repeat("1", 40), "accept"); !errors.Is(err, contract.ErrNotFound) {
		t.Error(err)
	}
	// Who is in it may ask to be invited again.
	for len(f.notices) > 0 {
		<-f.notices
	}
	f.tells(f.URI, contract.NoticeAsk, f.repo.ID)
	for n := came(t, "an invitation", f.notices); n.Type != contract.NoticeInvite; {
		n = came(t, "an invitation", f.notices)
	}
}

func TestConversationThatWeStart(t *testing.T) {
	f := newFriend(t)
	start := func(id string) (*contract.ConversationID, error) {
		return bus.Call(t.Context(), f.ident, contract.ConversationStart, &contract.ConversationWith{ID: id})
	}
	one, err := start(f.URI)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := start(f.URI); err != nil || again.ID != one.ID {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := start("x"); !errors.Is(err, contract.ErrBadRequest) {
		t.Error(err)
	}
	f.becomes("here", func(l []contract.MemberConversation) bool {
		return len(l) == 1 && l[0].State == contract.ConversationReady
	})
	// As long as she has not joined it is not where she is written to.
	if err := second(bus.Call(t.Context(), f.ident, contract.ConversationPut, &contract.ConversationWrite{With: f.URI, Body: "x"})); !errors.Is(err, contract.ErrNotFound) {
		t.Error(err)
	}
	c, said := f.asks(f.URI, f.Device, one.ID)
	defer c.Close()
	if said != "ok" {
		t.Fatalf("who is invited hears %q", said)
	}
	head, objs, err := gitwire.Fetch(&stream{UnixConn: c}, one.ID, "d", func(plumbing.Hash) bool { return false }, nil, wide)
	if err != nil {
		t.Fatal(err)
	}
	if f.repo, err = repo.Clone(t.Context(), t.TempDir(), one.ID, f.URI, head, objs, nil); err != nil {
		t.Fatal(err)
	}
	joined, err := f.repo.Join(&f.Author, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.tells(f.URI, contract.NoticeCommit, `{"id":"`+one.ID+`","commit":"`+joined.ID+`","deviceId":"`+f.Device+`"}`)
	f.becomes("of two", func(l []contract.MemberConversation) bool { return l[0].Head == joined.ID })
	if err := second(bus.Call(t.Context(), f.ident, contract.ConversationPut, &contract.ConversationWrite{With: f.URI, Body: "x"})); err != nil {
		t.Error(err)
	}
	// She accepts with another one: that is it from now on.
	if f.repo, err = repo.CreateSwarm(t.Context(), t.TempDir(), &f.Author, f.id.URI, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	f.contact(contract.Contact{ID: f.URI, Active: true, Confirmed: true, Conversation: f.repo.ID})
	f.becomes("the other one", func(l []contract.MemberConversation) bool {
		return len(l) == 1 && l[0].ID == f.repo.ID && l[0].State == contract.ConversationReady
	})
}

// A conversation that cannot be fetched yet is, once a device of the contact comes online.
func TestConversationIsFetchedLater(t *testing.T) {
	f := newFriend(t)
	away := make(chan struct{})
	f.declines = func() bool {
		select {
		case <-away:
			return false
		default:
			return true
		}
	}
	f.contact(contract.Contact{ID: f.URI, Active: true, Confirmed: true, Conversation: f.repo.ID})
	came(t, "the first try", f.dialled)
	f.becomes("wanted", func(l []contract.MemberConversation) bool {
		return len(l) == 1 && l[0].State == contract.ConversationWanted && l[0].Why != ""
	})
	close(away)
	dht := f.bus.Conn("dht")
	if err := bus.Publish(t.Context(), dht, contract.PresenceEvents, &contract.PresenceChanged{Presence: contract.Presence{ID: f.URI, Online: true}}, f.URI); err != nil {
		t.Fatal(err)
	}
	f.becomes("here", func(l []contract.MemberConversation) bool {
		return l[0].State == contract.ConversationReady && l[0].Why == ""
	})
}
