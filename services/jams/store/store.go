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
//	about     "version" -> 1 byte: 1; "ca" -> SHA-256 of the authority's key
//
// A check is the CRC-32C of the key and of what follows it.
package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
)

// What can be wrong.
var (
	ErrNotFound = errors.New("not there")
	ErrExists   = errors.New("it is there already")
	ErrOther    = errors.New("the device is another user's")
	ErrTooMany  = errors.New("the account has as many devices as it may have")
	ErrContacts = errors.New("the account would have more contacts than it may have")
	ErrRevoked  = errors.New("revoked")
	ErrDamaged  = errors.New("the file of accounts is damaged; put its copy in its place")
	ErrInUse    = errors.New("another process uses the file of accounts")
	ErrOtherCA  = errors.New("the accounts in the file are of another authority")
)

const (
	version = 1
	// lockWait is for a server that is just ending.
	lockWait = 2 * time.Second
	// batchDelay is how long a write waits for others to share its sync.
	batchDelay = 2 * time.Millisecond

	// MaxDevices is how many devices an account may have, revoked ones aside.
	MaxDevices = 64
	// maxRevoked bounds the revocation list of an account: a device can be enrolled
	// and revoked again and again.
	maxRevoked = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	bucketUsers    = []byte("users")
	bucketDevices  = []byte("devices")
	bucketByUser   = []byte("byuser")
	bucketContacts = []byte("contacts")
	bucketCRLs     = []byte("crls")
	bucketAbout    = []byte("about")
	keyVersion     = []byte("version")
	keyCA          = []byte("ca")
	buckets        = [][]byte{bucketUsers, bucketDevices, bucketByUser, bucketContacts, bucketCRLs, bucketAbout}
)

// User is an account.
type User struct {
	Name        string    `json:"name"`
	DisplayName string    `json:"displayName,omitempty"`
	Email       string    `json:"email,omitempty"`
	JamiID      jami.ID   `json:"-"`
	Cert        []byte    `json:"cert"` // DER
	Key         []byte    `json:"key"`  // PKCS#8
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
	db *bolt.DB
	index
}

// Open opens the file or makes it; ca is the SHA-256 of the authority's key.
func Open(path string, ca [32]byte) (*Store, error) {
	var db *bolt.DB
	err := guard(func() (err error) { // bbolt panics over some damage
		db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType})
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	case err != nil:
		return nil, fmt.Errorf("file of accounts: %w", err)
	}
	db.MaxBatchDelay = batchDelay
	s := &Store{db: db, index: newIndex()}
	if err := s.prepare(path, ca); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *Store) prepare(path string, ca [32]byte) error {
	fresh := false
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			if tx.Size() > st.Size() {
				return fmt.Errorf("%w: %s has %d of %d bytes", ErrDamaged, path, st.Size(), tx.Size())
			}
			about := tx.Bucket(bucketAbout)
			if about == nil {
				if k, _ := tx.Cursor().First(); k != nil {
					return fmt.Errorf("%w: %s is something else", ErrDamaged, path)
				}
				fresh = true
				return nil
			}
			if v := about.Get(keyVersion); len(v) != 1 || v[0] != version {
				return fmt.Errorf("%w: %s is of version %v, this program knows %d", ErrDamaged, path, v, version)
			}
			if !bytes.Equal(about.Get(keyCA), ca[:]) {
				return fmt.Errorf("%w (%s)", ErrOtherCA, path)
			}
			return s.readAll(tx)
		})
	})
	if err != nil || !fresh {
		return err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucket(b); err != nil {
				return err
			}
		}
		return errors.Join(tx.Bucket(bucketAbout).Put(keyVersion, []byte{version}), tx.Bucket(bucketAbout).Put(keyCA, ca[:]))
	})
	if err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// readAll reads every record and fills the index.
func (s *Store) readAll(tx *bolt.Tx) error {
	for _, b := range buckets {
		if tx.Bucket(b) == nil {
			return ErrDamaged
		}
	}
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
			err = fmt.Errorf("%w (device %s)", ErrDamaged, d.ID)
		}
		if err == nil {
			s.count(d)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = tx.Bucket(bucketByUser).ForEach(func(_, _ []byte) error { m++; return nil })
	if err == nil && n != m {
		err = fmt.Errorf("%w (%d devices, %d of users)", ErrDamaged, n, m)
	}
	if err != nil {
		return err
	}
	for _, b := range [][]byte{bucketContacts, bucketCRLs} {
		err := tx.Bucket(b).ForEach(func(k, v []byte) error { _, err := unseal(k, v); return err })
		if err != nil {
			return err
		}
	}
	return nil
}

// guard turns the fault of a file that was cut off behind the store's back into an
// error: its memory is the file.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return fn()
}

// Close waits for what is under way and closes the file.
func (s *Store) Close() error { return s.db.Close() }

func check(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func seal(key, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(value)), check(key, value)), value...)
}

// unseal copies: b is the file's memory.
func unseal(key, b []byte) ([]byte, error) {
	if len(b) < 4 || binary.BigEndian.Uint32(b) != check(key, b[4:]) {
		return nil, fmt.Errorf("%w (%.40q)", ErrDamaged, key)
	}
	return bytes.Clone(b[4:]), nil
}

func load(key, b []byte, v any) error {
	text, err := unseal(key, b)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w (%.40q)", ErrDamaged, key)
	}
	return nil
}

func save(b *bolt.Bucket, key []byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, seal(key, text))
}

func byUser(user string, id jami.LongID) []byte { return append([]byte(user+"\x00"), id[:]...) }

// Merge takes in contacts and returns all that the user has.
func (s *Store) Merge(user string, in jams.Contacts) (all jams.Contacts, err error) {
	var refused error
	key := []byte(user)
	fn := func(tx *bolt.Tx) error {
		refused = nil
		all = jams.Contacts{}
		b := tx.Bucket(bucketContacts)
		if have := b.Get(key); have != nil {
			text, err := unseal(key, have)
			if err != nil {
				return err
			}
			if all, err = jams.ParseContacts(text); err != nil {
				return fmt.Errorf("%w: contacts of %s", ErrDamaged, user)
			}
		}
		if len(in) == 0 {
			return nil
		}
		if all.Merge(in); len(all) > jams.MaxContacts {
			refused = ErrContacts
			return nil
		}
		return save(b, key, all)
	}
	if len(in) == 0 {
		err = guard(func() error { return s.db.View(fn) })
	} else {
		err = guard(func() error { return s.db.Batch(fn) })
	}
	if err = errors.Join(err, refused); err != nil {
		return nil, err
	}
	return all, nil
}
