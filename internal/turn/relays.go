package turn

import (
	"fmt"
	"time"

	"github.com/parley-jami/parley/internal/config"
)

// Relays returns the servers that the operator named, for browsers and for the node itself;
// nil: there are none.
func Relays(c *config.Config) (*List, error) {
	l := &List{Life: time.Duration(c.TURN.Minutes) * time.Minute}
	if len(c.TURN.URLs) > 0 {
		secret, err := Secret(c)
		if err != nil {
			return nil, err
		}
		l.Known = append(l.Known, Known{URLs: c.TURN.URLs, Secret: string(secret)})
	}
	if c.TURN.Servers != "" {
		more, err := ReadServers(c.TURN.Servers)
		if err != nil {
			return nil, fmt.Errorf("turn.servers_file: %w", err)
		}
		l.Known = append(l.Known, more...)
	}
	if len(l.Known) == 0 {
		return nil, nil
	}
	return l, nil
}
