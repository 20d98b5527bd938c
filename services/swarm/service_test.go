package swarm_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/swarm"
	"github.com/parley-jami/parley/services/swarm/repo"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a bus with an identity in place of the real one and the swarm process.
type node struct {
	t    *testing.T
	bus  *bustest.Server
	conf *bus.Conn // asks as conference does
	stop func()
	open int // conversations at once; 0: as they are
	id   *swarmtest.Identity
	env  *host.Env

	signing sync.RWMutex // held by a test: nothing is signed
}

func startNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, bus: bustest.Start(t)}
	id := swarmtest.New(t)
	n.id = id
	c := n.bus.Conn("identity")
	svc, err := bus.NewService(c, "identity", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(svc.Stop)
	err = errors.Join(
		bus.Serve(svc, contract.IdentityGet, func(context.Context, *bus.Request[contract.None]) (*contract.IdentityState, error) {
			return &contract.IdentityState{State: "ready", Account: contract.Account{ID: bustest.Account, Alias: "Parley"},
				Accounts: []contract.Account{{ID: bustest.Account, Alias: "Parley"}}}, nil
		}),
		bus.Serve(svc, contract.IdentityCerts, func(context.Context, *bus.Request[contract.None]) (*contract.Certificates, error) {
			return &contract.Certificates{DevicePEM: string(id.DevicePEM), AccountPEM: string(id.AccountPEM)}, nil
		}),
		bus.Serve(svc, contract.ContactList, func(context.Context, *bus.Request[contract.ContactQuery]) (*contract.Contacts, error) {
			return &contract.Contacts{Revision: 1}, nil
		}),
		bus.Serve(svc, contract.IdentitySign, func(_ context.Context, r *bus.Request[contract.SignRequest]) (*contract.SignReply, error) {
			if r.Param(1) != "swarm" || r.Body.Hash != "SHA-512" || r.Body.Scheme != "pkcs1" || r.Body.Key != contract.KeyDevice {
				return nil, contract.ErrForbidden
			}
			n.signing.RLock()
			defer n.signing.RUnlock()
			sig, err := id.DeviceKey.Sign(rand.Reader, r.Body.Digest, crypto.SHA512)
			return &contract.SignReply{Signature: sig}, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	n.conf = n.bus.Conn("conference")
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

// start runs the service until n.stop.
func (n *node) start() {
	n.t.Helper()
	n.run(func(env *host.Env) bool { return env.Ready() })
}

// startDamaged runs a service that will not be ready.
func (n *node) startDamaged() {
	n.t.Helper()
	n.run(func(env *host.Env) bool {
		_, err := bus.Call(n.t.Context(), n.conf, contract.SwarmOpen, &contract.None{}, "main")
		return !errors.Is(err, contract.ErrUnavailable) && !env.Ready()
	})
}

func (n *node) run(up func(*host.Env) bool) {
	n.t.Helper()
	env := n.bus.Env("swarm")
	n.env = env
	s, err := swarm.New(env)
	if err != nil {
		n.t.Fatal(err)
	}
	if n.open > 0 {
		s.(*swarm.Service).SetMaxOpen(n.open)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			n.t.Errorf("swarm ended: %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); !up(env); {
		if time.Now().After(deadline) {
			n.t.Fatal("swarm is not ready")
		}
		select {
		case err := <-done:
			done <- err
			n.t.Fatalf("swarm: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (n *node) post(room string, p contract.ChatPost) (*contract.ChatMessage, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute) // hundreds wait for one disk
	defer cancel()
	return bus.Call(ctx, n.conf, contract.SwarmPost, &p, room)
}

func (n *node) read(room string, q contract.ChatQuery) *contract.ChatHistory {
	n.t.Helper()
	h, err := bus.Call(n.t.Context(), n.conf, contract.SwarmRead, &q, room)
	if err != nil {
		n.t.Fatal(err)
	}
	return h
}

func TestChat(t *testing.T) {
	n := startNode(t)
	if h := n.read("main", contract.ChatQuery{}); len(h.Messages) != 0 || h.Conversation != "" {
		t.Fatalf("history before anything was said: %+v", h)
	}
	conv, err := bus.Call(t.Context(), n.conf, contract.SwarmOpen, &contract.None{}, "main")
	if err != nil || len(conv.ID) != 40 {
		t.Fatalf("open: %+v, %v", conv, err)
	}
	first, err := n.post("main", contract.ChatPost{From: "p1", Name: "Zoë", Body: "hello\r\nthere 😀", Key: "a"})
	if err != nil || first.Parent != conv.ID || first.Body != "hello\nthere 😀" || first.Name != "Zoë" || first.From != "p1" || first.Time.IsZero() {
		t.Fatalf("post: %+v, %v", first, err)
	}
	second, err := n.post("main", contract.ChatPost{From: "p2", Body: "hi", Reply: first.ID})
	if err != nil || second.Parent != first.ID || second.Reply != first.ID {
		t.Fatalf("reply: %+v, %v", second, err)
	}
	if again, err := n.post("main", contract.ChatPost{From: "p1", Name: "Zoë", Body: "hello", Key: "a"}); err != nil || again.ID != first.ID {
		t.Fatalf("the same key: %+v, %v", again, err)
	}
	n.stop()
	n.start()
	h := n.read("main", contract.ChatQuery{})
	if h.Conversation != conv.ID || h.More || len(h.Messages) != 2 || h.Messages[0] != *first || h.Messages[1] != *second {
		t.Fatalf("history after a restart: %+v", h)
	}
	if h := n.read("other", contract.ChatQuery{}); len(h.Messages) != 0 {
		t.Fatalf("another room has %+v", h)
	}
	if h := n.read("main", contract.ChatQuery{Before: second.ID}); len(h.Messages) != 1 || h.Messages[0].ID != first.ID {
		t.Fatalf("before the second: %+v", h)
	}
}

func TestBadPosts(t *testing.T) {
	n := startNode(t)
	for name, tt := range map[string]struct {
		room string
		p    contract.ChatPost
		want *contract.Error
	}{
		"empty":            {"main", contract.ChatPost{Body: " \n"}, contract.ErrBadRequest},
		"too long":         {"main", contract.ChatPost{Body: strings.Repeat("é", 4097)}, contract.ErrBadRequest},
		"control":          {"main", contract.ChatPost{Body: "a\x1b[31mb"}, contract.ErrBadRequest},
		"nul":              {"main", contract.ChatPost{Body: "a\x00"}, contract.ErrBadRequest},
		"name":             {"main", contract.ChatPost{Body: "a", Name: "A\nB"}, contract.ErrBadRequest},
		"key":              {"main", contract.ChatPost{Body: "a", Key: strings.Repeat("k", 129)}, contract.ErrBadRequest},
		"reply to nothing": {"main", contract.ChatPost{Body: "a", Reply: strings.Repeat("0", 40)}, contract.ErrBadRequest},
		"reply to junk":    {"main", contract.ChatPost{Body: "a", Reply: "../../x"}, contract.ErrBadRequest},
		"room":             {"Main_1", contract.ChatPost{Body: "a"}, contract.ErrBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := n.post(tt.room, tt.p); !errors.Is(err, tt.want) {
				t.Fatalf("%+v, %v", m, err)
			}
		})
	}
	if _, err := n.post("main", contract.ChatPost{Body: strings.Repeat("é", 4096)}); err != nil {
		t.Fatalf("8192 bytes: %v", err)
	}
}

// TestPagesFitTheBus: 200 messages of the longest body are more than NATS carries,
// and JSON makes six bytes of each of these.
func TestPagesFitTheBus(t *testing.T) {
	n := startNode(t)
	for i := range 130 {
		if _, err := n.post("main", contract.ChatPost{Body: strings.Repeat("<", 8190) + fmt.Sprint(i%10)}); err != nil {
			t.Fatal(err)
		}
	}
	got, before := 0, ""
	for {
		h := n.read("main", contract.ChatQuery{Before: before, Limit: 200})
		got += len(h.Messages)
		if !h.More {
			break
		}
		before = h.Messages[0].ID
	}
	if got != 130 {
		t.Fatalf("%d messages in all pages, want 130", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	n := startNode(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	ok := map[string]bool{}
	for i := range 200 {
		wg.Go(func() {
			m, err := n.post("main", contract.ChatPost{From: "p", Body: fmt.Sprint(i)})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				ok[m.ID] = true
			case !errors.Is(err, contract.ErrBusy):
				t.Errorf("post: %v", err)
			}
		})
	}
	wg.Wait()
	h := n.read("main", contract.ChatQuery{Limit: 200})
	if len(h.Messages) != len(ok) || len(ok) == 0 {
		t.Fatalf("%d acknowledged, %d there", len(ok), len(h.Messages))
	}
}

// TestDamagedRoom: one room's damage is told with the way out, and stays its own.
func TestDamagedRoom(t *testing.T) {
	n := startNode(t)
	m, err := n.post("bad", contract.ChatPost{Body: "x"})
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	path := filepath.Join(n.bus.Config().Data, "swarm", bustest.Account, "conversations", m.Parent)
	object := filepath.Join(path, ".git", "objects", m.ID[:2], m.ID[2:])
	if err := os.Remove(object); err != nil {
		t.Fatal(err)
	}
	n.start()
	_, err = n.post("bad", contract.ChatPost{Body: "y"})
	if !errors.Is(err, contract.ErrStateDamaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
		t.Fatalf("post to a damaged room: %v", err)
	}
	if _, err := n.post("good", contract.ChatPost{Body: "y"}); err != nil {
		t.Fatalf("the other room: %v", err)
	}
	if _, err := os.Stat(object); err == nil {
		t.Fatal("the damaged repository was written to")
	}
}

// TestRoomsFoundAgain: rooms.json can be lost; damaged it is refused.
func TestRoomsFoundAgain(t *testing.T) {
	n := startNode(t)
	m, err := n.post("main", contract.ChatPost{Body: "x"})
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	file := filepath.Join(n.bus.Config().Data, "swarm", bustest.Account, "rooms.json")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	n.start()
	if h := n.read("main", contract.ChatQuery{}); len(h.Messages) != 1 || h.Messages[0].ID != m.ID {
		t.Fatalf("%+v", h)
	}
	n.stop()
	if err := os.WriteFile(file, []byte(`{"main":`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.startDamaged()
	var e *contract.Error
	if _, err := n.post("main", contract.ChatPost{Body: "y"}); !errors.As(err, &e) || e.Code != contract.ErrStateDamaged.Code || !strings.Contains(e.Message, file) {
		t.Fatalf("post with a damaged rooms.json: %v", err)
	}
	if _, err := bus.Call(t.Context(), n.conf, contract.SwarmRead, &contract.ChatQuery{}, "main"); !errors.Is(err, contract.ErrStateDamaged) {
		t.Fatalf("read with a damaged rooms.json: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != `{"main":` {
		t.Fatalf("it was changed: %s, %v", text, err)
	}
}

func (n *node) detach(room string) {
	n.t.Helper()
	if _, err := bus.Call(n.t.Context(), n.conf, contract.SwarmDetach, &contract.None{}, room); err != nil {
		n.t.Fatal(err)
	}
}

// TestDetachedRoomBeginsAnew: a new room of a removed one's name has no old chat, also
// after a process killed at any moment, and nothing is lost from the disk.
func TestDetachedRoomBeginsAnew(t *testing.T) {
	n := startNode(t)
	n.detach("main") // nothing was said: harmless
	old, err := n.post("main", contract.ChatPost{Body: "old"})
	if err != nil {
		t.Fatal(err)
	}
	n.detach("main")
	n.detach("main")
	if h := n.read("main", contract.ChatQuery{}); len(h.Messages) != 0 || h.Conversation != "" {
		t.Fatalf("old chat: %+v", h)
	}
	fresh, err := n.post("main", contract.ChatPost{Body: "new"})
	if err != nil || fresh.Parent == old.Parent {
		t.Fatalf("%+v, %v", fresh, err)
	}
	base := filepath.Join(n.bus.Config().Data, "swarm", bustest.Account)
	if room, err := repo.Room(filepath.Join(base, "conversations", old.Parent)); err != nil || room != "" {
		t.Fatalf("the old repository is of room %q, %v", room, err)
	}
	n.stop()
	// Killed between the repository and rooms.json: the next try ends it.
	if err := repo.Detach(filepath.Join(base, "conversations", fresh.Parent)); err != nil {
		t.Fatal(err)
	}
	n.start()
	if h := n.read("main", contract.ChatQuery{}); len(h.Messages) != 1 || h.Messages[0].ID != fresh.ID {
		t.Fatalf("not detached yet: %+v", h)
	}
	n.detach("main")
	n.stop()
	if err := os.Remove(filepath.Join(base, "rooms.json")); err != nil {
		t.Fatal(err)
	}
	n.start()
	if h := n.read("main", contract.ChatQuery{}); len(h.Messages) != 0 {
		t.Fatalf("chat of a detached conversation: %+v", h)
	}
	// One that cannot be opened goes too.
	bad, err := n.post("main", contract.ChatPost{Body: "x"})
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := os.RemoveAll(filepath.Join(base, "conversations", bad.Parent, ".git", "objects")); err != nil {
		t.Fatal(err)
	}
	n.start()
	n.detach("main")
	if _, err := n.post("main", contract.ChatPost{Body: "y"}); err != nil {
		t.Fatal(err)
	}
	if all, err := filepath.Glob(filepath.Join(base, "conversations", "*")); err != nil || len(all) != 4 {
		t.Fatalf("%v, %v", all, err)
	}
}

// TestFullDiskAtTheStart: what rooms.json says can be found again.
func TestFullDiskAtTheStart(t *testing.T) {
	n := startNode(t)
	m, err := n.post("main", contract.ChatPost{Body: "x"})
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	file := filepath.Join(n.bus.Config().Data, "swarm", bustest.Account, "rooms.json")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file+".tmp", 0o700); err != nil { // nothing can be written there
		t.Fatal(err)
	}
	n.start()
	if h := n.read("main", contract.ChatQuery{}); len(h.Messages) != 1 || h.Messages[0].ID != m.ID {
		t.Fatalf("%+v", h)
	}
}

// TestMoreRoomsThanAreOpen: who is idle makes place, and comes back when asked for.
func TestMoreRoomsThanAreOpen(t *testing.T) {
	n := startNode(t)
	n.stop()
	n.open = 2
	n.start()
	var wg sync.WaitGroup
	for i := range 3 {
		for j := range 5 {
			room := fmt.Sprint("room", j)
			if _, err := n.post(room, contract.ChatPost{Body: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for j := range 5 {
		wg.Go(func() {
			for i := 3; i < 6; {
				switch _, err := n.post(fmt.Sprint("room", j), contract.ChatPost{Body: fmt.Sprint(i)}); {
				case err == nil:
					i++
				case !errors.Is(err, contract.ErrBusy):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for j := range 5 {
		if h := n.read(fmt.Sprint("room", j), contract.ChatQuery{}); len(h.Messages) != 6 {
			t.Errorf("room%d has %d messages", j, len(h.Messages))
		}
	}
}

// TestWhatNobodyWaitsForIsNotWritten: a post that waited for longer than its sender.
func TestWhatNobodyWaitsForIsNotWritten(t *testing.T) {
	n := startNode(t)
	if _, err := n.post("main", contract.ChatPost{Body: "first"}); err != nil {
		t.Fatal(err)
	}
	n.signing.Lock()
	slow := make(chan error, 1)
	go func() {
		_, err := n.post("main", contract.ChatPost{Body: "slow"})
		slow <- err
	}()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := bus.Call(ctx, n.conf, contract.SwarmPost, &contract.ChatPost{Body: "gave up"}, "main")
		cancel()
		if !errors.Is(err, contract.ErrTimeout) && !errors.Is(err, contract.ErrUnavailable) {
			t.Errorf("a post into a stuck chat: %v", err)
		}
	}
	n.signing.Unlock()
	if err := <-slow; err != nil {
		t.Fatal(err)
	}
	last, err := n.post("main", contract.ChatPost{Body: "last"})
	if err != nil {
		t.Fatal(err)
	}
	h := n.read("main", contract.ChatQuery{})
	gone := 0 // the one that was begun while its sender still waited
	for _, m := range h.Messages {
		if m.Body == "gave up" {
			gone++
		}
	}
	if gone > 1 || h.Messages[len(h.Messages)-1].ID != last.ID {
		t.Errorf("%d messages that nobody waits for are there: %+v", gone, h.Messages)
	}
}
