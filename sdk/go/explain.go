package parley

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// explain says where a connection failed, with what, and what to do.
func explain(err error, o Options) error {
	with := cmp.Or(o.Creds, "these credentials")
	if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) {
		return fmt.Errorf("the bus at %s does not accept %s (revoked, or made for another node? `parley bot list` shows the node's bots): %w", o.URL, with, err)
	}
	return fmt.Errorf("no connection to the bus at %s with %s (is the node running, is the address right? give the URL of its bus, examples take -url): %w", o.URL, with, err)
}
