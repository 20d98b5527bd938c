package account

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// fileOrder names the account directories below the root in their order, the main
// account first. What it does not name comes after, by name; what is gone is passed over:
// a process that is killed while accounts change leaves nothing that has to be mended.
const fileOrder = "accounts.json"

// MaxAccounts bounds the accounts of one node.
const MaxAccounts = 64

// Place says where a new account goes among those that are there.
type Place int

// The places of a new account.
const (
	Alone  Place = iota // there is no other
	Beside              // after the others
	Main                // in place of the main one, which is moved aside
)

// Errors of the accounts of a node.
var (
	// ErrExists says that there is an account, which another one does not replace unasked.
	ErrExists = errors.New("there is an account already")
	// ErrSame says that the account is one of the node's already.
	ErrSame = errors.New("the node has this account already")
	// ErrMany says that a node has [MaxAccounts].
	ErrMany = fmt.Errorf("a node has at most %d accounts", MaxAccounts)
)

type order struct {
	Version  int      `json:"version"`
	Accounts []string `json:"accounts"`
}

// list names the account directories below root, the main one first.
func list(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() && dirName.MatchString(e.Name()) {
			found = append(found, e.Name())
		}
	}
	if len(found) < 2 {
		return found, nil
	}
	path := filepath.Join(root, fileOrder)
	b, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return found, nil
	}
	if mayPass(err) {
		return nil, err
	}
	var o order
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		return nil, &DamagedError{Path: path, Err: err, Advice: "put it back from a backup, or move it away: the account whose directory comes first by name is the main one then"}
	}
	var out []string
	for _, name := range append(o.Accounts, found...) {
		if slices.Contains(found, name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

func writeOrder(root string, names []string) error {
	b, err := json.Marshal(order{1, names})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(root, fileOrder), append(b, '\n'), fileMode)
}

// LoadOthers loads the accounts beside the main one, in their order. damaged are those
// that cannot be used; an error is of the system, and may pass.
func (s *Store) LoadOthers() (others []*Account, damaged []error, err error) {
	found, err := list(s.Root)
	if err != nil {
		return nil, nil, fmt.Errorf("load accounts: %w", err)
	}
	for _, name := range found[min(1, len(found)):] {
		a, err := s.load(filepath.Join(s.Root, name))
		if _, bad := errors.AsType[*DamagedError](err); bad {
			damaged = append(damaged, err)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		others = append(others, a)
	}
	return others, damaged, nil
}

// add makes an account of files in the given place. Of the accounts that it replaces it
// says where they are now.
func (s *Store) add(files map[string][]byte, where Place, now time.Time) (a *Account, aside []string, err error) {
	root := s.Root
	if err := removeHalfMade(root); err != nil {
		return nil, nil, err
	}
	old, err := list(root)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case len(old) > 0 && where == Alone:
		return nil, nil, ErrExists
	case len(old) >= MaxAccounts && where != Main:
		return nil, nil, ErrMany
	}
	if err := another(root, old, files[fileChain], where); err != nil {
		return nil, nil, err
	}
	// The order is written before there is what it names: whenever this is killed, the main
	// account is the one before, or the new one where it takes its place.
	a, err = s.place(files, func(name string) error {
		switch {
		case len(old) == 0:
			return nil
		case where == Main:
			return writeOrder(root, append([]string{name}, old...))
		}
		return writeOrder(root, append(slices.Clone(old), name))
	})
	if err != nil {
		if d, ok := errors.AsType[*DamagedError](err); ok {
			err = d.Err // the path is gone, and so is what to do about it
		}
		return nil, nil, err
	}
	if where == Main && len(old) > 0 {
		to, err := moveAside(root, old[0], now)
		if err != nil {
			return nil, nil, fmt.Errorf("the account is there, and the old one cannot be moved aside: %w", err)
		}
		aside = append(aside, to)
	}
	return a, aside, nil
}

// another refuses a second device of one account. Directories whose chain cannot be read
// are no reason.
func another(root string, old []string, chain []byte, where Place) error {
	made, err := (&trust.Rules{AnyTime: true}).Parse(chain)
	if err != nil {
		return err
	}
	for i, name := range old {
		if where == Main && i == 0 {
			continue
		}
		b, err := readFile(filepath.Join(root, name, fileChain))
		if err != nil {
			continue
		}
		if certs, err := jami.ParseCerts(b); err == nil && len(certs) > 1 {
			if id, _ := jami.CertIDs(certs[1]); id == made.JamiID {
				return ErrSame
			}
		}
	}
	return nil
}

// asidePrefix starts the name of an account directory that was taken out of use.
const asidePrefix = "replaced-"

func moveAside(root, name string, now time.Time) (string, error) {
	to := filepath.Join(root, asidePrefix+name+now.UTC().Format("-20060102T150405Z"))
	if err := os.Rename(filepath.Join(root, name), to); err != nil {
		return "", err
	}
	return to, atomicfile.SyncDir(root)
}

// Retire takes an account out of use: its directory is moved aside, and named.
func (a *Account) Retire(now time.Time) (string, error) {
	a.archive.Lock()
	defer a.archive.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	to, err := moveAside(filepath.Dir(a.Dir), filepath.Base(a.Dir), now)
	if err != nil {
		return "", fmt.Errorf("retire account: %w", err)
	}
	return to, nil
}
