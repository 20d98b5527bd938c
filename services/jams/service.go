package jams

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/secret"
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

const (
	comeTime   = 15 * time.Second // of a request
	answerTime = 30 * time.Second // an account's key may have to be made first
)

// Service is the account server.
type Service struct {
	env   *host.Env
	bits  int // of account keys and of an authority that is made
	dir   string
	words []byte // the storage key; nil: keys are in clear
}

// New builds the service; nothing starts before Run. The storage key of the environment
// is taken out of it.
func New(env *host.Env) (host.Runner, error) {
	words, err := secret.TakeEnv(config.EnvStorageKey)
	if path := env.Config.JAMS.StorageKey; err == nil && path != "" {
		if words != nil {
			return nil, fmt.Errorf("there are two storage keys: jams.storage_key_file and %s", config.EnvStorageKey)
		}
		words, err = secret.File(path)
	}
	if err != nil {
		return nil, fmt.Errorf("storage key (jams.storage_key_file): %w", err)
	}
	return &Service{env: env, bits: jami.KeyBits, words: words}, nil
}

// UsersFile returns the file of the users by the configuration.
func UsersFile(c *config.Config) string {
	if c.JAMS.Users != "" {
		return c.JAMS.Users
	}
	return filepath.Join(c.JAMSDir(), fileUsers)
}

// Run serves until ctx ends.
func (s *Service) Run(ctx context.Context) (err error) {
	c := s.env.Config
	s.dir = c.JAMSDir()
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
	st, err := s.accounts(authority)
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
	srv := httpapi.NewServer(api.NewHandler(accounts, source, c.JAMS.NameServer, s.env.Log, metrics), s.env.Log, comeTime, answerTime)
	srv.TLSConfig = tlsConf
	op := httpapi.NewServer(api.Operator(accounts), s.env.Log, comeTime, answerTime)
	opListener, err := s.listenOperator()
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go accounts.MakeKeys(ctx) // not waited for: a key that is being made takes seconds
	return httpapi.Serve(ctx, s.env.Log, func() { s.env.SetReady(false) }, httpapi.Door{Server: srv, Listener: metrics.Listener(l)}, httpapi.Door{Server: op, Listener: opListener})
}

// accounts opens the file of accounts. Only when the storage key opens all that is
// encrypted already is the rest encrypted.
func (s *Service) accounts(authority *ca.CA) (*store.Store, error) {
	path, id := filepath.Join(s.dir, fileAccounts), api.KeyHash(authority.Cert)
	st, err := store.Open(path, id, s.words)
	if err != nil {
		return nil, err
	}
	did, err := authority.Encrypt()
	if err == nil && s.words != nil && !st.Encrypted() {
		did = true
		if err = errors.Join(st.Close(), store.Encrypt(path, id, s.words)); err != nil {
			return nil, err
		}
		st, err = store.Open(path, id, s.words)
		if err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	if did {
		s.env.Log.Info("the keys on disk are encrypted now; copies of before have them in clear", zap.String("data", s.dir))
	}
	return st, nil
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
		return ca.Own(s.dir, s.bits, time.Now(), s.words)
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

// listenOperator replaces the socket that a server left behind which was killed: the
// file of accounts is locked, so that none runs.
func (s *Service) listenOperator() (net.Listener, error) {
	path := jams.OperatorSocket(s.dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("operator's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("operator's socket %s, whose path may have 107 bytes: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("operator's socket: %w", err), l.Close())
	}
	return l, nil
}
