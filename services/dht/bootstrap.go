package dht

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/services/dht/opendht"
)

// What a bootstrap node answers a second and keeps, where the settings say nothing else:
// a node asks it a few times when it starts and now and then later, so that a host with
// more than a hundred queries a second is no newcomer.
const (
	bootQueries     = 4096
	bootHostQueries = 128
	bootStore       = 8  // MiB
	nodeStore       = 64 // MiB, of other nodes
)

// bootGC has the heap of a bootstrap node, which makes little garbage, collected at half
// as much again of what lives: it shares small machines.
const bootGC = 50

// warnEvery is how often a bootstrap node looks whether it has to warn.
const warnEvery = 30 * time.Second

// Bootstrap is the dht process alone, as a public node of OpenDHT that others start from:
// no bus, no account.
type Bootstrap struct {
	env *host.Env
}

// NewBootstrap builds it; nothing starts before Run.
func NewBootstrap(env *host.Env) (host.Runner, error) { return &Bootstrap{env}, nil }

// Run serves until ctx ends.
func (b *Bootstrap) Run(ctx context.Context) (err error) {
	dir, err := b.env.Dir()
	if err != nil {
		return err
	}
	key, err := opendht.NodeKey(filepath.Join(dir, "opendht.key"))
	if err != nil {
		return err
	}
	debug.SetGCPercent(bootGC)
	n, err := openDHT(b.env, dir, opendht.Options{Key: key, MaxStore: bootStore << 20, Queries: bootQueries, HostQueries: bootHostQueries})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	b.env.Registry.MustRegister(&collector{n.Reports, func() int { return 0 }})
	r := n.Reports()[0]
	b.env.Log.Info("bootstrap node of OpenDHT", zap.String("node_id", r.NodeID), zap.String("signs_as", r.ID), zap.Strings("addresses", r.Addresses), zap.Uint32("network", r.Network))
	b.env.SetReady(true)
	b.watch(ctx, n)
	b.env.SetReady(false)
	return ctx.Err()
}

// watch says each warning once while it stands, until ctx ends.
func (b *Bootstrap) watch(ctx context.Context, n *opendht.Node) {
	t := time.NewTicker(warnEvery)
	defer t.Stop()
	told := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := map[string]bool{}
		for _, w := range warnings(&n.Reports()[0], time.Now()) {
			if now[w] = true; !told[w] {
				b.env.Log.Warn(w)
			}
		}
		told = now
	}
}

// openDHT starts a node with what the settings say, over what o has.
func openDHT(env *host.Env, dir string, o opendht.Options) (*opendht.Node, error) {
	c := env.Config.DHT
	o.Listen, o.Bootstrap, o.Network = c.OpenDHTListen, c.OpenDHTBootstrap, uint32(c.Network)
	if c.Store > 0 {
		o.MaxStore = c.Store << 20
	}
	o.State, o.Log = filepath.Join(dir, "opendht-nodes.json"), env.Log.Named("opendht")
	n, err := opendht.New(o)
	if err != nil {
		return nil, fmt.Errorf("%w (setting dht.opendht_listen)", err)
	}
	return n, nil
}
