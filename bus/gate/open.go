package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// What could not be read is tried again after the first of these, doubling to the second.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 5 * time.Second
)

// Keeper is a gate that follows identity over the bus.
type Keeper struct {
	*Gate
	conn *bus.Conn
	stop func()
	wg   sync.WaitGroup
}

// Open returns a gate for the account of conn, which has to be set, when it knows all that
// identity knows, or the error that ended ctx. It follows until Close.
func Open(ctx context.Context, conn *bus.Conn) (*Keeper, error) { return open(ctx, conn, nil) }

func open(ctx context.Context, conn *bus.Conn, others *Set) (*Keeper, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &Keeper{Gate: newGate(time.Now), conn: conn}
	if k.others = others; others != nil {
		k.revoked = others.revoked
	}
	revoked, err := bus.Subscribe(conn, contract.AccountRevoked, func(_ context.Context, _ []string, l *contract.RevocationList) { k.take(l) })
	if err != nil {
		cancel()
		return nil, err
	}
	contacts, err := bus.Subscribe(conn, contract.ContactEvents, func(_ context.Context, _ []string, e *contract.ContactChanged) { k.changed(e) })
	if err != nil {
		revoked.Stop()
		cancel()
		return nil, err
	}
	deaf := conn.OnReconnect(k.readAgain)
	k.stop = func() {
		cancel()
		deaf()
		revoked.Stop()
		contacts.Stop()
	}
	if err := k.update(ctx); err != nil {
		k.Close()
		return nil, fmt.Errorf("revocations and contacts: %w", err)
	}
	k.wg.Go(func() {
		for {
			select {
			case <-life.Done():
				return
			case <-k.stale:
				if err := k.update(life); err != nil {
					return // life has ended
				}
			}
		}
	})
	return k, nil
}

// Close ends the following: watches are not called any more, but by a call that runs.
func (k *Keeper) Close() {
	k.stop()
	k.wg.Wait()
}

// update reads all, again and again until it did or ctx ends, whose error it returns.
func (k *Keeper) update(ctx context.Context) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := k.ask(ctx)
		if err == nil {
			return nil
		}
		k.failed()
		if ce, ok := errors.AsType[*contract.Error](err); !ok || !ce.Retry {
			k.conn.Log().Warn("revocations and contacts not read; trying again", zap.Error(err), zap.Duration("in", wait))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (k *Keeper) ask(ctx context.Context) error {
	certs, err := bus.Call(ctx, k.conn, contract.IdentityCerts, &contract.None{})
	if err != nil {
		return err
	}
	k.take(&contract.RevocationList{AccountPEM: certs.AccountPEM, CRL: certs.CRL, Older: certs.OlderCRLs})
	for i := range certs.Authorities {
		k.take(&certs.Authorities[i])
	}
	k.begin()
	banned := map[jami.ID]struct{}{}
	var revision uint64
	for q := (contract.ContactQuery{Banned: true}); ; {
		page, err := bus.Call(ctx, k.conn, contract.ContactList, &q)
		if err != nil {
			return err
		}
		if q.After == "" {
			revision = page.Revision // a change of a page that is read already comes as an event above it
		}
		for _, c := range page.Contacts {
			id, err := jami.ParseID(c.ID)
			if err != nil {
				return contract.ErrInternal.With("contact %.60q: %v", c.ID, err)
			}
			if c.Banned {
				banned[id] = struct{}{}
			}
		}
		if page.Next <= q.After {
			break // also where the pages go round
		}
		q.After = page.Next
	}
	k.read(banned, revision)
	return nil
}

// take takes what the account revoked.
func (k *Keeper) take(l *contract.RevocationList) {
	lists := l.Older
	if len(l.CRL) > 0 {
		lists = append(lists, l.CRL)
	}
	if len(lists) == 0 {
		return
	}
	issuer, err := trust.Certificates([]byte(l.AccountPEM))
	if err != nil {
		k.conn.Log().Error("revocation list without its issuer", zap.Error(err))
		return
	}
	for _, err := range k.revoke(issuer[0], lists) {
		k.conn.Log().Error("revocation list not taken", zap.Error(err))
	}
}
