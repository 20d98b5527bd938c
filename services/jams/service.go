package jams

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/jams/api"
	"github.com/parley-jami/parley/services/jams/ca"
	"github.com/parley-jami/parley/services/jams/store"
	"github.com/parley-jami/parley/services/jams/users"
)

// Files of the directory jams.data.
const (
	fileAccounts = "accounts.db"
	fileUsers    = "users.yaml"
)

// Bounds of one connection.
const (
	headerTime = 5 * time.Second
	bodyTime   = 15 * time.Second
	writeTime  = 30 * time.Second // an account's key may have to be made first
	idleTime   = time.Minute
	maxHeader  = 8 << 10

	// drainTime is for requests that are being answered at the end.
	drainTime = 2 * time.Second
)

// Service is the account server.
type Service struct {
	env  *host.Env
	bits int // of account keys and of an authority that is made
	dir  string
}

// New builds the service; nothing starts before Run.
func New(env *host.Env) (host.Runner, error) {
	return &Service{env: env, bits: jami.KeyBits}, nil
}

// Dir returns the server's directory by the configuration.
func Dir(c *config.Config) string {
	if c.JAMS.Data != "" {
		return c.JAMS.Data
	}
	return filepath.Join(c.Data, "jams")
}

// UsersFile returns the file of the users by the configuration.
func UsersFile(c *config.Config) string {
	if c.JAMS.Users != "" {
		return c.JAMS.Users
	}
	return filepath.Join(Dir(c), fileUsers)
}

// Socket returns the Unix socket on which the operator is answered.
func Socket(c *config.Config) string { return filepath.Join(c.Data, "run", "jams-op.sock") }

// Run serves until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	c := s.env.Config
	s.dir = Dir(c)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("jams.data: %w", err)
	}
	source, err := s.source(c)
	if err != nil {
		return err
	}
	authority, err := s.authority(c)
	if err != nil {
		return err
	}
	st, err := store.Open(filepath.Join(s.dir, fileAccounts), api.KeyHash(authority.Cert))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	metrics, err := api.NewMetrics(s.env.Registry, st.Counts)
	if err != nil {
		return err
	}
	tlsConf, err := s.tls(c)
	if err != nil {
		return err
	}
	accounts := api.NewAccounts(authority, st, s.bits, s.env.Log)
	errs := zap.NewStdLog(s.env.Log.WithOptions(zap.IncreaseLevel(zap.ErrorLevel))) // strangers' mistakes are no news
	srv := &http.Server{
		Handler:   api.NewHandler(accounts, source, c.JAMS.NameServer, s.env.Log, metrics),
		TLSConfig: tlsConf, ReadHeaderTimeout: headerTime, ReadTimeout: bodyTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: errs,
	}
	op := &http.Server{Handler: api.Operator(accounts), ReadHeaderTimeout: headerTime, ReadTimeout: bodyTime, ErrorLog: errs}
	opListener, err := s.listenOperator(c)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.JAMS.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("jams.listen: %w", err), opListener.Close())
	}
	n, devices := st.Counts()
	id, _ := jami.CertIDs(authority.Cert)
	s.env.Log.Info("serving accounts", zap.Stringer("address", l.Addr()), zap.Stringer("authority", id), zap.String("data", s.dir),
		zap.Int("accounts", n), zap.Int("devices", devices))
	s.env.SetReady(true)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go accounts.MakeKeys(ctx) // not waited for: a key that is being made takes seconds
	wg.Go(func() {
		if err := op.Serve(opListener); !errors.Is(err, http.ErrServerClosed) {
			s.env.Log.Error("the operator's socket ended", zap.Error(err))
		}
	})
	return s.serve(ctx, srv, op, limits.NewListener(l, metrics.Conns, metrics.RefusedConns))
}

func (s *Service) source(c *config.Config) (users.Source, error) {
	if c.JAMS.LDAPURL == "" {
		path := UsersFile(c)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && c.JAMS.Users == "" {
			return nil, fmt.Errorf("there are no users: add one with \"parley jams user add NAME\", or set jams.ldap_url")
		}
		f, err := users.OpenFile(path, s.env.Log)
		if err != nil {
			return nil, fmt.Errorf("jams.users: %w", err)
		}
		return f, nil
	}
	o := users.LDAPOptions{URL: c.JAMS.LDAPURL, UserDN: c.JAMS.LDAPUserDN, Plain: c.JAMS.LDAPPlain}
	if c.JAMS.LDAPCA != "" {
		text, err := os.ReadFile(c.JAMS.LDAPCA)
		if err != nil {
			return nil, fmt.Errorf("jams.ldap_ca: %w", err)
		}
		o.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		if !o.TLS.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("jams.ldap_ca: there is no PEM certificate")
		}
	}
	l, err := users.NewLDAP(o, s.env.Log)
	if err != nil {
		return nil, fmt.Errorf("jams.ldap_url, jams.ldap_user_dn: %w", err)
	}
	return l, nil
}

func (s *Service) authority(c *config.Config) (*ca.CA, error) {
	if c.JAMS.CACert == "" {
		return ca.Own(s.dir, s.bits, time.Now())
	}
	a, err := ca.Given(c.JAMS.CACert, c.JAMS.CAKey, time.Now())
	if err != nil {
		return nil, fmt.Errorf("jams.ca_cert, jams.ca_key: %w", err)
	}
	return a, nil
}

// tls asks for the certificate of a device and lets the login judge it: the chain of
// an account is no chain of the web's.
func (s *Service) tls(c *config.Config) (conf *tls.Config, err error) {
	if c.JAMS.Cert != "" {
		if conf, err = certs.Given(c.JAMS.Cert, c.JAMS.Key); err != nil {
			return nil, fmt.Errorf("jams.cert, jams.key: %w", err)
		}
	} else {
		hosts := append([]string{"localhost"}, certs.LocalHosts()...)
		if name, err := os.Hostname(); err == nil {
			hosts = append(hosts, name)
		}
		if conf, err = certs.Own(filepath.Join(s.dir, "tls"), hosts); err != nil {
			return nil, err
		}
	}
	conf.ClientAuth = tls.RequestClientCert
	return conf, nil
}

func (s *Service) listenOperator(c *config.Config) (net.Listener, error) {
	if _, err := s.env.RunDir(); err != nil {
		return nil, err
	}
	path := Socket(c)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("operator's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("operator's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("operator's socket: %w", err), l.Close())
	}
	return l, nil
}

// serve ends after the requests that came before ctx's end are answered.
func (s *Service) serve(ctx context.Context, srv, op *http.Server, l net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-served:
		return errors.Join(err, op.Close())
	case <-ctx.Done():
	}
	s.env.SetReady(false)
	limit, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer stop()
	for _, x := range []*http.Server{srv, op} {
		if err := x.Shutdown(limit); err != nil {
			s.env.Log.Warn("requests cut off", zap.Error(errors.Join(err, x.Close())))
		}
	}
	return ctx.Err()
}
