package embed

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
)

// lookEvery is how often accounts are compared with what the servers have: an operator's own tools may have put
// another state there, or a server may have lost what it had.
const lookEvery = 10 * time.Second

// foreign is the node at another operator's servers, where it has the account NODE and one for each bot. They sign what
// they are told by a key that the servers trust, over a connection of their system account.
type foreign struct {
	keys *keys
	bus  *config.Bus
	sys  *system
	log  *zap.Logger

	known map[string]int // how often a server was there at a look, by the id of its start; of look alone

	mu   sync.Mutex // while claims change
	node *jwt.AccountClaims
}

// runForeign serves with the servers of another operator.
func (b *Bus) runForeign(ctx context.Context) error {
	begun := time.Now()
	dir, err := b.env.Dir()
	if err != nil {
		return err
	}
	k, err := loadKeys(dir, Processes)
	if err != nil {
		return err
	}
	c := &b.env.Config.Bus
	k.foreign = true
	if k.operator, err = readOperatorKey(c.OperatorKey); err != nil {
		return err
	}
	d, err := foreignDoor(c)
	if err != nil {
		return err
	}
	creds, wks, out, err := b.users(dir, k, d)
	if err != nil {
		return err
	}
	bts, _, err := loadBots(filepath.Join(dir, "accounts"), k, b.env.Log)
	if err != nil {
		return err
	}
	f := &foreign{keys: k, bus: c, log: b.env.Log}
	if f.node, err = k.nodeAccount(out, c.Processes); err != nil {
		return err
	}
	if f.sys, err = dialSystem(ctx, c, d.own, b.env.Log); err != nil {
		return err
	}
	defer f.sys.close()
	if err := f.trusted(); err != nil {
		return err
	}
	if err := f.look(bts); err != nil {
		return err
	}
	// Credentials come after the servers know their account: who finds them can connect.
	if err := b.handOut(creds); err != nil {
		return err
	}
	conn, err := f.connect(ctx, host.CredsFile(b.env.Config, "bus"))
	if err != nil {
		return err
	}
	defer conn.Close()
	access := d.access(c.Public, c.URL)
	bts.access = access
	svc, err := bts.serve(conn, f, b.env.Version)
	if err != nil {
		return err
	}
	defer svc.Stop()
	if err := wks.serve(svc, f, access, b.env.Version); err != nil {
		return err
	}
	made := f.ensure(ctx, conn)
	if made != nil {
		b.env.Log.Error("streams are not there; trying again", zap.Error(made))
	}
	b.env.Log.Info("bus is up", zap.String("url", c.URL), zap.String("account", f.node.Subject), zap.Bool("tls", d.own.TLS), zap.Duration("took", time.Since(begun)))
	b.env.SetReady(true)
	if b.Started != nil {
		b.Started(c.URL)
	}
	f.watch(ctx, conn, bts, wks, made)
	b.env.SetReady(false)
	return nil
}

// foreignDoor is how the servers at bus.url are reached and verified.
func foreignDoor(c *config.Bus) (*door, error) {
	d := new(door)
	for _, u := range strings.Split(c.URL, ",") {
		d.own.TLS = d.own.TLS || strings.HasPrefix(u, "tls:") || strings.HasPrefix(u, "wss:")
	}
	if c.CA != "" {
		raw, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("bus.ca: %w", err)
		}
		if d.own.CA, err = certificates(raw); err != nil {
			return nil, fmt.Errorf("bus.ca: %s: %w", c.CA, err)
		}
		d.own.TLS = true
	}
	d.others = d.own
	return d, nil
}

// connect connects as the bus process, and gives up when the servers refuse it: they know its account by now.
func (f *foreign) connect(ctx context.Context, creds string) (*bus.Conn, error) {
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	conn, err := bus.Connect(ctx, bus.Options{URL: f.bus.URL, Creds: creds, Name: "bus", Log: f.log, Refused: func(_ bool, err error) {
		refuse(fmt.Errorf("the servers at %s refuse users of the account %s, which they have (%w): look at its limits, at the name of its operator in their configuration, and at bus.processes", f.bus.URL, f.node.Name, err))
	}})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return conn, err
}

// trusted reports whether every server trusts the operator's key. One that does not would take what it signs all the
// same, in place of what it has, and let nobody in any more.
func (f *foreign) trusted() error {
	pub, err := public(f.keys.operator)
	if err != nil {
		return err
	}
	all, err := f.sys.varz()
	if err != nil {
		return err
	}
	for _, v := range all {
		var known []string
		for _, o := range v.TrustedOperatorsClaim {
			if !o.StrictSigningKeyUsage {
				known = append(known, o.Subject)
			} else if o.Subject == pub {
				return fmt.Errorf("bus.operator_key: %s holds the key of the operator %s itself, which wants accounts to be signed by signing keys: make one (`nats auth operator keys add`)", f.bus.OperatorKey, o.Name)
			}
			known = append(known, o.SigningKeys...)
		}
		if !slices.Contains(known, pub) {
			return fmt.Errorf("bus.operator_key: server %s does not trust %s, the key in %s, but %s: use one of these, or add it to the operator as a signing key and start the servers with the operator's new JWT", v.Name, pub, f.bus.OperatorKey, strings.Join(known, " "))
		}
	}
	return nil
}

// look makes the accounts of the node and its bots what they have to be at the servers, where they are not.
func (f *foreign) look(bts *bots) error {
	names, err := bts.accounts()
	if err != nil {
		return err
	}
	have, err := f.sys.lookup(append(slices.Collect(maps.Keys(names)), f.node.Subject))
	if err != nil {
		return err
	}
	// A server that has just started may go on with what it had while it has the newer on its disk: it is told again.
	ids, err := f.sys.starts()
	if err != nil {
		return err
	}
	was, told := f.known, false
	f.known = map[string]int{}
	for _, id := range ids {
		f.known[id] = was[id] + 1
		if was == nil { // all are told at the node's own start of what they lack
			f.known[id] = 3
		}
		told = told || f.known[id] <= 2
	}
	for a, h := range have {
		h.everywhere = h.everywhere && !told
		have[a] = h
	}
	if err := f.holdNode(nil, have[f.node.Subject]); err != nil {
		return err
	}
	for pub, name := range names {
		// Who is shut out meanwhile must not be let in again.
		bts.mu.Lock()
		one := bts.by[name]
		if one != nil {
			err = f.holdBot(one, pub, have[pub])
		}
		bts.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// holdNode makes NODE's claims those that hold, without some users more. What the operator allows it stays as it is, and
// so does who was revoked.
func (f *foreign) holdNode(out []string, have held) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range out {
		f.node.RevokeAt(u, time.Unix(forever, 0))
	}
	if have.newest != nil {
		f.node.Limits = have.newest.Limits
		for user, until := range have.newest.Revocations {
			if until == forever {
				f.node.RevokeAt(user, time.Unix(until, 0))
			}
		}
	}
	tok, err := f.node.Encode(f.keys.operator)
	if err != nil {
		return fmt.Errorf("account %s: %w", f.node.Name, err)
	}
	return f.hold(tok, have)
}

func (f *foreign) holdBot(one *bot, account string, have held) error {
	ac, tok, err := f.keys.botAccount(one)
	if err != nil || ac.Subject != account { // another bot of that name by now
		return err
	}
	return f.hold(tok, have)
}

// hold puts an account to the servers, unless that is what they have.
func (f *foreign) hold(tok string, have held) error {
	want, err := jwt.DecodeAccountClaims(tok)
	if err != nil {
		return err
	}
	if have.everywhere && sameAccount(have.newest, want) {
		return nil
	}
	f.log.Info("account put to the servers", zap.String("account", want.Name), zap.Bool("new", have.newest == nil))
	return f.push(tok)
}

// sameAccount reports whether two claims say the same, whenever they were signed.
func sameAccount(a, b *jwt.AccountClaims) bool {
	plain := func(ac *jwt.AccountClaims) jwt.Account {
		out := ac.Account
		out.Imports = nil
		for _, im := range ac.Imports {
			one := *im
			if one.Token != "" {
				one.Token = "signed"
			}
			out.Imports = append(out.Imports, &one)
		}
		return out
	}
	return a.Name == b.Name && a.Issuer == b.Issuer && reflect.DeepEqual(plain(a), plain(b))
}

// push has the servers take a token, after a look whether they trust who signed it: keys change while they run.
func (f *foreign) push(tok string) error {
	if err := f.trusted(); err != nil {
		return err
	}
	n, err := f.sys.count()
	if err != nil {
		return err
	}
	err = pushTo(f.sys.nc, tok, n)
	switch {
	case errors.Is(err, natsgo.ErrNoResponders):
		return fmt.Errorf("the servers at %s take no accounts: their configuration needs `resolver { type: full, dir: … }`", f.bus.URL)
	case err != nil:
		return f.sys.denied(err, "$SYS.REQ.CLAIMS.UPDATE")
	}
	return nil
}

func (f *foreign) make(_, tok string) error { return f.push(tok) }

func (f *foreign) put(ac *jwt.AccountClaims) error {
	tok, err := ac.Encode(f.keys.operator)
	if err != nil {
		return fmt.Errorf("account %s: %w", ac.Name, err)
	}
	return f.push(tok)
}

func (f *foreign) shutOut(users []string) error {
	have, err := f.sys.lookup([]string{f.node.Subject})
	if err != nil {
		return err
	}
	return f.holdNode(users, have[f.node.Subject])
}

// alone: how many servers there are, and where, is their operator's to know.
func (f *foreign) alone() bool { return false }

func (f *foreign) conns(accounts []string) ([]*server.ConnInfo, error) {
	n, err := f.sys.count()
	if err != nil {
		return nil, err
	}
	q, err := json.Marshal(&server.ConnzOptions{Username: true, Limit: maxConns})
	if err != nil {
		return nil, fmt.Errorf("connections: %w", err)
	}
	var subjects []string
	for _, a := range accounts {
		subjects = append(subjects, "$SYS.REQ.ACCOUNT."+a+".CONNZ")
	}
	all, err := askEach(f.sys.nc, subjects, q, connsTime, n)
	if err != nil {
		return nil, fmt.Errorf("connections: %w", f.sys.denied(err, "$SYS.REQ.ACCOUNT.*.CONNZ"))
	}
	if len(all) == 0 {
		return nil, f.sys.denied(errors.New("connections: no server answers"), "$SYS.REQ.ACCOUNT.")
	}
	return connsIn(all)
}

// ensure makes the streams.
func (f *foreign) ensure(ctx context.Context, c *bus.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, ensureTime)
	defer cancel()
	if err := ensureStreams(ctx, c.NATS(), cmp.Or(f.bus.Replicas, 1)); err != nil {
		return fmt.Errorf("the servers at %s have to have JetStream, with 1.3 GiB on the disk and 64 MiB in memory, for each of bus.replicas: %w", f.bus.URL, err)
	}
	return nil
}

// watch tells who is connected and keeps accounts and streams in order, until ctx ends. Each trouble is logged once
// until it is another one.
func (f *foreign) watch(ctx context.Context, c *bus.Conn, bts *bots, wks *workers, lacking error) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	said, life, looked := map[string]string{}, nuid.Next(), time.Now()
	tell := func(what string, err error) {
		now := ""
		if err != nil {
			now = err.Error()
		}
		switch was := said[what]; {
		case now == was:
		case now == "":
			f.log.Info("in order again: " + what)
		default:
			f.log.Warn("not in order: "+what, zap.Error(err))
		}
		said[what] = now
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		names, err := bts.connected(wks)
		if err == nil {
			err = bus.Publish(ctx, c, contract.BusConnected, &contract.Connected{Life: life, Names: names})
		}
		tell("who is connected", err)
		if lacking != nil {
			if lacking = f.ensure(ctx, c); ctx.Err() == nil {
				tell("streams", lacking)
			}
		}
		if time.Since(looked) < lookEvery {
			continue
		}
		tell("bots that are shut out", bts.finish())
		tell("accounts", f.look(bts))
		looked = time.Now()
	}
}

// readOperatorKey reads a file that holds an operator's seed, alone or among other text, as nsc and nats write it.
func readOperatorKey(path string) (nkeys.KeyPair, error) {
	raw, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("bus.operator_key: %w", err)
	}
	for _, word := range strings.Fields(string(raw)) {
		if !strings.HasPrefix(word, "SO") {
			continue
		}
		kp, err := pair("operator", word, nkeys.PrefixByteOperator)
		if err != nil {
			return nil, fmt.Errorf("bus.operator_key: %s: %w", path, err)
		}
		return kp, nil
	}
	return nil, fmt.Errorf("bus.operator_key: %s holds no seed of an operator's key, which begins with SO", path)
}

// maxSecret bounds a file of a secret, in bytes.
const maxSecret = 64 << 10

// readSecret reads a file that must be its owner's alone.
func readSecret(path string) ([]byte, error) {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s is open to others (mode %04o): chmod 600 %s", path, st.Mode().Perm(), path)
	case !st.Mode().IsRegular() || st.Size() > maxSecret:
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxSecret)
	}
	return os.ReadFile(path)
}
