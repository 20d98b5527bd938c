package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// UpSocket is the Unix socket on which a running supervisor answers, below DATA.
func UpSocket(data string) string { return filepath.Join(data, "run", "up.sock") }

// Handler answers /healthz, /readyz (joinable) and /metrics.
func (s *Supervisor) Handler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range s.children {
			if c.Needed && !c.ready.Load() {
				http.Error(w, c.Name+" is not ready", http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Gatherer(), promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return mux
}

// ListenUp opens DATA/run/up.sock for the owner alone. The caller holds the data
// lock, so a file that is there is a dead node's.
func ListenUp(data string) (net.Listener, error) {
	path := UpSocket(data)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("supervisor's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("supervisor's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("supervisor's socket: %w", err)
	}
	return l, nil
}

// Serve answers HTTP on l until ctx ends, for at most a second longer, and waits
// for its goroutines.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *zap.Logger) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("answers ended", zap.Stringer("address", l.Addr()), zap.Error(err))
		}
	})
	<-ctx.Done()
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		log.Debug("answers cut off", zap.Error(err))
		srv.Close()
	}
	wg.Wait()
}
