package httpapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Bounds of one connection.
const (
	headerTime = 5 * time.Second
	idleTime   = time.Minute
	maxHeader  = 8 << 10

	// drainTime is for requests that are being answered at the end.
	drainTime = 2 * time.Second
)

// NewServer returns a server whose requests may take so long to come and to be
// answered.
func NewServer(h http.Handler, log *zap.Logger, come, answered time.Duration) *http.Server {
	if log.Core().Enabled(zap.ErrorLevel) { // else it shows less already
		log = log.WithOptions(zap.IncreaseLevel(zap.ErrorLevel))
	}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, ReadTimeout: come, WriteTimeout: answered, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: zap.NewStdLog(log), // strangers' mistakes are no news
	}
}

// Door is a server and where it listens: by TLS where it has a configuration for it.
type Door struct {
	Server   *http.Server
	Listener net.Listener
}

func (d Door) serve() error {
	if d.Server.TLSConfig != nil {
		return d.Server.ServeTLS(d.Listener, "", "")
	}
	return d.Server.Serve(d.Listener)
}

// Serve serves until ctx ends or a door fails; then it calls ended, and returns when
// the requests that came before are answered.
func Serve(ctx context.Context, log *zap.Logger, ended func(), doors ...Door) error {
	failed := make(chan error, len(doors))
	for _, d := range doors {
		go func() { failed <- d.serve() }()
	}
	left := len(doors)
	var err error
	select {
	case err = <-failed:
		left--
	case <-ctx.Done():
		err = ctx.Err()
	}
	ended()
	limit, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer stop()
	for _, d := range doors {
		if err := d.Server.Shutdown(limit); err != nil {
			log.Warn("requests cut off", zap.Error(errors.Join(err, d.Server.Close())))
		}
	}
	for range left {
		<-failed
	}
	return err
}
