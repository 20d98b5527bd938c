// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// A journal is a text file of records, one a line:
//
//	| field   | width        | meaning                                     |
//	|---------|--------------|---------------------------------------------|
//	| sum     | 8 hex digits | CRC-32C (Castagnoli) of the record           |
//	| blank   | 1            |                                             |
//	| record  | to the LF    | JSON without line breaks                    |
//
// A write of one record is one write(2): it is in the page cache, and so outlives
// this process, when Append returns; Sync makes it outlive the machine. A last
// line without LF was being written when the machine stopped and is cut off;
// anything else that does not check is damage.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumLen is the checksum and the blank before a record.
const sumLen = 9

// appendRecord appends the line of rec to b.
func appendRecord(b, rec []byte) []byte {
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(rec, castagnoli))
	b = append(b, rec...)
	return append(b, '\n')
}

// parseJournal calls fn for each record and returns how many bytes are whole
// lines. The error says in which line the damage is.
func parseJournal(data []byte, fn func(rec []byte) error) (whole int64, err error) {
	for line := 1; len(data) > 0; line++ {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return whole, nil
		}
		rec, err := checkLine(data[:i])
		if err == nil {
			err = fn(rec)
		}
		if err != nil {
			return whole, fmt.Errorf("line %d: %w", line, err)
		}
		whole += int64(i) + 1
		data = data[i+1:]
	}
	return whole, nil
}

func checkLine(l []byte) ([]byte, error) {
	if len(l) < sumLen || l[sumLen-1] != ' ' {
		return nil, errors.New("no checksum")
	}
	want, err := strconv.ParseUint(string(l[:sumLen-1]), 16, 32)
	if err != nil {
		return nil, errors.New("no checksum")
	}
	if rec := l[sumLen:]; uint64(crc32.Checksum(rec, castagnoli)) == want {
		return rec, nil
	}
	return nil, errors.New("the checksum does not fit")
}

// Journal is an append-only file. Append and Rewrite belong to one goroutine; Sync
// may be called from any.
type Journal struct {
	path string

	mu      sync.Mutex // guards f, size and broken
	f       *os.File
	size    int64
	broken  error // the last write failed and the tail could not be cut off
	written uint64

	syncMu sync.Mutex // one fsync at a time; those who wait share the next
	synced uint64
	buf    []byte
}

// openJournal opens or makes the file at path and gives its records to fn.
func openJournal(path string, fn func(rec []byte) error) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	data, err := io.ReadAll(f)
	if err == nil {
		var whole int64
		whole, err = parseJournal(data, fn)
		switch {
		case err != nil:
			err = &DamagedError{Path: path, Err: err,
				Restore: "stop conference, move the file away and start again: the room's settings stay, its roster begins empty"}
		case whole < int64(len(data)):
			err = f.Truncate(whole)
			fallthrough
		default:
			if err == nil {
				return &Journal{path: path, f: f, size: whole}, nil
			}
		}
	}
	return nil, errors.Join(err, f.Close())
}

// Append writes records and returns their mark for Sync. After an error nothing
// of them is in the file.
func (j *Journal) Append(recs ...[]byte) (mark uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return 0, j.broken
	}
	j.buf = j.buf[:0]
	for _, r := range recs {
		j.buf = appendRecord(j.buf, r)
	}
	if n, err := j.f.Write(j.buf); err != nil {
		err = fmt.Errorf("journal: %w", err)
		if n > 0 {
			if terr := j.f.Truncate(j.size); terr != nil {
				j.broken = errors.Join(err, terr)
			}
		}
		return 0, err
	}
	j.size += int64(len(j.buf))
	j.written++
	return j.written, nil
}

// Size returns the length of the file in bytes.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size
}

// Sync returns when everything up to mark is on the disk. Those who call at once
// share one fsync.
func (j *Journal) Sync(mark uint64) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	if j.synced >= mark {
		return nil
	}
	j.mu.Lock()
	f, upTo := j.f, j.written
	j.mu.Unlock()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.synced = upTo
	return nil
}

// Rewrite puts recs in the place of all that was there, at once or not at all,
// and on the disk. It also mends a journal whose last write failed.
func (j *Journal) Rewrite(recs ...[]byte) error {
	j.syncMu.Lock() // nobody syncs the old file meanwhile
	defer j.syncMu.Unlock()
	var b []byte
	for _, r := range recs {
		b = appendRecord(b, r)
	}
	if err := writeFile(j.path, b); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.mu.Lock()
	old := j.f
	j.f, j.size, j.broken = f, int64(len(b)), nil
	j.written++
	j.synced = j.written
	j.mu.Unlock()
	return old.Close()
}

// Close closes the file.
func (j *Journal) Close() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.broken = os.ErrClosed
	return j.f.Close()
}

// writeFile replaces path by data, mode 0600, so that a crash leaves the old or
// the new.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	if derr := syncDir(filepath.Dir(path)); derr != nil {
		return fmt.Errorf("%s: %w", path, derr)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
