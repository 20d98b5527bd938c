package embed

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// workerFile is DATA/bus/workers/NAME.json: a media worker that is, or was, let in.
type workerFile struct {
	Version int        `json:"version"` // 1
	Name    string     `json:"name"`
	Service string     `json:"service,omitempty"` // "" is media
	Key     string     `json:"key"`               // public, of its user
	Added   time.Time  `json:"added"`
	Revoked *time.Time `json:"revoked,omitempty"`
	Former  []string   `json:"former,omitempty"` // keys that were revoked before
}

// workers are the users of media workers on other machines.
type workers struct {
	dir    string           // fixed
	keys   *keys            // fixed
	home   string           // the node's own worker; fixed
	leased bool             // the node's conference holds a lease, so that another one may stand by; fixed
	out    map[string]int64 // who was revoked when this was loaded, as k.accounts takes it; fixed
	log    *zap.Logger
	access contract.BusAccess // fixed once it serves

	mu   sync.Mutex
	nats servers // nil before it serves
	by   map[string]*workerFile
	keyd map[string]bool // the keys of all, revoked ones too
	here map[string]*presence
}

var workerShape = regexp.MustCompile(`^[a-z0-9-]{1,32}$`) // as media.worker

// forever is until when what a revoked worker's key signs is refused.
const forever = 1<<62 - 1

// loadWorkers reads who is let in and who was revoked.
func loadWorkers(dir, home string, k *keys, log *zap.Logger) (*workers, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("workers: %w", err)
	}
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("workers: %w", err)
	}
	w := &workers{dir: dir, keys: k, home: home, out: map[string]int64{}, log: log, by: map[string]*workerFile{}, keyd: map[string]bool{}, here: map[string]*presence{}}
	for _, e := range ents {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue // what a crash left of writeFile
		}
		path := filepath.Join(dir, e.Name())
		f, err := readWorker(path)
		if err == nil && f.Name != name {
			err = fmt.Errorf("it is of worker %q", f.Name)
		}
		if err != nil {
			// Without it nobody would know whose credentials were revoked.
			return nil, fmt.Errorf("%s is damaged (%w): restore it from a backup", path, err)
		}
		w.by[name] = f
		w.note(f)
		for _, key := range f.former() {
			w.out[key] = forever
		}
	}
	return w, nil
}

func readWorker(path string) (*workerFile, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := new(workerFile)
	if err := json.Unmarshal(raw, f); err != nil {
		return nil, err
	}
	if f.Version != 1 || !slices.Contains(guestServices, f.service()) {
		return nil, fmt.Errorf("version %d, service %q is not known", f.Version, f.Service)
	}
	for _, key := range append(slices.Clone(f.Former), f.Key) {
		if !nkeys.IsValidPublicUserKey(key) {
			return nil, fmt.Errorf("%q is not a public key of a user", key)
		}
	}
	return f, nil
}

// former are the keys that are refused.
func (f *workerFile) former() []string {
	if f.Revoked == nil {
		return f.Former
	}
	return append(slices.Clone(f.Former), f.Key)
}

func (f *workerFile) service() string { return cmp.Or(f.Service, "media") }

func (f *workerFile) known() contract.KnownWorker {
	return contract.KnownWorker{Name: f.Name, Service: f.service(), Added: f.Added, Revoked: f.Revoked}
}

// note takes the keys of a file. The caller holds w.mu, or nobody else has w.
func (w *workers) note(f *workerFile) {
	w.keyd[f.Key] = true
	for _, key := range f.Former {
		w.keyd[key] = true
	}
}

// has reports whether the user with that key is a worker.
func (w *workers) has(userKey string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.keyd[userKey]
}

// serve answers for workers, as part of the bus's service.
func (w *workers) serve(s *bus.Service, n servers, access contract.BusAccess, version string) error {
	w.mu.Lock()
	w.nats, w.access = n, access
	w.mu.Unlock()
	return errors.Join(
		bus.Serve(s, contract.BusAddWorker, func(_ context.Context, r *bus.Request[contract.WorkerAdd]) (*contract.WorkerAdded, error) {
			return w.add(&r.Body)
		}),
		bus.Serve(s, contract.BusRevokeWorker, func(_ context.Context, r *bus.Request[contract.WorkerName]) (*contract.KnownWorker, error) {
			return w.revoke(r.Body.Name)
		}),
		bus.Serve(s, contract.BusWorkers, func(context.Context, *bus.Request[contract.None]) (*contract.KnownWorkers, error) {
			return w.list(), nil
		}),
		bus.Serve(s, contract.BusTrust, func(context.Context, *bus.Request[contract.None]) (*contract.BusAccess, error) {
			return &access, nil
		}),
		bus.Serve(s, contract.BusWorkerHello, func(_ context.Context, r *bus.Request[contract.WorkerHello]) (*contract.WorkerWelcome, error) {
			if err := understood(&r.Body, r.Param(0), version); err != nil {
				return nil, err
			}
			return w.hello(r.Param(0), r.Body.Instance, time.Now())
		}))
}

// errUnleased refuses who would stand by: as nobody holds the lease, he would have the rooms at once, beside the node.
var errUnleased = contract.ErrForbidden.With("this node's conference holds no lease of its rooms, so one that stands by would serve them at the same time: set rooms.lease to true (or bus.cluster_listen, which a bus of several machines needs), start the node again, and then add or start the one that stands by")

// understood refuses a worker of another version.
func understood(h *contract.WorkerHello, name, version string) error {
	if h.Contract != contract.Version {
		return contract.ErrVersion.With("worker %.32q is Parley %.64q (contract %d), the node is %s (contract %d): install the node's version there",
			name, h.Version, h.Contract, version, contract.Version)
	}
	return nil
}

// add lets a worker in. The same key again is answered the same.
func (w *workers) add(q *contract.WorkerAdd) (*contract.WorkerAdded, error) {
	switch {
	case !workerShape.MatchString(q.Name):
		return nil, contract.ErrBadRequest.With("worker name %q: 1 to 32 of a-z, 0-9 and - are allowed", q.Name)
	case !slices.Contains(guestServices, cmp.Or(q.Service, "media")):
		return nil, contract.ErrBadRequest.With("service %q: media, calls and conference are what another machine can do", q.Service)
	case q.Name == w.home:
		return nil, contract.ErrExists.With("%q is the node's own worker (media.worker); choose another name", q.Name)
	case q.Service == "conference" && !w.leased:
		return nil, errUnleased
	case !nkeys.IsValidPublicUserKey(q.UserKey):
		return nil, contract.ErrBadRequest.With("user_key is not a public nkey of a user (U…)")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.by[q.Name]
	switch {
	case was != nil && was.Revoked == nil && (was.Key != q.UserKey || was.service() != cmp.Or(q.Service, "media")):
		return nil, contract.ErrExists.With("there is a worker %s already; revoke it first", q.Name)
	case (was == nil || was.Revoked != nil || was.Key != q.UserKey) && w.keyd[q.UserKey]:
		return nil, contract.ErrForbidden.With("that key was a worker's before; make a new one")
	case was == nil || was.Revoked != nil:
		f := &workerFile{Version: 1, Name: q.Name, Service: q.Service, Key: q.UserKey, Added: time.Now().UTC()}
		if was != nil {
			f.Former = was.former()
		}
		if err := w.keepLocked(f); err != nil {
			return nil, err
		}
		w.log.Info("worker added", zap.String("worker", q.Name))
	}
	f := w.by[q.Name]
	tok, err := w.keys.guestJWT(f.service(), q.Name, q.UserKey)
	if err != nil {
		return nil, err
	}
	a := w.access
	a.Worker, a.Service = q.Name, f.service()
	return &contract.WorkerAdded{JWT: tok, Access: a, Alone: w.nats == nil || w.nats.alone()}, nil
}

// keepLocked puts a worker on the disk, then into memory.
func (w *workers) keepLocked(f *workerFile) error {
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("worker %s: %w", f.Name, err)
	}
	if err := writeFile(filepath.Join(w.dir, f.Name+".json"), raw); err != nil {
		w.log.Error("worker not kept", zap.String("worker", f.Name), zap.Error(err))
		return contract.ErrStorage.With("worker %s could not be written: %v", f.Name, err)
	}
	w.by[f.Name] = f
	w.note(f)
	return nil
}

// revoke shuts a worker out for good: on the disk first, then its connections are closed. Again it
// is harmless.
func (w *workers) revoke(name string) (*contract.KnownWorker, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.by[name]
	if was == nil {
		return nil, contract.ErrNotFound.With("no worker %q has credentials of its own; `parley worker list` names those that have", name)
	}
	f := *was
	if f.Revoked == nil {
		now := time.Now().UTC()
		f.Revoked = &now
		if err := w.keepLocked(&f); err != nil {
			return nil, err
		}
	}
	if err := w.nats.shutOut(f.former()); err != nil {
		return nil, fmt.Errorf("revoke worker %s: %w", name, err)
	}
	w.log.Info("worker revoked", zap.String("worker", name))
	known := f.known()
	return &known, nil
}

func (w *workers) list() *contract.KnownWorkers {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &contract.KnownWorkers{Workers: []contract.KnownWorker{}}
	for name, f := range w.by {
		k := f.known()
		if p := w.here[name]; p != nil && f.Revoked == nil {
			k.Here, k.Twice = p.here(time.Now()), p.twice(time.Now())
		}
		out.Workers = append(out.Workers, k)
	}
	slices.SortFunc(out.Workers, func(a, b contract.KnownWorker) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// shutOut closes the connections of users of NODE and refuses them from now on.
func (n *nats) shutOut(users []string) error {
	node, err := public(n.keys.node)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	tok, err := n.resolver.Fetch(node)
	if err != nil {
		return err
	}
	ac, err := jwt.DecodeAccountClaims(tok)
	if err != nil {
		return err
	}
	for _, u := range users {
		ac.RevokeAt(u, time.Unix(forever, 0))
	}
	return n.put(ac)
}

// make lets the servers know of a new account.
func (n *nats) make(pub, tok string) error {
	if n.cluster != nil {
		return n.push(tok)
	}
	return n.resolver.Store(pub, tok)
}

// put makes an account's claims those that hold.
func (n *nats) put(ac *jwt.AccountClaims) error {
	tok, err := ac.Encode(n.keys.operator)
	if err != nil {
		return err
	}
	if n.cluster != nil {
		return n.push(tok)
	}
	if err := n.resolver.Store(ac.Subject, tok); err != nil {
		return err
	}
	acc, err := n.srv.LookupAccount(ac.Subject)
	if err != nil {
		return err
	}
	signed, err := jwt.DecodeAccountClaims(tok)
	if err != nil {
		return err
	}
	n.srv.UpdateAccountClaims(acc, signed)
	return nil
}
