// Package store keeps accounts, devices, contacts and revocations in one file. What
// returned without an error is on disk.
//
// # Buckets of the file (bbolt)
//
//	users     user's name -> check 4 | JSON of the account, its key included
//	devices   long id, 32 bytes -> check 4 | JSON of the device
//	byuser    user's name | 0 | long id -> nothing: the user's devices
//	contacts  user's name -> check 4 | JSON of the contacts
//	crls      Jami Id, 20 bytes, or "ca" -> check 4 | DER
//	about     "version" -> 1 byte: 1; "ca" -> SHA-256 of the authority's key; where keys
//	          are encrypted (atrest) "salt" and "proof", which only the right key opens
//
// A check is the CRC-32C of the key and of what follows it.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/parley-jami/parley/internal/dbfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/services/jams/atrest"
)

// What can be wrong, beside the errors of [dbfile].
var (
	ErrNotFound = errors.New("not there")
	ErrOther    = errors.New("the device is another user's")
	ErrTooMany  = errors.New("the account has as many devices as it may have")
	ErrContacts = errors.New("the account would have more contacts than it may have")
	ErrRevoked  = errors.New("revoked")
	ErrOtherCA  = errors.New("the accounts in the file are of another authority")
)

const (
	version = 1

	// MaxDevices is how many devices an account may have, revoked ones aside.
	MaxDevices = 64
	// maxRevoked bounds the revocation list of an account: a device can be enrolled
	// and revoked again and again.
	maxRevoked = 4096
)

var (
	bucketUsers    = []byte("users")
	bucketDevices  = []byte("devices")
	bucketByUser   = []byte("byuser")
	bucketContacts = []byte("contacts")
	bucketCRLs     = []byte("crls")
	bucketAbout    = []byte("about")
	keyCA          = []byte("ca")
	keySalt        = []byte("salt")
	keyProof       = []byte("proof")
)

// User is an account.
type User struct {
	Name        string    `json:"name"`
	DisplayName string    `json:"displayName,omitempty"`
	Email       string    `json:"email,omitempty"`
	JamiID      jami.ID   `json:"-"`
	Cert        []byte    `json:"cert"` // DER
	Key         []byte    `json:"key"`  // PKCS#8; encrypted in the file where a box is
	Eth         string    `json:"eth"`
	Created     time.Time `json:"created"`
	Revoked     time.Time `json:"revoked,omitzero"`
}

// Device is a device of an account.
type Device struct {
	ID      jami.LongID `json:"-"`
	User    string      `json:"user"`
	Alias   string      `json:"alias"`
	Cert    []byte      `json:"cert"` // DER
	Receipt string      `json:"receipt"`
	Sig     []byte      `json:"sig"`
	Created time.Time   `json:"created"`
	Revoked time.Time   `json:"revoked,omitzero"`
}

// Store is the open file. It is safe for concurrent use.
type Store struct {
	file *dbfile.File
	box  *atrest.Box // nil: keys are in clear
	index
}

// Open opens the file or makes it. ca is the SHA-256 of the authority's key. words is
// the storage key, nil is none; a file of before the storage key stays as it is until
// [Encrypt].
func Open(path string, ca [32]byte, words []byte) (*Store, error) {
	s := &Store{index: newIndex()}
	f, err := dbfile.Open(path, s.options(ca, words))
	if err != nil {
		return nil, fmt.Errorf("file of accounts %w", err)
	}
	s.file = f
	return s, nil
}

func (s *Store) options(ca [32]byte, words []byte) dbfile.Options {
	return dbfile.Options{
		Version: version, Buckets: [][]byte{bucketUsers, bucketDevices, bucketByUser, bucketContacts, bucketCRLs},
		Init: func(tx *bolt.Tx) error {
			about := tx.Bucket(bucketAbout)
			if words != nil {
				salt := atrest.NewSalt()
				box, err := atrest.New(words, salt)
				if err := errors.Join(err, about.Put(keySalt, salt), about.Put(keyProof, box.Seal(labelProof, nil))); err != nil {
					return err
				}
			}
			return about.Put(keyCA, ca[:])
		},
		Check: func(tx *bolt.Tx) error {
			about := tx.Bucket(bucketAbout)
			if !bytes.Equal(about.Get(keyCA), ca[:]) {
				return ErrOtherCA
			}
			if salt := about.Get(keySalt); salt != nil {
				if err := s.unlock(words, salt, about.Get(keyProof)); err != nil {
					return err
				}
			}
			return s.readAll(tx)
		},
	}
}

// Labels of what is encrypted.
const (
	labelProof = "proof"
	labelUser  = "account " // and the user's name
)

func (s *Store) unlock(words, salt, proof []byte) (err error) {
	if words == nil {
		return atrest.ErrMissing
	}
	if s.box, err = atrest.New(words, salt); err != nil {
		return err
	}
	_, err = s.box.Open(labelProof, proof)
	return err
}

// Encrypted reports whether keys are encrypted in the file.
func (s *Store) Encrypted() bool { return s.box != nil }

// Encrypt encrypts the keys in a file that nobody has open and in which they are in
// clear. It does so for all or for none.
func Encrypt(path string, ca [32]byte, words []byte) error {
	salt := atrest.NewSalt()
	box, err := atrest.New(words, salt)
	if err != nil {
		return err
	}
	s := &Store{index: newIndex()}
	o := s.options(ca, words)
	err = dbfile.Rewrite(path, o, func(bucket, key, value []byte) ([]byte, error) {
		if s.Encrypted() || !bytes.Equal(bucket, bucketUsers) {
			return value, nil
		}
		u, err := decodeUser(key, value)
		if err != nil {
			return nil, err
		}
		u.Key = box.Seal(labelUser+u.Name, u.Key)
		return sealed(key, &u)
	}, func(tx *bolt.Tx) error {
		if s.Encrypted() {
			return nil
		}
		about := tx.Bucket(bucketAbout)
		return errors.Join(about.Put(keySalt, salt), about.Put(keyProof, box.Seal(labelProof, nil)))
	})
	if err != nil {
		return fmt.Errorf("file of accounts: encrypting its keys: %w", err)
	}
	return nil
}

// readAll reads every record and fills the index.
func (s *Store) readAll(tx *bolt.Tx) error {
	err := tx.Bucket(bucketUsers).ForEach(func(k, v []byte) error {
		u, err := decodeUser(k, v)
		if err == nil {
			s.put(u)
		}
		return err
	})
	if err != nil {
		return err
	}
	n, m := 0, 0
	err = tx.Bucket(bucketDevices).ForEach(func(k, v []byte) error {
		n++
		d, err := decodeDevice(k, v)
		if err == nil && tx.Bucket(bucketByUser).Get(byUser(d.User, d.ID)) == nil {
			err = fmt.Errorf("%w (device %s)", dbfile.ErrDamaged, d.ID)
		}
		if err == nil && d.Revoked.IsZero() {
			s.count(1)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = tx.Bucket(bucketByUser).ForEach(func(_, _ []byte) error { m++; return nil })
	if err == nil && n != m {
		err = fmt.Errorf("%w (%d devices, %d of users)", dbfile.ErrDamaged, n, m)
	}
	if err != nil {
		return err
	}
	for _, b := range [][]byte{bucketContacts, bucketCRLs} {
		err := tx.Bucket(b).ForEach(func(k, v []byte) error { _, err := dbfile.Unseal(k, v); return err })
		if err != nil {
			return err
		}
	}
	return nil
}

// Close waits for what is under way and closes the file.
func (s *Store) Close() error { return s.file.Close() }

func load(key, b []byte, v any) error {
	text, err := dbfile.Unseal(key, b)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w (%.40q)", dbfile.ErrDamaged, key)
	}
	return nil
}

func save(b *bolt.Bucket, key []byte, v any) error {
	value, err := sealed(key, v)
	if err != nil {
		return err
	}
	return b.Put(key, value)
}

func sealed(key []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return dbfile.Seal(key, text), nil
}

func byUser(user string, id jami.LongID) []byte { return append([]byte(user+"\x00"), id[:]...) }

// Merge takes in contacts and returns all that the user has.
func (s *Store) Merge(user string, in jams.Contacts) (all jams.Contacts, err error) {
	key := []byte(user)
	do := s.file.Write
	if len(in) == 0 {
		do = s.file.View
	}
	err = do(func(tx *bolt.Tx) error {
		all = jams.Contacts{}
		b := tx.Bucket(bucketContacts)
		if have := b.Get(key); have != nil {
			text, err := dbfile.Unseal(key, have)
			if err != nil {
				return err
			}
			if all, err = jams.ParseContacts(text); err != nil {
				return fmt.Errorf("%w: contacts of %s", dbfile.ErrDamaged, user)
			}
		}
		if len(in) == 0 {
			return nil
		}
		if all.Merge(in); len(all) > jams.MaxContacts {
			return ErrContacts
		}
		return save(b, key, all)
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}
