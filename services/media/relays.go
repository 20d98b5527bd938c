package media

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/turn"
	"github.com/parley-jami/parley/internal/turnclient"
)

const (
	// After no server gave a relay they are tried again after the first of these, doubling to the
	// second.
	relayFirst = time.Second
	relayMost  = 5 * time.Minute
	// relayAge is how long a relay is given to legs that begin: servers end allocations after a
	// day, say.
	relayAge = 6 * time.Hour
)

// relayClient is what allocates; nil: nothing does.
func (s *Service) relayClient() *turnclient.Client {
	c := s.env.Config
	if !c.TURN.Node || c.Jami.Listen == "" { // it is Jami peers that have need of it
		return nil
	}
	list, err := turn.Relays(c)
	if err != nil { // sound does not end for that
		s.log.Named("relay").Warn("there is no relay for Jami peers", zap.Error(err))
	}
	if list == nil || err != nil {
		return nil
	}
	return turnclient.New(turnclient.Config{List: list, Name: "parley-media", Log: s.log.Named("relay"), Metrics: turnclient.NewMetrics(s.env.Registry)})
}

// relays keeps a pair of relays ready for Jami legs until ctx ends.
func (s *Service) relays(ctx context.Context, c *turnclient.Client) {
	log, wait, told := s.log.Named("relay"), relayFirst, false
	for ctx.Err() == nil {
		full, err := s.relay(ctx, c)
		if err != nil {
			if !told && ctx.Err() == nil {
				log.Warn("there is no relay for Jami peers: those whose networks let nothing direct through are not heard; trying again", zap.Error(err))
			}
			told = true
			if !rest(ctx, wait) {
				return
			}
			wait = min(2*wait, relayMost)
			continue
		}
		if wait = relayFirst; told {
			log.Info("there is a relay again")
			told = false
		}
		select {
		case <-full:
		case <-time.After(relayAge):
		case <-ctx.Done():
		}
		rest(ctx, relayFirst) // what a server gives and takes again is not asked for all the time
	}
}

// relay allocates a pair and hands it to the legs.
func (s *Service) relay(ctx context.Context, c *turnclient.Client) (full <-chan struct{}, err error) {
	var pair [2]*turnclient.UDP
	for i := range pair {
		if pair[i], err = c.UDP(ctx); err != nil {
			break
		}
	}
	if err == nil {
		if full, err = s.host.Relay(pair[0], pair[1]); err == nil {
			s.log.Named("relay").Info("relay ready", zap.String("server", pair[0].Server()), zap.Stringer("rtp", pair[0].Addr()), zap.Stringer("rtcp", pair[1].Addr()))
			return full, nil
		}
	}
	for _, u := range pair {
		if u != nil {
			u.Close()
		}
	}
	return nil, err
}

// rest waits; false: ctx ended.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
