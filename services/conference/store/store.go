// SPDX-License-Identifier: Apache-2.0

// Package store keeps rooms on disk, in one directory with mode 0700:
//
//	NAME.json   settings, with PIN and moderator token, mode 0600; on the disk before a
//	            change is acknowledged. The PIN is in clear text because SIP digest
//	            needs H(room:realm:PIN) for a realm that may change (RFC 3261 §22.4).
//	NAME.prev   the settings before the last change
//	NAME.log    the journal of the room's events, see journal.go
//	lock        held while a process uses the directory
//
// A damaged file is refused with a [DamagedError], which says how to restore it, and
// never written to; the other rooms are not touched by that.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/parley-jami/parley/services/conference/room"
)

// DamagedError says that a file is not what was written. Restore tells a person
// what to do.
type DamagedError struct {
	Path    string
	Restore string
	Err     error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged (%v); %s", e.Path, e.Err, e.Restore)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// ErrInUse says that another process has the directory.
var ErrInUse = errors.New("another process uses this directory")

// version of the settings file.
const version = 1

type settingsFile struct {
	Version int           `json:"version"`
	Room    room.Settings `json:"room"`
}

// Dir is the directory of all rooms. It is safe for concurrent use for different
// rooms.
type Dir struct {
	path string
	lock *os.File
}

// Open makes the directory and takes its lock.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("rooms %s: %w", path, ErrInUse), f.Close())
	}
	return &Dir{path: path, lock: f}, nil
}

// Close gives the lock back.
func (d *Dir) Close() error { return d.lock.Close() }

var nameRE = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// ValidName reports whether name can be a room's: 1 to 64 of a-z, 0-9 and "-".
func ValidName(name string) bool { return nameRE.MatchString(name) }

// Names returns the rooms that have settings, damaged ones too.
func (d *Dir) Names() ([]string, error) {
	es, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("rooms: %w", err)
	}
	var out []string
	for _, e := range es {
		if n, ok := strings.CutSuffix(e.Name(), ".json"); ok && ValidName(n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (d *Dir) file(name, ext string) string { return filepath.Join(d.path, name+ext) }

// Settings reads a room's settings. os.ErrNotExist: there is no such room.
func (d *Dir) Settings(name string) (room.Settings, error) {
	path := d.file(name, ".json")
	b, err := os.ReadFile(path)
	if err != nil {
		return room.Settings{}, fmt.Errorf("room: %w", err)
	}
	s, err := parseSettings(b)
	if err == nil && s.Name != name {
		err = fmt.Errorf("it is of room %q", s.Name)
	}
	if err != nil {
		return room.Settings{}, &DamagedError{Path: path, Err: err, Restore: fmt.Sprintf(
			"stop conference, then copy %s over it (the settings before the last change) or a backup, or remove it to forget the room", d.file(name, ".prev"))}
	}
	return s, nil
}

func parseSettings(b []byte) (room.Settings, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var f settingsFile
	if err := dec.Decode(&f); err != nil {
		return room.Settings{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return room.Settings{}, errors.New("something follows the settings")
	}
	switch s := f.Room; {
	case f.Version != version:
		return room.Settings{}, fmt.Errorf("version %d is not known", f.Version)
	case !ValidName(s.Name) || !s.DefaultRole.Valid() || s.Max < 0 || len(s.Token) != 32:
		return room.Settings{}, errors.New("a value is missing or out of range")
	}
	return f.Room, nil
}

// Save writes settings to the disk. The file before is kept as NAME.prev.
func (d *Dir) Save(s room.Settings) error {
	b, err := json.MarshalIndent(settingsFile{version, s}, "", "  ")
	if err != nil {
		return fmt.Errorf("room %s: %w", s.Name, err)
	}
	path, prev := d.file(s.Name, ".json"), d.file(s.Name, ".prev")
	if err := os.Remove(prev); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("room %s: %w", s.Name, err)
	}
	if err := os.Link(path, prev); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("room %s: %w", s.Name, err)
	}
	if err := writeFile(path, append(b, '\n')); err != nil {
		return fmt.Errorf("room %s: %w", s.Name, err)
	}
	return nil
}

// Adopt puts a room as another machine had it in the place of what is here.
func (d *Dir) Adopt(s room.Settings, recs [][]byte) error {
	if !ValidName(s.Name) {
		return fmt.Errorf("room %q: not a name", s.Name)
	}
	var b []byte
	for _, r := range recs {
		b = appendRecord(b, r)
	}
	if err := writeFile(d.file(s.Name, ".log"), b); err != nil {
		return fmt.Errorf("room %s: %w", s.Name, err)
	}
	return d.Save(s)
}

// Journal opens the room's journal and gives fn what is in it.
func (d *Dir) Journal(name string, fn func(rec []byte) error) (*Journal, error) {
	return openJournal(d.file(name, ".log"), fn)
}

// Remove forgets a room. The settings go first: a room without them is none.
func (d *Dir) Remove(name string) error {
	var errs []error
	for _, ext := range []string{".json", ".prev", ".log"} {
		if err := os.Remove(d.file(name, ext)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("room %s: %w", name, err))
		}
	}
	return errors.Join(append(errs, syncDir(d.path))...)
}
