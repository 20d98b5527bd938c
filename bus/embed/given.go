package embed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
)

// runGiven prepares a NATS whose operator has made the users.
func (b *Bus) runGiven(ctx context.Context) error {
	url := b.env.Config.Bus.URL
	creds := host.CredsFile(b.env.Config, "bus")
	if _, err := os.Stat(creds); err != nil {
		return fmt.Errorf("bus.url is %s, so the credentials of its users must be put into %s first (%w)", url, filepath.Dir(creds), err)
	}
	said := false
	c, err := bus.Connect(ctx, bus.Options{URL: url, Creds: creds, Name: "bus", Log: b.env.Log, Refused: func(_ bool, err error) {
		if !said {
			b.env.Log.Error("the NATS at bus.url refuses the node's credentials: its servers have to know the account that they are of; waiting for that", zap.String("creds", creds), zap.Error(err))
		}
		said = true
	}})
	if err != nil {
		return err
	}
	defer c.Close()
	svc, err := bus.NewService(c, "bus", b.env.Version, "this node uses a NATS of its operator; bots are made there")
	if err != nil {
		return err
	}
	defer svc.Stop()
	refusal := contract.ErrForbidden.With("this node uses the NATS at bus.url and holds no key of its operator: set bus.operator_key and bus.system_creds, or make the account and user there")
	err = errors.Join(
		bus.Serve(svc, contract.BusGrantBot, func(context.Context, *bus.Request[contract.BusGrant]) (*contract.BusGranted, error) {
			return nil, refusal
		}),
		bus.Serve(svc, contract.BusRevokeBot, func(context.Context, *bus.Request[contract.BotName]) (*contract.None, error) {
			return nil, refusal
		}),
		bus.Serve(svc, contract.BusAddWorker, func(context.Context, *bus.Request[contract.WorkerAdd]) (*contract.WorkerAdded, error) {
			return nil, refusal
		}),
		bus.Serve(svc, contract.BusRevokeWorker, func(context.Context, *bus.Request[contract.WorkerName]) (*contract.KnownWorker, error) {
			return nil, refusal
		}),
		bus.Serve(svc, contract.BusWorkers, func(context.Context, *bus.Request[contract.None]) (*contract.KnownWorkers, error) {
			return &contract.KnownWorkers{Workers: []contract.KnownWorker{}}, nil
		}),
		bus.Serve(svc, contract.BusTrust, func(context.Context, *bus.Request[contract.None]) (*contract.BusAccess, error) {
			return nil, refusal
		}),
		bus.Serve(svc, contract.BusWorkerHello, func(_ context.Context, r *bus.Request[contract.WorkerHello]) (*contract.WorkerWelcome, error) {
			return &contract.WorkerWelcome{}, understood(&r.Body, r.Param(0), b.env.Version)
		}))
	if err != nil {
		return err
	}
	if err := ensureStreams(ctx, c.NATS(), cmp.Or(b.env.Config.Bus.Replicas, 1)); err != nil {
		return fmt.Errorf("at %s: %w", url, err)
	}
	b.env.SetReady(true)
	if b.Started != nil {
		b.Started(url)
	}
	<-ctx.Done()
	return nil
}
