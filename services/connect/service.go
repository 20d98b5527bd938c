package connect

import (
	"context"

	"github.com/parley-jami/parley/bus/host"
)

// Service is the connect process.
type Service struct{ env *host.Env }

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) { return &Service{env: env}, nil }

// Run serves until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
