package embed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// botFile is DATA/bus/accounts/NAME.json: a bot that is let in. Its account's JWT
// is made from it at each start, so a bot reaches what the contract of the
// running version grants for its rights.
type botFile struct {
	Version int    `json:"version"` // 1
	Seed    string `json:"seed"`    // of the bot's NATS account
	// Signer is the seed of what signs its user at another's servers; it is made where it is missing there.
	Signer string            `json:"signer,omitempty"`
	Grant  contract.BusGrant `json:"grant"`
	// Leaving: it is shut out as soon as the servers can be told.
	Leaving bool `json:"leaving,omitempty"`
}

// bots are the accounts of bots. mu covers what is granted, in memory and on disk.
type bots struct {
	dir  string // fixed
	keys *keys  // fixed
	log  *zap.Logger

	access contract.BusAccess // that bots are told; fixed once it serves

	mu   sync.Mutex
	nats servers // nil before it serves
	by   map[string]*bot
	gone map[string]*bot // of whom servers have not been told yet
}

type bot struct {
	leaving bool
	account nkeys.KeyPair
	signer  nkeys.KeyPair // nil where Parley's own servers know it alone
	grant   contract.BusGrant
}

// loadBots reads every bot and returns the JWTs of their accounts by public key.
func loadBots(dir string, k *keys, log *zap.Logger) (*bots, map[string]string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("bots: %w", err)
	}
	ents, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("bots: %w", err)
	}
	b := &bots{dir: dir, keys: k, log: log, by: map[string]*bot{}, gone: map[string]*bot{}}
	toks := map[string]string{}
	for _, e := range ents {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(name, ".") {
			continue // what a crash left of writeFile
		}
		path := filepath.Join(dir, e.Name())
		one, err := readBot(path)
		if err == nil && one.grant.Bot != name {
			err = fmt.Errorf("it is of bot %q", one.grant.Bot)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s is damaged (%w): restore it from a backup, or remove it and make the bot again", path, err)
		}
		if k.foreign && one.signer == nil {
			if one.signer, err = nkeys.CreateAccount(); err == nil {
				err = b.write(one)
			}
			if err != nil {
				return nil, nil, err
			}
		}
		if one.leaving {
			b.gone[name] = one
			continue
		}
		ac, tok, err := k.botAccount(one)
		if err != nil {
			return nil, nil, err
		}
		b.by[name], toks[ac.Subject] = one, tok
	}
	return b, toks, nil
}

func readBot(path string) (*bot, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f botFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("version %d is not known", f.Version)
	}
	if err := checkGrant(&f.Grant); err != nil {
		return nil, err
	}
	acc, err := pair("account", f.Seed, nkeys.PrefixByteAccount)
	if err != nil {
		return nil, err
	}
	one := &bot{leaving: f.Leaving, account: acc, grant: f.Grant}
	if f.Signer != "" {
		if one.signer, err = pair("signer", f.Signer, nkeys.PrefixByteAccount); err != nil {
			return nil, err
		}
	}
	return one, nil
}

var (
	nameShape    = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	accountShape = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// checkGrant refuses what would not be one plain token of a subject, or a name
// that stands for somebody else.
func checkGrant(g *contract.BusGrant) error {
	switch {
	case !accountShape.MatchString(g.Account):
		return contract.ErrBadRequest.With("account %q is not a Jami Id of 40 hex digits", g.Account)
	case !nameShape.MatchString(g.Bot):
		return contract.ErrBadRequest.With("bot name %q: 1 to 64 of a-z, 0-9 and - are allowed", g.Bot)
	case g.Bot == contract.Operator:
		return contract.ErrBadRequest.With("%q is the operator's own name; choose another", g.Bot)
	case !nameShape.MatchString(g.Room):
		return contract.ErrBadRequest.With("room name %q: 1 to 64 of a-z, 0-9 and - are allowed", g.Room)
	case !nkeys.IsValidPublicUserKey(g.UserKey):
		return contract.ErrBadRequest.With("user_key is not a public nkey of a user (U…)")
	}
	for _, r := range g.Rights {
		if !slices.Contains(contract.Rights, r) {
			return contract.ErrBadRequest.With("right %q is not one of %v", r, contract.Rights)
		}
	}
	return nil
}

// serve answers the bus's own commands on its own connection.
func (b *bots) serve(c *bus.Conn, n servers, version string) (*bus.Service, error) {
	b.mu.Lock()
	b.nats = n
	b.mu.Unlock()
	s, err := bus.NewService(c, "bus", version, "users of the bus: lets bots in and shuts them out")
	if err != nil {
		return nil, err
	}
	err = bus.Serve(s, contract.BusGrantBot, func(_ context.Context, r *bus.Request[contract.BusGrant]) (*contract.BusGranted, error) {
		return b.let(&r.Body)
	})
	if err == nil {
		err = bus.Serve(s, contract.BusRevokeBot, func(_ context.Context, r *bus.Request[contract.BotName]) (*contract.None, error) {
			return &contract.None{}, b.shut(r.Body.Name)
		})
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// let makes the bot's account and user. Granting the same again is answered the
// same; a bot of that name with another key or other rights must be revoked first.
func (b *bots) let(g *contract.BusGrant) (*contract.BusGranted, error) {
	if err := checkGrant(g); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.by[g.Bot]
	if one != nil && !sameGrant(&one.grant, g) {
		return nil, contract.ErrExists.With("there is a bot %s already; revoke it first", g.Bot)
	}
	if one == nil {
		err := b.finishLocked(g.Bot) // one of that name that was there before
		if err != nil {
			return nil, err
		}
		if one, err = b.makeLocked(g); err != nil {
			return nil, err
		}
	}
	tok, pub, sub, err := b.keys.botUser(one)
	if err != nil {
		return nil, err
	}
	return &contract.BusGranted{JWT: tok, URL: b.access.URLs[0], Access: b.access, Publish: pub, Subscribe: sub}, nil
}

func sameGrant(a, b *contract.BusGrant) bool {
	ra, rb := slices.Sorted(slices.Values(a.Rights)), slices.Sorted(slices.Values(b.Rights))
	return a.Account == b.Account && a.Room == b.Room && a.UserKey == b.UserKey && slices.Equal(slices.Compact(ra), slices.Compact(rb))
}

// makeLocked writes the bot to disk, then lets the servers know its account.
func (b *bots) makeLocked(g *contract.BusGrant) (*bot, error) {
	one := &bot{grant: *g}
	var err error
	if one.account, err = nkeys.CreateAccount(); err == nil && b.keys.foreign {
		one.signer, err = nkeys.CreateAccount()
	}
	if err != nil {
		return nil, fmt.Errorf("bot %s: %w", g.Bot, err)
	}
	if err := b.write(one); err != nil {
		return nil, err
	}
	ac, tok, err := b.keys.botAccount(one)
	if err == nil {
		err = b.nats.make(ac.Subject, tok)
	}
	if err != nil {
		// Some servers may know it: nobody has credentials of it.
		return nil, errors.Join(fmt.Errorf("bot %s: %w", g.Bot, err), removeFile(b.path(g.Bot)))
	}
	b.by[g.Bot] = one
	b.log.Info("bot let in", zap.String("bot", g.Bot), zap.String("room", g.Room))
	return one, nil
}

// write puts a bot on the disk.
func (b *bots) write(one *bot) error {
	name := one.grant.Bot
	f := botFile{Version: 1, Grant: one.grant, Leaving: one.leaving}
	seed, err := one.account.Seed()
	if f.Seed = string(seed); err == nil && one.signer != nil {
		seed, err = one.signer.Seed()
		f.Signer = string(seed)
	}
	var raw []byte
	if err == nil {
		raw, err = json.MarshalIndent(f, "", "  ")
	}
	if err != nil {
		return fmt.Errorf("bot %s: %w", name, err)
	}
	if err := writeFile(b.path(name), raw); err != nil {
		b.log.Error("bot not kept", zap.String("bot", name), zap.Error(err))
		return contract.ErrStorage.With("bot %s could not be written: %v", name, err)
	}
	return nil
}

// connected returns the names of those who have a connection, in order. A worker on another machine
// is none of the node's processes, whatever it calls its connection.
func (b *bots) connected(w *workers) ([]string, error) {
	node, err := public(b.keys.node)
	if err != nil {
		return nil, err
	}
	of, err := b.accounts()
	if err != nil {
		return nil, err
	}
	all, err := b.nats.conns(append(slices.Collect(maps.Keys(of)), node))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range all {
		if c.Account == node && w.has(c.AuthorizedUser) {
			continue
		}
		if c.Account == node {
			names = append(names, c.Name)
		} else if name := of[c.Account]; name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// accounts are the bots' names by their accounts.
func (b *bots) accounts() (map[string]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := map[string]string{}
	for name, one := range b.by {
		pub, err := public(one.account)
		if err != nil {
			return nil, err
		}
		of[pub] = name
	}
	return of, nil
}

func (b *bots) path(name string) string { return filepath.Join(b.dir, name+".json") }

// shut notes on the disk that the bot is out, so that it stays so after a restart,
// then revokes all users of its account, which closes their connections at once. A bot
// that is not there is no error: revoking again is harmless.
func (b *bots) shut(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one := b.by[name]; one != nil {
		leaving := *one
		leaving.leaving = true
		if b.write(&leaving) != nil { // the disk is full, it may be
			if err := removeFile(b.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return contract.ErrStorage.With("bot %s could not be removed: %v", name, err)
			}
		}
		delete(b.by, name)
		b.gone[name] = &leaving
	}
	return b.finishLocked(name)
}

// finish tells the servers of all who are out and of whom they could not be told.
func (b *bots) finish() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name := range b.gone {
		if err := b.finishLocked(name); err != nil {
			return err
		}
	}
	return nil
}

func (b *bots) finishLocked(name string) error {
	one := b.gone[name]
	if one == nil {
		return nil
	}
	ac, _, err := b.keys.botAccount(one)
	if err != nil {
		return err
	}
	ac.Imports = nil
	// Everything signed until a minute from now: a clock that was set back
	// must not let a revoked user in.
	ac.RevokeAt(jwt.All, time.Now().Add(time.Minute))
	if err := b.nats.put(ac); err != nil {
		return fmt.Errorf("revoke bot %s: %w", name, err)
	}
	if err := removeFile(b.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return contract.ErrStorage.With("bot %s could not be removed: %v", name, err)
	}
	delete(b.gone, name)
	b.log.Info("bot shut out", zap.String("bot", name))
	return nil
}
