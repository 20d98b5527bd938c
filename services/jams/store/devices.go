package store

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/parley-jami/parley/internal/dbfile"
	"github.com/parley-jami/parley/internal/jami"
)

func decodeDevice(key, b []byte) (Device, error) {
	var d Device
	if err := load(key, b, &d); err != nil {
		return Device{}, err
	}
	c, err := x509.ParseCertificate(d.Cert)
	if err != nil || len(key) != len(d.ID) {
		return Device{}, fmt.Errorf("%w (device %.40x)", dbfile.ErrDamaged, key)
	}
	if _, d.ID = jami.CertIDs(c); !bytes.Equal(d.ID[:], key) {
		return Device{}, fmt.Errorf("%w (device %.40x)", dbfile.ErrDamaged, key)
	}
	return d, nil
}

func getDevice(tx *bolt.Tx, id jami.LongID) (Device, error) {
	b := tx.Bucket(bucketDevices).Get(id[:])
	if b == nil {
		return Device{}, ErrNotFound
	}
	return decodeDevice(id[:], b)
}

// Device returns a device.
func (s *Store) Device(id jami.LongID) (d Device, err error) {
	err = s.file.View(func(tx *bolt.Tx) error {
		d, err = getDevice(tx, id)
		return err
	})
	return d, err
}

// AddDevice writes a device down. One that is there already is returned as it is,
// unless it is another user's or revoked.
func (s *Store) AddDevice(d Device) (have Device, err error) {
	added := false
	err = s.file.Write(func(tx *bolt.Tx) (err error) {
		added = false
		u, err := getUser(tx, d.User)
		if err != nil {
			return err
		}
		have, err = getDevice(tx, d.ID)
		switch {
		case !u.Revoked.IsZero():
			return ErrRevoked
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return err
		case have.User != d.User:
			return ErrOther
		case !have.Revoked.IsZero():
			return ErrRevoked
		default:
			return nil
		}
		active, revoked := 0, 0
		err = eachDevice(tx, d.User, func(x Device) {
			if x.Revoked.IsZero() {
				active++
			} else {
				revoked++
			}
		})
		if err != nil {
			return err
		}
		if active >= MaxDevices || revoked >= maxRevoked {
			return ErrTooMany
		}
		if err := save(tx.Bucket(bucketDevices), d.ID[:], &d); err != nil {
			return err
		}
		have, added = d, true
		return tx.Bucket(bucketByUser).Put(byUser(d.User, d.ID), []byte{1})
	})
	if err != nil {
		return Device{}, fmt.Errorf("device %s of %s: %w", d.ID, d.User, err)
	}
	if added {
		s.count(1)
	}
	return have, nil
}

func eachDevice(tx *bolt.Tx, user string, fn func(Device)) error {
	prefix := []byte(user + "\x00")
	c := tx.Bucket(bucketByUser).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		if len(k) != len(prefix)+len(jami.LongID{}) {
			return fmt.Errorf("%w (devices of %s)", dbfile.ErrDamaged, user)
		}
		d, err := getDevice(tx, jami.LongID(k[len(prefix):]))
		if err != nil {
			return fmt.Errorf("%w (devices of %s)", dbfile.ErrDamaged, user)
		}
		fn(d)
	}
	return nil
}

// Devices returns a user's devices, the revoked ones too.
func (s *Store) Devices(user string) (out []Device, err error) {
	err = s.file.View(func(tx *bolt.Tx) error {
		return eachDevice(tx, user, func(d Device) { out = append(out, d) })
	})
	return out, err
}

// RevokeDevice ends a device of the user. sign makes the account's list of all
// devices that are revoked then. What is no device of the user's is [ErrNotFound],
// whoever's it is; one that is revoked already is left as it is.
func (s *Store) RevokeDevice(user string, id jami.LongID, at time.Time, sign func(u User, revoked []Device, old []byte) ([]byte, error)) error {
	done := false
	err := s.file.Write(func(tx *bolt.Tx) error {
		done = false
		d, err := getDevice(tx, id)
		if err == nil && d.User != user {
			err = ErrNotFound
		}
		if err != nil || !d.Revoked.IsZero() {
			return err
		}
		u, err := getUser(tx, user)
		if err == nil {
			u, err = s.opened(u)
		}
		if err != nil {
			return err
		}
		d.Revoked = at.UTC().Truncate(time.Second)
		if err := save(tx.Bucket(bucketDevices), id[:], &d); err != nil {
			return err
		}
		var revoked []Device
		err = eachDevice(tx, user, func(d Device) {
			if !d.Revoked.IsZero() {
				revoked = append(revoked, d)
			}
		})
		if err != nil {
			return err
		}
		done = true
		return putCRL(tx, u.JamiID[:], func(old []byte) ([]byte, error) { return sign(u, revoked, old) })
	})
	if err != nil {
		return fmt.Errorf("revoke device %s of %s: %w", id, user, err)
	}
	if done {
		s.count(-1)
	}
	return nil
}
