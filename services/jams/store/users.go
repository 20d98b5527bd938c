package store

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/parley-jami/parley/internal/dbfile"
	"github.com/parley-jami/parley/internal/jami"
)

// index is what is asked all the time, in memory.
type index struct {
	mu      *sync.RWMutex
	profile map[string]User // without keys
	devices int             // that are not revoked
	changes int64
}

func newIndex() index {
	// It begins with the time, so that it is another after a restart.
	return index{mu: &sync.RWMutex{}, profile: map[string]User{}, changes: time.Now().UnixMicro()}
}

func (x *index) put(u User) {
	x.mu.Lock()
	defer x.mu.Unlock()
	u.Key = nil
	x.profile[u.Name] = u
	x.changes++
}

// count takes a device in, or out when it is revoked: n is 1 or -1.
func (x *index) count(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.devices += n
	x.changes++
}

// Changes is another number after every change of an account or a device. It is
// below 2^53.
func (x *index) Changes() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.changes
}

// Counts returns how many accounts and devices there are, without those revoked.
func (x *index) Counts() (accounts, devices int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, u := range x.profile {
		if u.Revoked.IsZero() {
			accounts++
		}
	}
	return accounts, x.devices
}

// Profile returns an account without its key.
func (x *index) Profile(name string) (User, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	u, ok := x.profile[name]
	return u, ok
}

// Users returns all accounts by name, without their keys.
func (x *index) Users() []User {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]User, 0, len(x.profile))
	for _, u := range x.profile {
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b User) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Find returns all accounts by name whose name, shown name or address has the text,
// or whose Jami Id begins with it.
func (x *index) Find(text string) []User {
	text = strings.ToLower(text)
	return slices.DeleteFunc(x.Users(), func(u User) bool { return !u.has(text) && !strings.HasPrefix(u.JamiID.String(), text) })
}

func (u *User) has(text string) bool {
	return strings.Contains(u.Name, text) || strings.Contains(strings.ToLower(u.DisplayName), text) || strings.Contains(strings.ToLower(u.Email), text)
}

// Search returns at most limit accounts that are not revoked and whose name, shown
// name or address has the text.
func (x *index) Search(text string, limit int) []User {
	text = strings.ToLower(text)
	found := slices.DeleteFunc(x.Users(), func(u User) bool { return !u.Revoked.IsZero() || !u.has(text) })
	return found[:min(limit, len(found))]
}

func decodeUser(key, b []byte) (User, error) {
	var u User
	if err := load(key, b, &u); err != nil {
		return User{}, err
	}
	c, err := x509.ParseCertificate(u.Cert)
	if err != nil || u.Name != string(key) {
		return User{}, fmt.Errorf("%w (user %.40q)", dbfile.ErrDamaged, key)
	}
	u.JamiID, _ = jami.CertIDs(c)
	return u, nil
}

// User returns an account with its key.
func (s *Store) User(name string) (u User, err error) {
	err = s.file.View(func(tx *bolt.Tx) error {
		u, err = getUser(tx, name)
		return err
	})
	if err != nil {
		return User{}, err
	}
	return s.opened(u)
}

// opened returns the account with its key decrypted.
func (s *Store) opened(u User) (User, error) {
	key, err := s.box.Open(labelUser+u.Name, u.Key)
	if err != nil {
		return User{}, fmt.Errorf("%w: the key of %s", dbfile.ErrDamaged, u.Name)
	}
	u.Key = key
	return u, nil
}

func getUser(tx *bolt.Tx, name string) (User, error) {
	b := tx.Bucket(bucketUsers).Get([]byte(name))
	if b == nil {
		return User{}, ErrNotFound
	}
	return decodeUser([]byte(name), b)
}

// AddUser writes an account down unless the user has one. It returns the one that
// the user has then.
func (s *Store) AddUser(u User) (User, error) {
	var have User
	u.Key = s.box.Seal(labelUser+u.Name, u.Key)
	err := s.file.Write(func(tx *bolt.Tx) (err error) {
		if have, err = getUser(tx, u.Name); !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := save(tx.Bucket(bucketUsers), []byte(u.Name), &u); err != nil {
			return err
		}
		have, err = getUser(tx, u.Name)
		return err
	})
	if err != nil {
		return User{}, fmt.Errorf("account of %s: %w", u.Name, err)
	}
	s.put(have)
	return s.opened(have)
}

// SetProfile keeps how a user is shown.
func (s *Store) SetProfile(name, display, email string) error {
	if u, ok := s.Profile(name); ok && u.DisplayName == display && u.Email == email {
		return nil
	}
	var have User
	err := s.file.Write(func(tx *bolt.Tx) (err error) {
		if have, err = getUser(tx, name); err != nil {
			return err
		}
		have.DisplayName, have.Email = display, email
		return save(tx.Bucket(bucketUsers), []byte(name), &have)
	})
	if err == nil {
		s.put(have)
	}
	return err
}

// RevokeUser ends an account. sign makes the authority's list of all accounts that
// are revoked then. An account that is revoked already is left as it is.
func (s *Store) RevokeUser(name string, at time.Time, sign func(revoked []User, old []byte) ([]byte, error)) error {
	var have User
	err := s.file.Write(func(tx *bolt.Tx) (err error) {
		users := tx.Bucket(bucketUsers)
		if have, err = getUser(tx, name); err != nil || !have.Revoked.IsZero() {
			return err
		}
		have.Revoked = at.UTC().Truncate(time.Second)
		if err := save(users, []byte(name), &have); err != nil {
			return err
		}
		var revoked []User
		err = users.ForEach(func(k, v []byte) error {
			u, err := decodeUser(k, v)
			if err == nil && !u.Revoked.IsZero() {
				revoked = append(revoked, u)
			}
			return err
		})
		if err != nil {
			return err
		}
		return putCRL(tx, keyCA, func(old []byte) ([]byte, error) { return sign(revoked, old) })
	})
	if err != nil {
		return fmt.Errorf("revoke %s: %w", name, err)
	}
	s.put(have)
	return nil
}

func putCRL(tx *bolt.Tx, key []byte, sign func(old []byte) ([]byte, error)) error {
	b := tx.Bucket(bucketCRLs)
	var old []byte
	if v := b.Get(key); v != nil {
		var err error
		if old, err = dbfile.Unseal(key, v); err != nil {
			return err
		}
	}
	der, err := sign(old)
	if err != nil {
		return err
	}
	return b.Put(key, dbfile.Seal(key, der))
}

// CRL returns the list of an account's revoked devices.
func (s *Store) CRL(account jami.ID) ([]byte, error) { return s.crl(account[:]) }

// CACRL returns the list of revoked accounts.
func (s *Store) CACRL() ([]byte, error) { return s.crl(keyCA) }

func (s *Store) crl(key []byte) (der []byte, err error) {
	err = s.file.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketCRLs).Get(key)
		if v == nil {
			return ErrNotFound
		}
		der, err = dbfile.Unseal(key, v)
		return err
	})
	return der, err
}
