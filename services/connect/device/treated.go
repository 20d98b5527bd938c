package device

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/parley-jami/parley/internal/jami"
)

// perGeneration is how many requests a file remembers; there are two.
const perGeneration = 32 << 10

// treatedKey is what is remembered of a request.
type treatedKey [16]byte

// Treated remembers the requests that were answered, over a restart too: ids are not used
// twice, so one that comes again is a repetition. The last 32,768 at least are known. It is safe for
// concurrent use.
type Treated struct {
	dir string

	mu         sync.Mutex
	now, older map[treatedKey]struct{}
	file       *os.File
}

const (
	treatedNow   = "device-requests"
	treatedOlder = "device-requests.old"
)

// OpenTreated reads what is remembered in a directory.
func OpenTreated(dir string) (*Treated, error) {
	t := &Treated{dir: dir}
	var err error
	if t.older, err = readTreated(filepath.Join(dir, treatedOlder)); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, treatedNow)
	if t.now, err = readTreated(path); err != nil {
		return nil, err
	}
	return t, t.open(path)
}

// open opens the file to append to, without the torn entry that a power cut may have left.
func (t *Treated) open(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("requests of devices: %w", err)
	}
	n, err := f.Seek(0, io.SeekEnd)
	if torn := n % int64(len(treatedKey{})); err == nil && torn > 0 {
		if err = f.Truncate(n - torn); err == nil {
			_, err = f.Seek(n-torn, io.SeekStart)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("requests of devices: %w", err), f.Close())
	}
	t.file = f
	return nil
}

func readTreated(path string) (map[treatedKey]struct{}, error) {
	out := map[treatedKey]struct{}{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("requests of devices: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, perGeneration*int64(len(treatedKey{}))))
	if err != nil {
		return nil, fmt.Errorf("requests of devices: %s: %w", path, err)
	}
	for len(b) >= len(treatedKey{}) {
		out[treatedKey(b)] = struct{}{}
		b = b[len(treatedKey{}):]
	}
	return out, nil
}

// Take remembers a request; false: it is known already. What cannot be written is
// known until the process ends.
func (t *Treated) Take(account, device jami.ID, id uint64) (bool, error) {
	h := sha256.Sum256(binary.BigEndian.AppendUint64(append(account[:], device[:]...), id))
	k := treatedKey(h[:16])
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, is := t.now[k]; is {
		return false, nil
	}
	if _, is := t.older[k]; is {
		return false, nil
	}
	t.now[k] = struct{}{}
	if t.file == nil {
		return true, nil
	}
	if _, err := t.file.Write(k[:]); err != nil {
		return true, fmt.Errorf("requests of devices: %w", err)
	}
	if len(t.now) < perGeneration {
		return true, nil
	}
	return true, t.turnLocked()
}

// turnLocked begins a new generation.
func (t *Treated) turnLocked() error {
	t.older, t.now = t.now, map[treatedKey]struct{}{}
	path := filepath.Join(t.dir, treatedNow)
	err := t.file.Close()
	t.file = nil
	if err = errors.Join(err, os.Rename(path, filepath.Join(t.dir, treatedOlder))); err != nil {
		return fmt.Errorf("requests of devices: %w", err)
	}
	return t.open(path)
}

// Close closes the file.
func (t *Treated) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}
