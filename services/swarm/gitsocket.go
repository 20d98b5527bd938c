package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
)

// Bounds of the socket on which connect brings channels.
const (
	maxGitConns = 512
	helloTime   = 5 * time.Second
)

// packets reads and writes messages of a channel: each write is one.
type packets struct {
	*net.UnixConn
	buf  [contract.GitMessage]byte
	rest []byte
}

func (p *packets) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		n, err := p.UnixConn.Read(p.buf[:])
		if err != nil {
			return 0, err
		}
		p.rest = p.buf[:n]
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// gitSocket takes channels of connect: those that peers open, and those that were asked for.
type gitSocket struct {
	l     *net.UnixListener
	serve func(ctx context.Context, h *contract.GitHello, c *packets) error
	log   *zap.Logger
	slots chan struct{}

	mu     sync.Mutex
	wanted map[string]chan *packets // by token
}

func listenGit(path string, log *zap.Logger) (*gitSocket, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("socket for channels: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("socket for channels: %w", err)
	}
	return &gitSocket{l: l, log: log, slots: make(chan struct{}, maxGitConns), wanted: map[string]chan *packets{}}, nil
}

// run takes channels until ctx ends, and waits for those that are served.
func (g *gitSocket) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { g.l.Close() })() //nolint:errcheck // it wakes Accept
	for {
		c, err := g.l.AcceptUnix()
		if err != nil {
			if ctx.Err() == nil {
				g.log.Error("no channels of Git are taken any more", zap.Error(err))
			}
			return
		}
		select {
		case g.slots <- struct{}{}:
		default:
			c.Close() //nolint:errcheck // nothing was said on it
			continue
		}
		wg.Go(func() {
			defer func() { <-g.slots }()
			g.take(ctx, &packets{UnixConn: c})
		})
	}
}

// take reads what a channel is, and serves it or hands it to who asked for it.
func (g *gitSocket) take(ctx context.Context, c *packets) {
	given := false
	defer func() {
		if !given {
			c.Close() //nolint:errcheck // it ends either way
		}
	}()
	stop := context.AfterFunc(ctx, func() { c.Close() }) //nolint:errcheck // it wakes who reads
	defer stop()
	h, err := hello(c)
	if err != nil {
		g.log.Info("channel of Git refused", zap.Error(err))
		return
	}
	if h.Token != "" {
		g.mu.Lock()
		to := g.wanted[h.Token]
		delete(g.wanted, h.Token)
		g.mu.Unlock()
		if to != nil {
			given = true
			to <- c // it has place
		}
		return
	}
	if err := g.serve(ctx, h, c); err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		g.log.Info("conversation not served", zap.String("conversation", h.Conversation), zap.String("jami_id", h.Peer), zap.Error(err))
	}
}

// hello reads the first message on a connection.
func hello(c *packets) (*contract.GitHello, error) {
	if err := c.SetDeadline(time.Now().Add(helloTime)); err != nil {
		return nil, err
	}
	var b [4096]byte
	n, err := c.UnixConn.Read(b[:])
	if err != nil {
		return nil, err
	}
	h := new(contract.GitHello)
	if err := json.Unmarshal(b[:n], h); err != nil {
		return nil, err
	}
	return h, c.SetDeadline(time.Time{})
}

// want returns where the channel with a token will come; forget ends that.
func (g *gitSocket) want(token string) (came chan *packets, forget func()) {
	came = make(chan *packets, 1)
	g.mu.Lock()
	g.wanted[token] = came
	g.mu.Unlock()
	return came, func() {
		g.mu.Lock()
		delete(g.wanted, token)
		g.mu.Unlock()
		select {
		case c := <-came:
			c.Close() //nolint:errcheck // nobody uses it
		default:
		}
	}
}
