package connect

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// After no server gave a relay they are tried again after the first of these, doubling to the
// second.
const (
	relayFirst = time.Second
	relayMost  = 5 * time.Minute
)

// relay has devices be told of a relay of the node's, and keeps one, until ctx ends.
func (d *devices) relay(ctx context.Context) {
	log, wait, told := d.log.Named("relay"), relayFirst, false
	for ctx.Err() == nil {
		r, err := d.relays.TCP(ctx)
		switch {
		case ctx.Err() != nil && err != nil:
			return
		case err != nil && !told:
			log.Warn("there is no relay for devices: those that can connect to no port here, nor we to theirs, cannot call; trying again", zap.Error(err))
			told = true
		case err == nil:
			log.Info("relay ready", zap.String("server", r.Server()), zap.Stringer("address", r.Addr()))
			wait, told = relayFirst, false
			stop := context.AfterFunc(ctx, r.Close)
			d.port.ServeRelay(r)
			stop()
			r.Close()
			if ctx.Err() == nil {
				log.Warn("the relay for devices is lost, and what went by way of it", zap.Error(r.Err()))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, relayMost)
		}
	}
}
