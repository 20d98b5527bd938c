package names

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/services/names/api"
	"github.com/parley-jami/parley/services/names/store"
)

// Files of the directory names.data.
const (
	fileNames  = "names.db"
	fileBackup = "names.backup.db"
)

const (
	comeTime   = 10 * time.Second // of a request, which is smaller than 10 KiB
	answerTime = 10 * time.Second

	backupEvery = time.Hour
)

// Service is the name server.
type Service struct {
	env   *host.Env
	store *store.Store
	dir   string
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	return &Service{env: env}, nil
}

// Run serves until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	c := s.env.Config.Names
	if s.dir, err = s.makeDir(c.Data); err != nil {
		return err
	}
	if err := s.checkFiles(); err != nil {
		return err
	}
	if s.store, err = store.Open(filepath.Join(s.dir, fileNames)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	metrics, err := api.NewMetrics(s.env.Registry, s.store.Count)
	if err != nil {
		return err
	}
	srv := httpapi.NewServer(api.NewHandler(s.store, s.env.Log, metrics), s.env.Log, comeTime, answerTime)
	if c.Cert != "" {
		if srv.TLSConfig, err = certs.Given(c.Cert, c.Key); err != nil {
			return fmt.Errorf("names.cert, names.key: %w", err)
		}
	}
	l, err := sockets.Listen(sockets.Spec{Name: "names", Network: "tcp", Addr: c.Listen, Setting: "names.listen"})
	if err != nil {
		return err
	}
	s.env.Log.Info("serving names", zap.Stringer("address", l.Addr()), zap.Bool("tls", c.Cert != ""), zap.String("data", s.dir), zap.Int("names", s.store.Count()))
	s.env.SetReady(true)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { s.backups(ctx) })
	return httpapi.Serve(ctx, s.env.Log, func() { s.env.SetReady(false) }, httpapi.Door{Server: srv, Listener: metrics.Listener(l)})
}

func (s *Service) makeDir(dir string) (string, error) {
	if dir == "" {
		return s.env.Dir()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("names.data: %w", err)
	}
	return dir, nil
}

// checkFiles refuses to begin anew beside a backup, which the first new name would
// replace.
func (s *Service) checkFiles() error {
	_, err := os.Stat(filepath.Join(s.dir, fileNames))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(s.dir, fileBackup)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return fmt.Errorf("%s has a backup and no %s: copy %s to that name, or move it away to begin anew", s.dir, fileNames, fileBackup)
}

// backups copies the file from time to time, when names were added.
func (s *Service) backups(ctx context.Context) {
	tick := time.NewTicker(backupEvery)
	defer tick.Stop()
	for saved := 0; ; {
		if n := s.store.Count(); n != saved && s.backup(ctx, n) {
			saved = n
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Service) backup(ctx context.Context, names int) bool {
	began := time.Now()
	err := s.store.Backup(ctx, filepath.Join(s.dir, fileBackup))
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		s.env.Log.Error("no backup", zap.Error(err))
		return false
	}
	s.env.Log.Info("backup written", zap.Int("names", names), zap.Duration("took", time.Since(began)))
	return true
}
