package supervise

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// How often a child is asked for its health: often while it starts, since the
// node is joinable only when the answer is seen.
const (
	pollStarting = 15 * time.Millisecond
	pollSlow     = 250 * time.Millisecond // not ready after startingFor
	pollReady    = time.Second
	startingFor  = 15 * time.Second
	pollTimeout  = time.Second
)

// unixClient is an HTTP client for one Unix socket.
func unixClient(path string) *http.Client {
	return &http.Client{Timeout: pollTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		MaxIdleConns: 1,
	}}
}

// watch asks for /readyz until ctx ends.
func (c *child) watch(ctx context.Context) {
	defer c.client.CloseIdleConnections()
	t := time.NewTimer(pollStarting)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		pid, since := c.current()
		ok := pid != 0 && c.askReady(ctx)
		if now, _ := c.current(); now != pid {
			ok = false // the answer was its predecessor's
		}
		if c.ready.Swap(ok) != ok {
			if ok {
				c.log.Debug("process is ready", zap.Duration("after", time.Since(since)))
			} else {
				c.log.Debug("process is not ready any more")
			}
			c.s.notify()
		}
		switch {
		case ok:
			t.Reset(pollReady)
		case pid == 0 || time.Since(since) < startingFor:
			t.Reset(pollStarting)
		default:
			t.Reset(pollSlow)
		}
	}
}

func (c *child) askReady(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://process/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return false // it isn't there yet, or hangs: both are "not ready"
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10)); err != nil {
		return false
	}
	return resp.StatusCode == http.StatusOK
}
