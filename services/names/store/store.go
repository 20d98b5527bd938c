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
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
)

// What can be wrong.
var (
	ErrNotFound = errors.New("not registered")
	ErrTaken    = errors.New("another account has this name")
	ErrHasName  = errors.New("the account has another name already")
	ErrDamaged  = errors.New("the file of names is damaged; put its backup in its place")
	ErrInUse    = errors.New("another process uses the file of names")
)

const (
	version = 1
	// lockWait is for a server that is just ending.
	lockWait = 2 * time.Second
	// batchDelay is how long a registration waits for others to share its sync.
	batchDelay = 2 * time.Millisecond
	// mapped is address space, not memory: until the file is as large as this a
	// registration never waits for a backup that is under way.
	mapped = 1 << 30
	// allocated is by how much the file grows, so that few registrations pay for that.
	allocated = 1 << 20

	recordHead = 8 + 20 + 2
	recordTail = crc32.Size
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	bucketNames = []byte("names")
	bucketAddrs = []byte("addrs")
	bucketAbout = []byte("about")
	keyVersion  = []byte("version")
)

// Store is the open file. It is safe for concurrent use.
type Store struct {
	db  *bolt.DB
	now func() time.Time
}

// Open opens the file or makes it.
func Open(path string) (*Store, error) {
	db, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := &Store{db: db, now: time.Now}
	if err := s.prepare(path); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	return s, nil
}

// guard turns what bbolt does with a damaged file, a panic or a fault in mapped
// memory, into an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", ErrDamaged, p)
		}
	}()
	return fn()
}

// open leaves the file locked until the process ends if bbolt panics.
func open(path string) (db *bolt.DB, err error) {
	err = guard(func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType, InitialMmapSize: mapped})
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, ErrInUse
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w (%w)", ErrDamaged, err)
	case err != nil:
		return nil, err
	}
	db.MaxBatchDelay = batchDelay
	db.AllocSize = allocated
	return db, nil
}

// prepare checks the whole file, or makes the buckets of a new one.
func (s *Store) prepare(path string) error {
	fresh := false
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			if tx.Size() > st.Size() {
				return fmt.Errorf("%w (%d of %d bytes)", ErrDamaged, st.Size(), tx.Size())
			}
			about := tx.Bucket(bucketAbout)
			if fresh = about == nil; fresh {
				return nil
			}
			if v := about.Get(keyVersion); len(v) != 1 || v[0] != version {
				return fmt.Errorf("the file is of version %d; this program knows version %d", v, version)
			}
			return checkAll(tx)
		})
	})
	if err != nil || !fresh {
		return err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketNames, bucketAddrs, bucketAbout} {
			if _, err := tx.CreateBucket(b); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketAbout).Put(keyVersion, []byte{version})
	})
	if err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// checkAll reads every record: it is whole, and its account has just this name.
func checkAll(tx *bolt.Tx) error {
	byName, byAddr := tx.Bucket(bucketNames), tx.Bucket(bucketAddrs)
	if byName == nil || byAddr == nil {
		return ErrDamaged
	}
	var n, m uint64
	err := byName.ForEach(func(name, b []byte) error {
		n++
		r, ok := decode(string(name), b)
		if !ok || !bytes.Equal(byAddr.Get(r.Addr[:]), name) {
			return fmt.Errorf("%w (%s)", ErrDamaged, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = byAddr.ForEach(func(_, _ []byte) error { m++; return nil })
	if err == nil && (n != m || n != byName.Sequence()) {
		err = fmt.Errorf("%w (%d names, %d accounts, %d registrations)", ErrDamaged, n, m, byName.Sequence())
	}
	return err
}

// Close waits for what is under way and closes the file.
func (s *Store) Close() error { return s.db.Close() }

// ByName returns the record of a name, which is normalised.
func (s *Store) ByName(name string) (r names.Record, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			r, err = byName(tx, name)
			return err
		})
	})
	return r, err
}

// ByAddr returns the record of an account's name.
func (s *Store) ByAddr(addr jami.ID) (r names.Record, err error) {
	err = guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			name := tx.Bucket(bucketAddrs).Get(addr[:])
			if name == nil {
				return ErrNotFound
			}
			if r, err = byName(tx, string(name)); errors.Is(err, ErrNotFound) || err == nil && r.Addr != addr {
				err = fmt.Errorf("%w (%s)", ErrDamaged, addr)
			}
			return err
		})
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
		return names.Record{}, fmt.Errorf("%w (%s)", ErrDamaged, name)
	}
	return r, nil
}

// Register gives the account the name. The caller has verified the record. It
// returns nil, with nothing written, when the account has it already.
func (s *Store) Register(r *names.Record) error {
	value := encode(r, s.now())
	var refused error
	// What is refused ends no batch: others in it are not to be tried again.
	err := s.db.Batch(func(tx *bolt.Tx) error {
		refused = nil
		byName, byAddr := tx.Bucket(bucketNames), tx.Bucket(bucketAddrs)
		mine := byAddr.Get(r.Addr[:])
		switch taken := byName.Get([]byte(r.Name)); {
		case taken != nil && string(mine) == r.Name:
			return nil
		case taken != nil:
			refused = ErrTaken
			return nil
		case mine != nil:
			refused = ErrHasName
			return nil
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
	return refused
}

// Count returns how many names there are.
func (s *Store) Count() (n int) {
	err := s.db.View(func(tx *bolt.Tx) error {
		n = int(tx.Bucket(bucketNames).Sequence())
		return nil
	})
	if err != nil {
		return 0 // the file is closed: none can be found
	}
	return n
}

// Backup writes a copy of the whole as it is at this moment; the file at path is
// the old one or the new one. Registrations go on meanwhile. The end of ctx ends it.
// One backup of a path runs at a time.
func (s *Store) Backup(ctx context.Context, path string) error {
	// One name, or every process that dies here would leave a file.
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(&writer{ctx, f})
		return err
	})
	if ctx.Err() != nil {
		err = ctx.Err() // bbolt does not wrap it
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("backup: %w", err), os.Remove(f.Name()))
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// writer refuses to go on after the end of ctx.
type writer struct {
	ctx context.Context
	w   io.Writer
}

func (w *writer) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(b)
}

func encode(r *names.Record, now time.Time) []byte {
	b := make([]byte, 0, recordHead+len(r.Key)+len(r.Signature)+recordTail)
	b = binary.BigEndian.AppendUint64(b, uint64(now.Unix()))
	b = append(b, r.Addr[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Key)))
	b = append(b, r.Key...)
	b = append(b, r.Signature...)
	return binary.BigEndian.AppendUint32(b, check(r.Name, b))
}

func check(name string, b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(name), castagnoli), castagnoli, b)
}

// decode copies: b is the file's memory.
func decode(name string, b []byte) (names.Record, bool) {
	if len(b) < recordHead+recordTail {
		return names.Record{}, false
	}
	b, tail := b[:len(b)-recordTail], b[len(b)-recordTail:]
	if binary.BigEndian.Uint32(tail) != check(name, b) {
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
