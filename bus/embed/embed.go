// Package embed is the bus process: nats-server with JetStream, its users and
// their permissions.
package embed

import (
	"context"

	"github.com/parley-jami/parley/bus/host"
)

// Bus is the bus process.
type Bus struct{ env *host.Env }

// New builds the bus; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) { return &Bus{env: env}, nil }

// Run serves until ctx ends.
func (b *Bus) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
