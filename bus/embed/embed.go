// Package embed is the bus process: nats-server with JetStream, its users, their
// permissions, and the accounts of bots.
//
// # Files
//
//	DATA/bus/keys/keys.json      seeds of operator, accounts and users (0600)
//	DATA/bus/accounts/NAME.json  one bot that is let in (0600)
//	DATA/bus/workers/NAME.json   one media worker on another machine, or its revocation (0600)
//	DATA/bus/jetstream/          streams
//	DATA/creds/NAME.creds        what each process connects with (0600)
//
// A file that does not parse stops the start with a message that names it and
// says how to restore it; none is ever written over in that state.
//
// # Accounts
//
// The node's processes are users of the NATS account NODE, each with the
// permissions that [Permissions] derives from the contract. Every bot has an
// account of its own that imports the subjects of its room for its rights, so
// nothing but those exists for it: no inbox of others, no JetStream, no $SYS.
//
// Media workers on other machines, and conferences that stand by, are users of NODE too, whose permissions follow from their name
// ([GuestPermissions]). The node's own processes are let in from this machine alone, and from
// bus.processes.
//
// # Encryption
//
// What listens beyond loopback speaks TLS, with the operator's certificate (bus.cert) or one that
// an authority of this bus signs; credentials files carry what verifies it. In clear is only a
// bus that no other machine reaches.
//
// # A cluster
//
// With bus.cluster_listen this server is one of several, whose routes both ends prove with the bus's
// authority. The others run as members (bus.member): they hold a copy of keys.json, serve no command and
// have the accounts from the node's server. Streams are kept by bus.replicas of them.
//
// # Another NATS
//
// With bus.url set this process starts no server. With bus.operator_key, a key that the operator of that NATS trusts,
// it has the account NODE there, signs accounts and users as it does for its own servers, and tells the servers of them
// as a user of their system account (bus.system_creds). What accounts of others could do there is refused: exports
// are for whom NODE has named.
//
// Without, that operator makes the users (see [Permissions]) and puts their credentials into DATA/creds; this
// process then makes the streams, and refuses to let bots and workers in.
package embed

import (
	"context"
	"errors"
	"maps"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/keyfile"
)

// watchEvery is how often the bus looks whether JetStream is still on and tells who
// is connected.
const watchEvery = time.Second

// Bus is the bus process.
type Bus struct {
	env *host.Env

	// Started, when not nil, is called once with the URL when clients can
	// connect.
	Started func(url string)

	server atomic.Pointer[server.Server]
}

// InProcessConn connects within the process, once clients can connect: the bus's own user is let in
// in no other way.
func (b *Bus) InProcessConn() (net.Conn, error) {
	s := b.server.Load()
	if s == nil {
		return nil, errStopped
	}
	return s.InProcessConn()
}

// New builds the bus; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) { return &Bus{env: env}, nil }

// Run serves until ctx ends.
func (b *Bus) Run(ctx context.Context) error {
	switch c := b.env.Config.Bus; {
	case c.URL != "" && c.OperatorKey != "":
		return b.runForeign(ctx)
	case c.URL != "":
		return b.runGiven(ctx)
	}
	if b.env.Config.Bus.Member {
		return b.runMember(ctx)
	}
	begun := time.Now()
	dir, err := b.env.Dir()
	if err != nil {
		return err
	}
	k, err := loadKeys(dir, Processes)
	if err != nil {
		return err
	}
	d, err := newDoor(&b.env.Config.Bus, k.ca)
	if err != nil {
		return err
	}
	creds, wks, out, err := b.users(dir, k, d)
	if err != nil {
		return err
	}
	cl, err := newCluster(&b.env.Config.Bus, k.ca)
	if err != nil {
		return err
	}
	accounts, err := k.accounts(out)
	if err != nil {
		return err
	}
	bts, botAccounts, err := loadBots(filepath.Join(dir, "accounts"), k, b.env.Log)
	if err != nil {
		return err
	}
	for pub, tok := range botAccounts {
		accounts[pub] = tok
	}
	n, err := start(ctx, dir, b.env.Config.Bus.Listen, d.tls, cl, k, accounts, b.env.Log.Named("nats"))
	if err != nil {
		return err
	}
	defer n.stop()
	b.server.Store(n.srv)
	if err := n.measured(b.env.Registry); err != nil {
		return err
	}
	// Credentials come after the server listens: who finds them can connect.
	if err := b.handOut(creds); err != nil {
		return err
	}
	access := d.access(b.env.Config.Bus.Public, n.url())
	bts.access = access
	c, err := bus.Connect(ctx, bus.Options{InProcess: n.srv, Creds: host.CredsFile(b.env.Config, "bus"), Name: "bus", Log: b.env.Log})
	if err != nil {
		return err
	}
	defer c.Close()
	svc, err := bts.serve(c, n, b.env.Version)
	if err != nil {
		return err
	}
	defer svc.Stop()
	if err := wks.serve(svc, n, access, b.env.Version); err != nil {
		return err
	}
	made := n.ensure(ctx, c.NATS())
	if made != nil {
		// Rooms work without; the watch tries again.
		b.env.Log.Error("streams are not there", zap.Error(made))
	}
	b.env.Log.Info("bus is up", zap.String("url", n.url()), zap.Bool("tls", d.tls != nil), zap.Duration("took", time.Since(begun)))
	b.env.SetReady(true)
	if b.Started != nil {
		b.Started(n.url())
	}
	err = b.watch(ctx, n, c, bts, wks, made != nil)
	b.env.SetReady(false)
	return err
}

// users are those of NODE that come with credentials: its processes' files, to be handed out, the workers, and
// whose JWTs are refused, as k.accounts takes it.
func (b *Bus) users(dir string, k *keys, d *door) (creds map[string][]byte, wks *workers, out map[string]int64, err error) {
	if creds, out, err = newCreds(filepath.Join(b.env.Config.Data, "creds"), k, d); err != nil {
		return nil, nil, nil, err
	}
	if wks, err = loadWorkers(filepath.Join(dir, "workers"), b.env.Config.Media.Worker, k, b.env.Log); err != nil {
		return nil, nil, nil, err
	}
	wks.leased = b.env.Config.LeasedRooms()
	maps.Copy(out, wks.out)
	return creds, wks, out, nil
}

// handOut writes what the processes need to connect and to open copies of rooms.
func (b *Bus) handOut(creds map[string][]byte) error {
	if err := writeCreds(creds); err != nil {
		return err
	}
	_, err := keyfile.Load(host.RoomsKey(b.env.Config), host.RoomsKeySize)
	return err
}

// watch tells who is connected and keeps JetStream in order while the disk is full
// or fails, until ctx ends or the server does.
func (b *Bus) watch(ctx context.Context, n *nats, c *bus.Conn, bts *bots, wks *workers, lacking bool) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	gone := make(chan struct{})
	go func() { n.srv.WaitForShutdown(); close(gone) }() // ends by n.stop at the latest
	said, late, life := "", "", nuid.Next()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-gone:
			return errStopped
		case <-tick.C:
		}
		names, err := bts.connected(wks)
		if err == nil {
			err = bus.Publish(ctx, c, contract.BusConnected, &contract.Connected{Life: life, Names: names})
		}
		if err != nil {
			b.env.Log.Warn("not told who is connected", zap.Error(err))
		}
		if err := bts.finish(); err != nil && err.Error() != late {
			late = err.Error()
			b.env.Log.Warn("a bot is not shut out yet", zap.Error(err))
		}
		back, err := n.jetStream()
		if err == nil && (back || lacking && n.cluster != nil) {
			if err = n.ensure(ctx, c.NATS()); err == nil && lacking {
				b.env.Log.Info("streams are there")
			}
			lacking = err != nil
		}
		switch {
		case errors.Is(err, errWaiting):
		case err != nil && err.Error() != said:
			said = err.Error()
			if lacking {
				b.env.Log.Error("streams are not there; trying again", zap.Error(err))
			} else {
				b.env.Log.Error("jetstream is off", zap.Error(err))
			}
		case back && err == nil:
			said = ""
			b.env.Log.Warn("jetstream is back")
		}
	}
}
