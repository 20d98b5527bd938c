package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/identity/account"
)

// Imported is the account that [Import] made, and where what it replaced is now.
type Imported struct {
	contract.Account
	Replaced []string `json:"replaced,omitempty"`
}

// Import makes the account of the node on cfg.Data from an archive, where no process
// of the node runs: the caller holds the lock of it. Errors are those of the contract.
func Import(cfg *config.Config, file, password []byte, where account.Place) (*Imported, error) {
	data := cfg.Data
	seal, err := StorageKey(cfg)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(data, "identity")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	key, err := account.NewDeviceKey()
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	a, aside, err := (&account.Store{Root: dir, Seal: seal}).Import(file, password, key, where, time.Now())
	switch {
	case errors.Is(err, account.ErrExists):
		return nil, contract.ErrExists.With("the node on %s has an account: --beside adds this one, --replace moves the main one aside", data)
	case errors.Is(err, account.ErrPassword):
		return nil, contract.ErrForbidden.With("the password is wrong or missing, or this is no archive of an account")
	case errors.Is(err, jami.ErrArchive):
		return nil, contract.ErrBadRequest.With("%v", err)
	case err != nil:
		return nil, err
	}
	return &Imported{publicView(a), aside}, nil
}

// Files are those of identity's directory below data, by their relative paths, as they
// were at one moment. A node may run meanwhile.
func Files(data string) (map[string][]byte, error) {
	dir := filepath.Join(data, "identity")
	files, err := account.Snapshot(dir)
	if err == nil && len(files) == 0 || errors.Is(err, os.ErrNotExist) {
		return nil, contract.ErrNotFound.With("there is no account in %s", dir)
	}
	return files, err
}
