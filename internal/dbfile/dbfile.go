// Package dbfile is a bbolt file of a server: nothing that returned without an error
// is lost, and no damage of the file ends the process.
//
// bbolt maps the file and trusts it: on a damaged one it panics, faults, or writes
// over a page that is in use. So the whole structure is read before bbolt sees it
// (see verify), all that touches the mapping runs guarded, and one goroutine writes.
// What the structure can't show, bytes of a record that have changed, the records'
// own sums do: [Seal], [Sum].
package dbfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/parley-jami/parley/internal/atomicfile"
)

// What can be wrong with a file, beside what the system says.
var (
	ErrDamaged = errors.New("the file is damaged; put its copy in its place")
	ErrInUse   = errors.New("another process uses the file")
	ErrVersion = errors.New("another version of this program wrote the file")
)

const (
	// lockWait is for a server that is just ending.
	lockWait = 2 * time.Second
	lockPoll = 20 * time.Millisecond
	// batchMax bounds the writes that share a sync.
	batchMax = 1024
)

var (
	bucketAbout = []byte("about")
	keyVersion  = []byte("version")
)

// Options say what is in the file. Beside the buckets there is "about", whose key
// "version" has one byte.
type Options struct {
	Version byte
	Buckets [][]byte
	// Init fills a new file; nil is nothing.
	Init func(*bolt.Tx) error
	// Check reads every record of a file that was there before. What does not fit is
	// [ErrDamaged].
	Check func(*bolt.Tx) error
	// Mapped is address space, not memory: until the file is as large as this no write
	// waits for a backup that is under way.
	Mapped int
	// Allocated is by how much the file grows; 0 leaves it to bbolt (16 MiB).
	Allocated int
}

// File is an open file. It is safe for concurrent use.
type File struct {
	db     *bolt.DB
	file   *os.File    // bbolt's, which closes it
	size   int64       // of the file when it was opened; it only grows
	broken atomic.Bool // damage was met: bbolt's state can't be relied on

	writes  chan *write
	closing chan struct{}
	end     func() error
	wg      sync.WaitGroup
}

type write struct {
	fn   func(*bolt.Tx) error
	done chan error // capacity 1
}

// Open opens the file, or makes it whole or not at all. One that is damaged is
// refused with [ErrDamaged] and not changed, an empty one too.
func Open(path string, o Options) (*File, error) {
	f, err := open(path, &o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func open(path string, o *Options) (*File, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path, o); err != nil {
			return nil, err
		}
	}
	f := &File{writes: make(chan *write), closing: make(chan struct{})}
	err := guard(func() (err error) {
		f.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType, InitialMmapSize: o.Mapped,
			OpenFile: func(path string, flag int, _ os.FileMode) (*os.File, error) {
				f.file, f.size, err = openVerified(path, flag)
				return f.file, err
			}})
		return err
	})
	if err != nil {
		return nil, explain(err)
	}
	if o.Allocated > 0 {
		f.db.AllocSize = o.Allocated
	}
	if err := f.View(func(tx *bolt.Tx) error { return o.check(tx) }); err != nil {
		return nil, errors.Join(err, f.db.Close())
	}
	f.end = sync.OnceValue(f.close)
	f.wg.Go(f.work)
	return f, nil
}

func explain(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return ErrInUse
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	return err
}

// openVerified locks the file before it is read: somebody may be writing.
func openVerified(path string, flag int) (f *os.File, size int64, err error) {
	f, err = os.OpenFile(path, flag&^os.O_CREATE, 0)
	if err != nil {
		return nil, 0, err
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(lockPoll) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		if time.Now().After(end) {
			err = ErrInUse
			break
		}
	}
	var st os.FileInfo
	if err == nil {
		st, err = f.Stat()
	}
	if err == nil {
		err = verify(f, st.Size())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// Rewrite replaces a file that nobody has open by a copy, in which edit has changed
// values, and then done the rest. Nothing of the old values is in the new file, as it would be on pages that
// became free. The file is the old one or the new one.
func Rewrite(path string, o Options, edit func(bucket, key, value []byte) ([]byte, error), then func(*bolt.Tx) error) (err error) {
	f, err := Open(path, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(tmp, 0o600, &bolt.Options{Timeout: lockWait})
	if err != nil {
		return explain(err)
	}
	err = f.View(func(from *bolt.Tx) error {
		return db.Update(func(to *bolt.Tx) error {
			err := from.ForEach(func(name []byte, b *bolt.Bucket) error {
				c, err := to.CreateBucket(name)
				if err != nil {
					return err
				}
				err = b.ForEach(func(k, v []byte) error {
					v, err := edit(name, k, v)
					if err != nil {
						return err
					}
					return c.Put(k, v)
				})
				return errors.Join(err, c.SetSequence(b.Sequence()))
			})
			if err != nil {
				return err
			}
			return then(to)
		})
	})
	err = errors.Join(err, db.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), os.Remove(tmp))
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// create makes the file under another name first: one that has only begun would look
// like a damaged one.
func create(path string, o *Options) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(tmp, 0o600, &bolt.Options{Timeout: lockWait})
	if err != nil {
		return explain(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range append([][]byte{bucketAbout}, o.Buckets...) {
			if _, err := tx.CreateBucket(b); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketAbout).Put(keyVersion, []byte{o.Version}); err != nil || o.Init == nil {
			return err
		}
		return o.Init(tx)
	})
	err = errors.Join(err, db.Close())
	if err == nil {
		err = os.Link(tmp, path) // never over a file that is there
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil // another process was faster
	}
	if err = errors.Join(err, os.Remove(tmp)); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

func (o *Options) check(tx *bolt.Tx) error {
	about := tx.Bucket(bucketAbout)
	if about == nil {
		return fmt.Errorf("%w (it is something else)", ErrDamaged)
	}
	switch v := about.Get(keyVersion); {
	case len(v) != 1:
		return fmt.Errorf("%w (it has no version)", ErrDamaged)
	case v[0] != o.Version:
		return fmt.Errorf("%w: its version is %d, this program knows %d", ErrVersion, v[0], o.Version)
	}
	for _, b := range o.Buckets {
		if tx.Bucket(b) == nil {
			return fmt.Errorf("%w (%s is missing)", ErrDamaged, b)
		}
	}
	return o.Check(tx)
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

// whole refuses a file that was cut behind our back: at a fault in its first pages
// bbolt would keep a lock for good.
func (f *File) whole() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err == nil && st.Size < f.size {
		f.broken.Store(true)
	}
	if f.broken.Load() {
		return ErrDamaged
	}
	return nil
}

// View reads. Memory of the file, which bbolt hands out, must not be kept.
func (f *File) View(fn func(*bolt.Tx) error) error {
	if err := f.whole(); err != nil {
		return err
	}
	return guard(func() error { return f.db.View(fn) })
}

// Write runs fn in a transaction that is on disk when it returns nil. Writes that come
// while another one is synced share the next sync; when one of them fails the others
// run again without it, so fn may run several times. It runs alone.
func (f *File) Write(fn func(*bolt.Tx) error) error {
	w := &write{fn, make(chan error, 1)}
	select {
	case f.writes <- w:
		return <-w.done
	case <-f.closing:
		return berrors.ErrDatabaseNotOpen
	}
}

// work writes what comes until the file is closed.
func (f *File) work() {
	for {
		select {
		case <-f.closing:
			return
		case w := <-f.writes:
			f.commit(f.gather(w))
		}
	}
}

// gather takes what waits already.
func (f *File) gather(first *write) []*write {
	batch := []*write{first}
	for len(batch) < batchMax {
		select {
		case w := <-f.writes:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

func (f *File) commit(batch []*write) {
	for len(batch) > 0 {
		failed := -1
		err := f.whole()
		if err == nil {
			err = guard(func() error {
				return f.db.Update(func(tx *bolt.Tx) error {
					for i, w := range batch {
						if err := w.fn(tx); err != nil {
							failed = i
							return err
						}
					}
					return nil
				})
			})
		}
		if errors.Is(err, ErrDamaged) && failed < 0 {
			f.broken.Store(true)
		}
		if failed < 0 {
			for _, w := range batch {
				w.done <- err
			}
			return
		}
		batch[failed].done <- err
		batch = append(batch[:failed], batch[failed+1:]...)
	}
}

// Close waits for what is under way and closes the file.
func (f *File) Close() error { return f.end() }

func (f *File) close() error {
	close(f.closing)
	f.wg.Wait()
	if f.broken.Load() {
		return nil // bbolt may hold its own locks for good; the file's goes with the process
	}
	return guard(f.db.Close)
}

// Backup writes a copy of the whole as it is at this moment; the file at path is the
// old one or the new one. Writes go on meanwhile. The end of ctx ends it. One backup of
// a path runs at a time.
func (f *File) Backup(ctx context.Context, path string) error {
	// One name, or every process that dies here would leave a file.
	out, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	err = f.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(&writer{ctx, out})
		return err
	})
	if ctx.Err() != nil {
		err = ctx.Err() // bbolt does not wrap it
	}
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("backup: %w", err), os.Remove(out.Name()))
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
