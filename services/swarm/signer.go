package swarm

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/remotekey"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/swarm/repo"
)

// askTime bounds what identity is asked.
const askTime = 3 * time.Second

// author asks identity for the certificates and makes of them who commits. Signatures
// end with work.
func author(ctx, work context.Context, c *bus.Conn) (*repo.Author, error) {
	key, err := remotekey.Device(ctx, work, c, "swarm")
	if err != nil {
		return nil, err
	}
	chain := key.Chain
	return &repo.Author{URI: chain.JamiID.String(), Device: chain.DeviceID.String(), AccountPEM: jami.MarshalChain(chain.Certs()[1:]...),
		DevicePEM: jami.MarshalChain(chain.Device), Signer: key}, nil
}

// authors are who commits for each of the node's accounts.
type authors struct {
	conn *bus.Conn
	work context.Context //nolint:containedctx // of the signatures, which outlast who asked first

	mu    sync.Mutex
	names map[string]string // account to alias
	known map[string]*repo.Author
}

func newAuthors(work context.Context, conn *bus.Conn) *authors {
	return &authors{conn: conn, work: work, known: map[string]*repo.Author{}}
}

// rename takes the accounts as they are now: their aliases, and whether they are still the
// devices that are known. One that was taken out of use and comes again is another device.
func (a *authors) rename(accounts []contract.Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = map[string]string{}
	devices := map[string]string{}
	for _, acc := range accounts {
		a.names[acc.ID], devices[acc.ID] = acc.Alias, acc.DeviceID
	}
	maps.DeleteFunc(a.known, func(id string, x *repo.Author) bool { return x.Device != devices[id] })
}

// accounts are those that the node has.
func (a *authors) accounts() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.names))
}

// of returns who commits for an account, and asks identity the first time.
func (a *authors) of(account string) (*repo.Author, error) {
	a.mu.Lock()
	name, known := a.names[account], a.known[account]
	a.mu.Unlock()
	if known == nil {
		ctx, cancel := context.WithTimeout(a.work, askTime)
		defer cancel()
		var err error
		if known, err = author(ctx, a.work, a.conn.For(account)); err != nil {
			return nil, err
		}
		a.mu.Lock()
		a.known[account] = known
		a.mu.Unlock()
	}
	named := *known
	named.Name = name
	return &named, nil
}
