package proxyclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/proxyurl"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// maxServers bounds the list of proxies.
const maxServers = 32

// Times between two looks at the proxy in use: when it is well; after a round in which
// none was, doubling from the first to the last; and at least.
const (
	infoEvery = time.Minute
	downFirst = time.Second
	downLast  = time.Minute
	infoLeast = time.Second
)

// reputEvery is how often at most permanent values are put anew since connections to a
// proxy that is otherwise well are lost.
const reputEvery = 10 * time.Minute

// server is one proxy. at is fixed; node and down are the monitor's; url, with the port in
// use, and up are guarded by the node's mu.
type server struct {
	at   proxyurl.URL
	url  string
	node string // its node id when it was last in use
	down bool   // it did not answer, and this was told
	up   bool   // it answered when it was last asked
}

func parseServers(texts []string) ([]*server, error) {
	if len(texts) == 0 || len(texts) > maxServers {
		return nil, fmt.Errorf("%d DHT proxies (setting dht.proxy); want 1 to %d", len(texts), maxServers)
	}
	var out []*server
	for _, s := range texts {
		u, err := proxyurl.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("%w (setting dht.proxy)", err)
		}
		out = append(out, &server{at: u, url: u.Pick()})
	}
	return out, nil
}

// jitter returns a time of half of d to d, so that clients don't all come at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// backoff returns how long to wait after so many failures in a row.
func backoff(fails int, first, last time.Duration) time.Duration {
	return jitter(min(first<<min(fails, 20), last))
}

// monitor looks after the proxies until the node ends.
func (n *Node) monitor() {
	fails := 0
	for {
		wait := jitter(infoEvery)
		if n.look(n.ctx) {
			fails = 0
		} else {
			wait = backoff(fails, downFirst, downLast)
			fails++
		}
		next, quiet := time.NewTimer(wait), time.NewTimer(infoLeast)
		var poke chan struct{} // not before quiet
	waiting:
		for {
			select {
			case <-n.ctx.Done():
				next.Stop()
				quiet.Stop()
				return
			case <-quiet.C:
				poke = n.poke
			case <-poke:
				break waiting
			case <-next.C:
				break waiting
			}
		}
		next.Stop()
		quiet.Stop()
	}
}

// look finds the proxy to use; false: none answers.
func (n *Node) look(ctx context.Context) bool {
	n.mu.Lock()
	cur := n.cur
	n.mu.Unlock()
	best, bestNode := -1, ""
	for i := range n.servers {
		i = (cur + i) % len(n.servers)
		s := n.servers[i]
		info, err := n.info(ctx, n.base(i))
		if ctx.Err() != nil {
			return true
		}
		if err != nil {
			if !s.down {
				n.log.Warn("DHT proxy is not well; using others while it is not (setting dht.proxy)", zap.String("proxy", n.base(i)), zap.Error(err))
			}
			s.down = true
			n.mu.Lock()
			s.url, s.up = s.at.PickOther(s.url), false
			n.mu.Unlock()
			continue
		}
		n.mu.Lock()
		s.up = true
		n.mu.Unlock()
		if s.down {
			s.down = false
			n.log.Info("DHT proxy is well again", zap.String("proxy", n.base(i)))
		}
		if good := info.IPv4.Good + info.IPv6.Good; good > 0 {
			n.use(i, info.NodeID, good)
			return true
		}
		if best < 0 {
			best, bestNode = i, info.NodeID
		}
	}
	if best >= 0 {
		n.use(best, bestNode, 0)
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.up {
		n.since = time.Now()
	}
	n.up, n.peers = false, 0
	return false
}

func (n *Node) base(i int) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[i].url
}

// use takes a proxy into use. When it is another, or was away, listeners connect to it
// and permanent values are put.
func (n *Node) use(i int, nodeID string, good int) {
	s := n.servers[i]
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peers = good
	if n.up && n.cur == i && s.node == nodeID {
		return
	}
	n.log.Info("DHT proxy in use", zap.String("proxy", s.url), zap.String("node", nodeID), zap.Int("peers", good))
	n.up, n.cur, s.node, n.since = true, i, nodeID, now
	close(n.moved)
	n.moved = make(chan struct{})
	n.putAnewLocked(now)
}

// lost has permanent values put anew when a connection to the proxy broke, and the
// monitor look.
func (n *Node) lost(broken bool) {
	signal(n.poke)
	if !broken {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); now.Sub(n.reput) >= reputEvery {
		n.putAnewLocked(now)
	}
}

func (n *Node) putAnewLocked(now time.Time) {
	n.reput = now
	n.own.putAnew(now)
	signal(n.kick)
}

// current returns the proxy in use, or the one to try, and what is closed when another
// is in use.
func (n *Node) current() (base string, moved chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.servers[n.cur].url, n.moved
}

// try calls fn for each proxy, the one in use first, until one takes the request or says
// that none would. It then returns its error, and [overlay.ErrUnreachable] when no proxy
// did.
func (n *Node) try(ctx context.Context, fn func(ctx context.Context, base string) error) error {
	n.mu.Lock()
	var bases []string
	for i := range n.servers {
		bases = append(bases, n.servers[(n.cur+i)%len(n.servers)].url)
	}
	n.mu.Unlock()
	var errs []error
	for i, base := range bases {
		err := fn(withShare(ctx, len(bases)-i), base)
		var f *finalError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &f):
			return f.err
		case ctx.Err() != nil:
			signal(n.poke)
			return ctx.Err()
		}
		signal(n.poke)
		errs = append(errs, fmt.Errorf("%s: %w", base, err))
	}
	return fmt.Errorf("%w: %w", overlay.ErrUnreachable, errors.Join(errs...))
}

// finalError is one that another proxy would give, too.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }
