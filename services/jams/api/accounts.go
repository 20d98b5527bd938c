package api

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sort"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/services/jams/ca"
	"github.com/parley-jami/parley/services/jams/store"
	"github.com/parley-jami/parley/services/jams/users"
)

// keysAhead is how many account keys are made before anybody asks: making one takes
// seconds.
const keysAhead = 4

// Accounts hands accounts out and ends them.
type Accounts struct {
	ca     *ca.CA
	store  *store.Store
	log    *zap.Logger
	bits   int
	keys   chan *rsa.PrivateKey
	tokens *tokens
}

// NewAccounts returns what serves both API and operator. bits is the size of account
// keys.
func NewAccounts(c *ca.CA, s *store.Store, bits int, log *zap.Logger) *Accounts {
	return &Accounts{ca: c, store: s, bits: bits, log: log, keys: make(chan *rsa.PrivateKey, keysAhead), tokens: newTokens()}
}

// MakeKeys makes account keys ahead until ctx ends.
func (a *Accounts) MakeKeys(ctx context.Context) {
	for ctx.Err() == nil {
		k, err := rsa.GenerateKey(rand.Reader, a.bits)
		if err != nil {
			a.log.Error("no key", zap.Error(err))
			return
		}
		select {
		case a.keys <- k:
		case <-ctx.Done():
		}
	}
}

// account returns the user's account, which is made when there is none.
func (a *Accounts) account(ctx context.Context, u users.User) (store.User, error) {
	have, err := a.store.User(u.Name)
	if err == nil {
		return have, a.store.SetProfile(u.Name, u.DisplayName, u.Email)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, err
	}
	var key *rsa.PrivateKey
	select {
	case key = <-a.keys:
	case <-ctx.Done():
		return store.User{}, ctx.Err()
	}
	now := time.Now()
	acc, err := a.ca.NewAccount(key, now)
	if err != nil {
		return store.User{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return store.User{}, err
	}
	have, err = a.store.AddUser(store.User{Name: u.Name, DisplayName: u.DisplayName, Email: u.Email, Cert: acc.Cert.Raw, Key: der, Eth: acc.Eth, Created: now.UTC()})
	if err == nil {
		a.log.Info("account made", zap.String("user", u.Name), zap.Stringer("account", have.JamiID))
	}
	return have, err
}

func open(u store.User) (*ca.Account, error) {
	cert, err := x509.ParseCertificate(u.Cert)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(u.Key)
	if err != nil {
		return nil, errors.New("the account's key does not parse")
	}
	key, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the account's key is not RSA")
	}
	return &ca.Account{Cert: cert, Key: key, Eth: u.Eth}, nil
}

// enrol gives a device of the user's a certificate. The same device again gets what
// it got, since an answer may have been lost.
func (a *Accounts) enrol(ctx context.Context, u users.User, pub *rsa.PublicKey, alias string) (chain []byte, d store.Device, err error) {
	_, id, err := jami.PublicIDs(pub)
	if err != nil {
		return nil, d, err
	}
	rec, err := a.account(ctx, u)
	if err != nil {
		return nil, d, err
	}
	if !rec.Revoked.IsZero() {
		return nil, d, store.ErrRevoked
	}
	acc, err := open(rec)
	if err != nil {
		return nil, d, err
	}
	if acc.Key.PublicKey.Equal(pub) || a.ca.Cert.PublicKey.(*rsa.PublicKey).Equal(pub) {
		return nil, d, store.ErrOther
	}
	d, err = a.store.Device(id)
	if errors.Is(err, store.ErrNotFound) {
		cert, err := jami.NewDevice(pub, acc.Cert, acc.Key, time.Now())
		if err != nil {
			return nil, d, err
		}
		r, err := jami.NewReceipt(acc.Key, pub, acc.Eth)
		if err != nil {
			return nil, d, err
		}
		d = store.Device{ID: id, User: u.Name, Alias: alias, Cert: cert.Raw, Receipt: r.Text, Sig: r.Sig, Created: time.Now().UTC()}
	} else if err != nil {
		return nil, d, err
	}
	if d.User != u.Name {
		return nil, d, store.ErrOther
	}
	if d, err = a.store.AddDevice(d); err != nil {
		return nil, d, err
	}
	cert, err := x509.ParseCertificate(d.Cert)
	if err != nil {
		return nil, d, err
	}
	a.log.Info("device enrolled", zap.String("user", u.Name), zap.Stringer("device", id))
	return jami.MarshalChain(cert, acc.Cert, a.ca.Cert), d, nil
}

// next is the number of the list after old.
func next(old []byte) (*big.Int, error) {
	if old == nil {
		n, err := rand.Int(rand.Reader, new(big.Int).SetUint64(1<<62))
		if err != nil {
			return nil, err
		}
		return n.Add(n, big.NewInt(1)), nil
	}
	l, err := x509.ParseRevocationList(old)
	if err != nil {
		return nil, err
	}
	return new(big.Int).Add(l.Number, big.NewInt(1)), nil
}

func revoked(der []byte, at time.Time) (x509.RevocationListEntry, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return x509.RevocationListEntry{}, err
	}
	return x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: at}, nil
}

// RevokeDevice ends a device of the user's, for good.
func (a *Accounts) RevokeDevice(user string, id jami.LongID) error {
	now := time.Now()
	err := a.store.RevokeDevice(user, id, now, func(u store.User, list []store.Device, old []byte) ([]byte, error) {
		acc, err := open(u)
		if err != nil {
			return nil, err
		}
		n, err := next(old)
		if err != nil {
			return nil, err
		}
		var entries []x509.RevocationListEntry
		for _, d := range list {
			e, err := revoked(d.Cert, d.Revoked)
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
		return acc.CRL(n, entries, now)
	})
	if err != nil {
		return err
	}
	a.tokens.drop(func(t token) bool { return t.device == id })
	a.log.Info("device revoked", zap.String("user", user), zap.Stringer("device", id))
	return nil
}

// RevokeUser ends the account of a user, for good.
func (a *Accounts) RevokeUser(name string) error {
	now := time.Now()
	err := a.store.RevokeUser(name, now, func(list []store.User, old []byte) ([]byte, error) {
		n, err := next(old)
		if err != nil {
			return nil, err
		}
		var entries []x509.RevocationListEntry
		for _, u := range list {
			e, err := revoked(u.Cert, u.Revoked)
			if err != nil {
				return nil, err
			}
			entries = append(entries, e)
		}
		return a.ca.CRL(n, entries, now)
	})
	if err != nil {
		return err
	}
	a.tokens.drop(func(t token) bool { return t.user == name })
	a.log.Info("account revoked", zap.String("user", name))
	return nil
}

// List returns a page of the accounts with their devices, for the operator.
func (a *Accounts) List(query, after string, limit int) (jams.AccountPage, error) {
	var found []store.User
	if id, err := jams.ParseDeviceID(query); err == nil {
		d, err := a.store.Device(id)
		u, there := a.store.Profile(d.User)
		switch {
		case err == nil && there:
			found = append(found, u)
		case !errors.Is(err, store.ErrNotFound):
			return jams.AccountPage{}, err
		}
	} else {
		found = a.store.Find(query)
	}
	page := jams.AccountPage{Accounts: []jams.Account{}, Total: len(found)}
	i := sort.Search(len(found), func(i int) bool { return found[i].Name > after })
	for _, u := range found[i:] {
		if len(page.Accounts) == limit {
			page.Next = page.Accounts[limit-1].Name
			break
		}
		list, err := a.store.Devices(u.Name)
		if err != nil {
			return jams.AccountPage{}, fmt.Errorf("devices of %s: %w", u.Name, err)
		}
		page.Accounts = append(page.Accounts, listed(u, list))
	}
	return page, nil
}

// listed shows devices that are not revoked first, the newest of either first.
func listed(u store.User, list []store.Device) jams.Account {
	slices.SortStableFunc(list, func(x, y store.Device) int {
		if x.Revoked.IsZero() != y.Revoked.IsZero() {
			return x.Revoked.Compare(y.Revoked)
		}
		return y.Created.Compare(x.Created)
	})
	more := max(0, len(list)-jams.MaxListed)
	l := jams.Account{Name: u.Name, DisplayName: u.DisplayName, Email: u.Email, JamiID: u.JamiID.String(), Created: u.Created, Revoked: u.Revoked,
		Devices: []jams.AccountDevice{}, MoreDevices: more}
	for _, d := range list[:len(list)-more] {
		l.Devices = append(l.Devices, jams.AccountDevice{Device: jams.Device{ID: d.ID.String(), Alias: d.Alias}, Created: d.Created, Revoked: d.Revoked})
	}
	return l
}

// KeyHash tells authorities apart.
func KeyHash(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }
