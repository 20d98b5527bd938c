package connect

import (
	"fmt"
	"time"

	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/turn"
)

// relays returns where browsers are sent whose network lets nothing else through; nil
// when the operator named none.
func relays(c *config.Config) (*turn.List, error) {
	l := &turn.List{Life: time.Duration(c.TURN.Minutes) * time.Minute}
	if len(c.TURN.URLs) > 0 {
		secret, err := turn.Secret(c)
		if err != nil {
			return nil, err
		}
		l.Known = append(l.Known, turn.Known{URLs: c.TURN.URLs, Secret: string(secret)})
	}
	if c.TURN.Servers != "" {
		more, err := turn.ReadServers(c.TURN.Servers)
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
