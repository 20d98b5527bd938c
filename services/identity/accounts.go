package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/identity/account"
)

// made are keys, or why there are none.
type made struct {
	keys *account.Keys
	err  error
}

// newKeys makes the keys of an account. They take some seconds, and with others on the
// machine more than a command may take: who asks again gets those that came meanwhile.
func (s *Service) newKeys(ctx context.Context) (*account.Keys, error) {
	s.mu.Lock()
	ch := s.making
	if ch == nil {
		ch = make(chan made, 1)
		s.making = ch
		s.wg.Go(func() {
			k, err := s.keys(s.ctx)
			ch <- made{k, err}
		})
	}
	s.mu.Unlock()
	select {
	case m := <-ch:
		s.mu.Lock()
		s.making = nil
		s.mu.Unlock()
		return m.keys, m.err
	case <-ctx.Done():
		return nil, contract.ErrTimeout.With("the keys of the account are being made; ask again")
	}
}

func (s *Service) accountCreate(ctx context.Context, r *bus.Request[contract.AccountCreate]) (*contract.Account, error) {
	if err := checkAlias(r.Body.Alias); err != nil {
		return nil, err
	}
	keys, err := s.newKeys(ctx)
	if err != nil {
		return nil, err
	}
	return s.add(func() (*account.Account, error) {
		return s.store.Create(keys, account.Settings{Alias: strings.TrimSpace(r.Body.Alias), Rendezvous: true}, s.now())
	})
}

func (s *Service) accountImport(ctx context.Context, r *bus.Request[contract.Sealed]) (*contract.Account, error) {
	x, err := s.unseal(&r.Body, contract.AccountImport.Name)
	if err != nil {
		return nil, err
	}
	if len(x.Archive) == 0 || len(x.Archive) > contract.MaxSealedArchive {
		return nil, contract.ErrBadRequest.With("the archive has %d bytes; a running node takes 1 to %d, one that is stopped more", len(x.Archive), contract.MaxSealedArchive)
	}
	key, err := account.NewDeviceKey()
	if err != nil {
		return nil, err
	}
	return s.add(func() (*account.Account, error) {
		a, _, err := s.store.Import(x.Archive, x.Password, key, account.Beside, s.now())
		return a, err
	})
}

// accountRequest keeps new keys until their certificate comes.
func (s *Service) accountRequest(ctx context.Context, r *bus.Request[contract.AccountCreate]) (*contract.AccountRequested, error) {
	if err := checkAlias(r.Body.Alias); err != nil {
		return nil, err
	}
	keys, err := s.newKeys(ctx)
	if err != nil {
		return nil, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	request, err := s.store.Request(keys, account.Settings{Alias: strings.TrimSpace(r.Body.Alias), Rendezvous: true}, s.now())
	if errors.Is(err, account.ErrManyRequests) {
		return nil, contract.ErrFull.With("%v", account.ErrManyRequests)
	}
	if err != nil {
		return nil, s.archiveError(err)
	}
	s.env.Log.Info("certificate of a new account requested")
	return &contract.AccountRequested{Request: string(request)}, nil
}

func (s *Service) accountComplete(_ context.Context, r *bus.Request[contract.AccountIssued]) (*contract.Account, error) {
	return s.add(func() (*account.Account, error) { return s.store.Complete([]byte(r.Body.Chain), s.now()) })
}

// accountEnrol becomes a device of a user's account at an account server.
func (s *Service) accountEnrol(ctx context.Context, r *bus.Request[contract.Sealed]) (*contract.Account, error) {
	x, err := s.unseal(&r.Body, contract.AccountEnrol.Name)
	if err != nil {
		return nil, err
	}
	m := account.Managed{Server: x.Server, User: x.User, Roots: x.Roots}
	for _, h := range s.all() { // before the server makes one more device
		if had := h.acc.Managed(); had.Server == m.Server && had.User == m.User {
			return nil, contract.ErrExists.With("the node has the account of %s at this server already, %s: take that out of use first (parley account retire ID), to enrol again", m.User, h.id())
		}
	}
	client, err := managerOf(&m, s.now)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	key, err := account.NewDeviceKey()
	if err != nil {
		return nil, err
	}
	e, err := client.Enrol(ctx, x.User, string(x.Password), newSettings.Alias, key)
	if err != nil {
		return nil, managerError(err)
	}
	set := account.Settings{Alias: e.Settings["Account.displayName"], Rendezvous: true}
	if checkAlias(set.Alias) != nil {
		set.Alias = x.User
	}
	return s.add(func() (*account.Account, error) { return s.store.Enrol(m, key, e.PEM, e.Receipt, set, s.now()) })
}

// managerOf is the client of an account server.
func managerOf(m *account.Managed, now func() time.Time) (*jams.Client, error) {
	o := jams.Options{Server: m.Server, Now: now}
	if m.Roots != "" {
		o.Roots = x509.NewCertPool()
		if !o.Roots.AppendCertsFromPEM([]byte(m.Roots)) {
			return nil, contract.ErrBadRequest.With("there is no PEM certificate of who certifies the account server")
		}
	}
	c, err := jams.New(o)
	if err != nil {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	return c, nil
}

// managerError says in the words of the contract what an account server answered.
func managerError(err error) error {
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		return contract.ErrUnavailable.With("%v; name a PEM file of who certifies the server (--server-ca; a server of ours that made its own certificate has it in its tls/self.pem)", err)
	}
	switch {
	case errors.Is(err, jams.ErrBadCredentials), errors.Is(err, jams.ErrForbidden), errors.Is(err, jams.ErrRevoked):
		return contract.ErrForbidden.With("%v", err)
	case errors.Is(err, jams.ErrLimited):
		return contract.ErrSlowDown.With("%v", err)
	case errors.Is(err, jams.ErrUnavailable):
		return contract.ErrUnavailable.With("%v", err)
	}
	return contract.ErrBadRequest.With("%v", err)
}

// add takes in what fn makes, one at a time.
func (s *Service) add(fn func() (*account.Account, error)) (*contract.Account, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	a, err := fn()
	switch {
	case errors.Is(err, account.ErrSame):
		return nil, contract.ErrExists.With("%v", account.ErrSame)
	case errors.Is(err, account.ErrMany):
		return nil, contract.ErrFull.With("%v", account.ErrMany)
	case errors.Is(err, account.ErrNotRequested):
		return nil, contract.ErrNotFound.With("%v", account.ErrNotRequested)
	case isRefused(err):
		return nil, contract.ErrBadRequest.With("%v", err)
	case errors.Is(err, jami.ErrArchive) && !errors.Is(err, account.ErrPassword):
		return nil, contract.ErrBadRequest.With("%v", err)
	case err != nil:
		return nil, s.archiveError(err)
	}
	h := &hosted{Service: s, acc: a}
	s.mu.Lock()
	s.hosts = append(s.hosts, h)
	main := len(s.hosts) == 1
	s.mu.Unlock()
	h.begin(main)
	s.env.Log.Info("account added", zap.String("id", h.id()), zap.Bool("main", main))
	return h.shown(), nil
}

// isRefused reports whether certificates were refused.
func isRefused(err error) bool {
	_, refused := errors.AsType[*trust.Error](err)
	return refused
}

func (s *hosted) retire(ctx context.Context, _ *bus.Request[contract.None]) (*contract.AccountRetired, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	switch {
	case s.id() == s.Service.conn.Account():
		return nil, contract.ErrForbidden.With("that is the node's main account: rooms and bots have its name; stop the node to replace it (account import --replace)")
	case s.host(s.id()) != s:
		return nil, contract.ErrNotFound.With("the account was taken out of use meanwhile")
	}
	dir, err := s.acc.Retire(s.now())
	if err != nil {
		return nil, s.archiveError(err)
	}
	s.stop()
	s.mu.Lock()
	s.hosts = slices.DeleteFunc(slices.Clone(s.hosts), func(h *hosted) bool { return h == s })
	s.mu.Unlock()
	s.takeOut(ctx)
	s.env.Log.Info("account taken out of use", zap.String("id", s.id()), zap.String("dir", dir))
	s.tell()
	return &contract.AccountRetired{ID: s.id(), Dir: dir}, nil
}
