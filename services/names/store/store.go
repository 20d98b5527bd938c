// Package store keeps who has which name, in one file. A registration that
// returned without an error is on disk.
//
// # Buckets of the file (bbolt)
//
//	names   name -> record      its sequence counts them
//	addrs   address, 20 bytes -> name
//	about   "version" -> 1 byte: 1
//
// # A record
//
//	time 8 (unix seconds) | address 20 | length of the key 2 | key, DER | signature | check 4
//
// Numbers are big-endian. The check is the CRC-32C of the name and of what is before.
package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/parley-jami/parley/internal/dbfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
)

// What can be wrong, beside the errors of [dbfile].
var (
	ErrNotFound = errors.New("not registered")
	ErrTaken    = errors.New("another account has this name")
	ErrHasName  = errors.New("the account has another name already")
)

const (
	version    = 1
	mapped     = 1 << 30
	allocated  = 1 << 20 // few registrations pay for the file's growth
	recordHead = 8 + 20 + 2
)

var (
	bucketNames = []byte("names")
	bucketAddrs = []byte("addrs")
)

// Store is the open file. It is safe for concurrent use.
type Store struct {
	file *dbfile.File
	now  func() time.Time
}

// Open opens the file or makes it.
func Open(path string) (*Store, error) {
	f, err := dbfile.Open(path, dbfile.Options{Version: version, Buckets: [][]byte{bucketNames, bucketAddrs}, Check: checkAll, Mapped: mapped, Allocated: allocated})
	if err != nil {
		return nil, fmt.Errorf("file of names %w", err)
	}
	return &Store{file: f, now: time.Now}, nil
}

// checkAll reads every record: it is whole, and its account has just this name.
func checkAll(tx *bolt.Tx) error {
	byName, byAddr := tx.Bucket(bucketNames), tx.Bucket(bucketAddrs)
	var n, m uint64
	err := byName.ForEach(func(name, b []byte) error {
		n++
		r, ok := decode(string(name), b)
		if !ok || !bytes.Equal(byAddr.Get(r.Addr[:]), name) {
			return fmt.Errorf("%w (%s)", dbfile.ErrDamaged, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = byAddr.ForEach(func(_, _ []byte) error { m++; return nil })
	if err == nil && (n != m || n != byName.Sequence()) {
		err = fmt.Errorf("%w (%d names, %d accounts, %d registrations)", dbfile.ErrDamaged, n, m, byName.Sequence())
	}
	return err
}

// Close waits for what is under way and closes the file.
func (s *Store) Close() error { return s.file.Close() }

// ByName returns the record of a name, which is normalised.
func (s *Store) ByName(name string) (r names.Record, err error) {
	err = s.file.View(func(tx *bolt.Tx) error {
		r, err = byName(tx, name)
		return err
	})
	return r, err
}

// ByAddr returns the record of an account's name.
func (s *Store) ByAddr(addr jami.ID) (r names.Record, err error) {
	err = s.file.View(func(tx *bolt.Tx) error {
		name := tx.Bucket(bucketAddrs).Get(addr[:])
		if name == nil {
			return ErrNotFound
		}
		if r, err = byName(tx, string(name)); errors.Is(err, ErrNotFound) || err == nil && r.Addr != addr {
			err = fmt.Errorf("%w (%s)", dbfile.ErrDamaged, addr)
		}
		return err
	})
	return r, err
}

func byName(tx *bolt.Tx, name string) (names.Record, error) {
	b := tx.Bucket(bucketNames).Get([]byte(name))
	if b == nil {
		return names.Record{}, ErrNotFound
	}
	r, ok := decode(name, b)
	if !ok {
		return names.Record{}, fmt.Errorf("%w (%s)", dbfile.ErrDamaged, name)
	}
	return r, nil
}

// Register gives the account the name. The caller has verified the record. It
// returns nil, with nothing written, when the account has it already.
func (s *Store) Register(r *names.Record) error {
	value := encode(r, s.now())
	err := s.file.Write(func(tx *bolt.Tx) error {
		byName, byAddr := tx.Bucket(bucketNames), tx.Bucket(bucketAddrs)
		mine := byAddr.Get(r.Addr[:])
		switch taken := byName.Get([]byte(r.Name)); {
		case taken != nil && string(mine) == r.Name:
			return nil
		case taken != nil:
			return ErrTaken
		case mine != nil:
			return ErrHasName
		}
		if _, err := byName.NextSequence(); err != nil {
			return err
		}
		if err := byAddr.Put(r.Addr[:], []byte(r.Name)); err != nil {
			return err
		}
		return byName.Put([]byte(r.Name), value)
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", r.Name, err)
	}
	return nil
}

// Count returns how many names there are.
func (s *Store) Count() (n int) {
	err := s.file.View(func(tx *bolt.Tx) error {
		n = int(tx.Bucket(bucketNames).Sequence())
		return nil
	})
	if err != nil {
		return 0 // the file is closed or damaged: none can be found
	}
	return n
}

// Backup is [dbfile.File.Backup].
func (s *Store) Backup(ctx context.Context, path string) error { return s.file.Backup(ctx, path) }

func encode(r *names.Record, now time.Time) []byte {
	b := make([]byte, 0, recordHead+len(r.Key)+len(r.Signature)+dbfile.SumSize)
	b = binary.BigEndian.AppendUint64(b, uint64(now.Unix()))
	b = append(b, r.Addr[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Key)))
	b = append(b, r.Key...)
	b = append(b, r.Signature...)
	return binary.BigEndian.AppendUint32(b, dbfile.Sum([]byte(r.Name), b))
}

// decode copies: b is the file's memory.
func decode(name string, b []byte) (names.Record, bool) {
	if len(b) < recordHead+dbfile.SumSize {
		return names.Record{}, false
	}
	b, tail := b[:len(b)-dbfile.SumSize], b[len(b)-dbfile.SumSize:]
	if binary.BigEndian.Uint32(tail) != dbfile.Sum([]byte(name), b) {
		return names.Record{}, false
	}
	r := names.Record{Name: name, Addr: jami.ID(b[8:28])}
	n := int(binary.BigEndian.Uint16(b[28:]))
	b = b[recordHead:]
	if n == 0 || len(b) <= n {
		return names.Record{}, false
	}
	r.Key = append([]byte(nil), b[:n]...)
	r.Signature = append([]byte(nil), b[n:]...)
	return r, true
}
