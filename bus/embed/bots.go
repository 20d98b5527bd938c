package embed

import (
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
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// botFile is DATA/bus/accounts/NAME.json: a bot that is let in. Its account's JWT
// is made from it at each start, so a bot reaches what the contract of the
// running version grants for its rights.
type botFile struct {
	Version int               `json:"version"` // 1
	Seed    string            `json:"seed"`    // of the bot's NATS account
	Grant   contract.BusGrant `json:"grant"`
}

// bots are the accounts of bots. mu covers what is granted, in memory and on disk.
type bots struct {
	dir  string // fixed
	keys *keys  // fixed
	log  *zap.Logger

	access contract.BusAccess // that bots are told; fixed once it serves

	mu   sync.Mutex
	nats *nats // nil before attach
	by   map[string]*bot
}

type bot struct {
	account nkeys.KeyPair
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
	b := &bots{dir: dir, keys: k, log: log, by: map[string]*bot{}}
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
		ac, tok, err := k.botAccount(one.account, &one.grant)
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
	return &bot{account: acc, grant: f.Grant}, nil
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
func (b *bots) serve(c *bus.Conn, n *nats, version string) (*bus.Service, error) {
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
		var err error
		if one, err = b.makeLocked(g); err != nil {
			return nil, err
		}
	}
	tok, pub, sub, err := botUser(one.account, &one.grant)
	if err != nil {
		return nil, err
	}
	return &contract.BusGranted{JWT: tok, URL: b.access.URLs[0], Access: b.access, Publish: pub, Subscribe: sub}, nil
}

func sameGrant(a, b *contract.BusGrant) bool {
	ra, rb := slices.Sorted(slices.Values(a.Rights)), slices.Sorted(slices.Values(b.Rights))
	return a.Account == b.Account && a.Room == b.Room && a.UserKey == b.UserKey && slices.Equal(slices.Compact(ra), slices.Compact(rb))
}

// makeLocked writes the bot to disk, then lets the server know its account.
func (b *bots) makeLocked(g *contract.BusGrant) (*bot, error) {
	seed, err := newSeed(nkeys.PrefixByteAccount)
	if err != nil {
		return nil, err
	}
	acc, err := pair("account", seed, nkeys.PrefixByteAccount)
	if err != nil {
		return nil, err
	}
	ac, tok, err := b.keys.botAccount(acc, g)
	if err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(botFile{Version: 1, Seed: seed, Grant: *g}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("bot %s: %w", g.Bot, err)
	}
	if err := writeFile(b.path(g.Bot), raw); err != nil {
		b.log.Error("bot not kept", zap.String("bot", g.Bot), zap.Error(err))
		return nil, contract.ErrStorage.With("bot %s could not be written: %v", g.Bot, err)
	}
	if err := b.nats.make(ac.Subject, tok); err != nil {
		return nil, fmt.Errorf("bot %s: %w", g.Bot, err)
	}
	one := &bot{account: acc, grant: *g}
	b.by[g.Bot] = one
	b.log.Info("bot let in", zap.String("bot", g.Bot), zap.String("room", g.Room))
	return one, nil
}

// connected returns the names of those who have a connection, in order. A worker on another machine
// is none of the node's processes, whatever it calls its connection.
func (b *bots) connected(w *workers) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	node, err := public(b.keys.node)
	if err != nil {
		return nil, err
	}
	all, err := b.nats.srv.Connz(&server.ConnzOptions{Username: true, Limit: maxConns})
	if err != nil {
		return nil, fmt.Errorf("connections: %w", err)
	}
	of := map[string]string{} // account -> bot
	for name, one := range b.by {
		pub, err := public(one.account)
		if err != nil {
			return nil, err
		}
		of[pub] = name
	}
	var names []string
	for _, c := range all.Conns {
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

func (b *bots) path(name string) string { return filepath.Join(b.dir, name+".json") }

// shut removes the bot from disk, so that it stays out after a restart, then
// revokes all users of its account, which closes their connections at once. A bot
// that is not there is no error: revoking again is harmless.
func (b *bots) shut(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.by[name]
	if one == nil {
		return nil
	}
	if err := removeFile(b.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return contract.ErrStorage.With("bot %s could not be removed: %v", name, err)
	}
	ac, _, err := b.keys.botAccount(one.account, &one.grant)
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
	delete(b.by, name)
	b.log.Info("bot shut out", zap.String("bot", name))
	return nil
}
