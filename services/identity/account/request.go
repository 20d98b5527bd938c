package account

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// requestPrefix starts the name of a directory with the keys of an account whose
// certificate an authority elsewhere has still to sign.
const requestPrefix = "request-"

// Files of such a directory.
const (
	fileAccountKey = "account.key"
	fileRequest    = "account.csr"
	fileSettings   = "settings.json"
)

// maxRequests bounds them. One that nobody answered for keepRequest makes place.
const (
	maxRequests = 16
	keepRequest = 90 * 24 * time.Hour
)

// Errors of accounts that an authority certifies.
var (
	ErrManyRequests = fmt.Errorf("%d requests for a certificate wait already", maxRequests)
	// ErrNotRequested says that a certificate is for a key that no request is for.
	ErrNotRequested = errors.New("no request of this node is for the key of that certificate")
)

// Request keeps the keys of a new account and returns the request for its certificate,
// PKCS #10 in PEM. The account's key is kept, not the authority's.
func (s *Store) Request(keys *Keys, set Settings, now time.Time) ([]byte, error) {
	if err := s.dropRequests(now); err != nil {
		return nil, fmt.Errorf("request a certificate: %w", err)
	}
	request, err := jami.NewAccountRequest(keys.Account)
	if err != nil {
		return nil, err
	}
	settings, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{fileRequest: request, fileSettings: settings}
	for name, k := range map[string]*rsa.PrivateKey{fileAccountKey: keys.Account, fileKey: keys.Device} {
		if files[name], err = s.packKey(k); err != nil {
			return nil, err
		}
	}
	name, err := newName()
	if err != nil {
		return nil, err
	}
	tmp := filepath.Join(s.Root, newPrefix+name)
	if err = writeAll(tmp, files); err == nil {
		err = os.Rename(tmp, filepath.Join(s.Root, requestPrefix+name))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("request a certificate: %w", err), os.RemoveAll(tmp))
	}
	return request, atomicfile.SyncDir(s.Root)
}

// requests names the directories of those that wait.
func (s *Store) requests() (dirs []string, err error) {
	entries, err := os.ReadDir(s.Root)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), requestPrefix) {
			dirs = append(dirs, filepath.Join(s.Root, e.Name()))
		}
	}
	return dirs, nil
}

// dropRequests removes those that nobody answered for long, and refuses too many.
func (s *Store) dropRequests(now time.Time) error {
	dirs, err := s.requests()
	if err != nil {
		return err
	}
	left := 0
	for _, dir := range dirs {
		st, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if now.Sub(st.ModTime()) < keepRequest {
			left++
		} else if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if left >= maxRequests {
		return ErrManyRequests
	}
	return nil
}

// Complete makes the account that a request was for, of the chain that the authority
// signed: account, then the authorities up to one that signed itself.
func (s *Store) Complete(chain []byte, now time.Time) (*Account, error) {
	certs, err := trust.Certificates(chain)
	if err != nil {
		return nil, err
	}
	if len(certs) < 2 {
		return nil, &trust.Error{Reason: trust.MissingCA, Why: "the authority's certificate has to follow the account's"}
	}
	dirs, err := s.requests()
	if err != nil {
		return nil, fmt.Errorf("complete account: %w", err)
	}
	for _, dir := range dirs {
		request, err := readFile(filepath.Join(dir, fileRequest))
		if err != nil {
			return nil, fmt.Errorf("complete account: %w", err)
		}
		if pub, err := jami.ParseRequest(request); err != nil || !pub.Equal(certs[0].PublicKey) {
			continue
		}
		archive := &jami.Archive{Account: certs[0], CA: certs[1], Above: certs[2:]}
		a, err := s.complete(dir, archive, now)
		if err != nil {
			return nil, fmt.Errorf("complete account: %w", err)
		}
		return a, errors.Join(os.RemoveAll(dir), atomicfile.SyncDir(s.Root))
	}
	return nil, ErrNotRequested
}

func (s *Store) complete(dir string, archive *jami.Archive, now time.Time) (*Account, error) {
	var set Settings
	var device *rsa.PrivateKey
	for _, f := range []struct {
		name string
		read func([]byte) error
	}{
		{fileSettings, func(b []byte) error { return json.NewDecoder(bytes.NewReader(b)).Decode(&set) }},
		{fileAccountKey, func(b []byte) (err error) { archive.AccountKey, err = s.parseKey(b); return err }},
		{fileKey, func(b []byte) (err error) { device, err = s.parseKey(b); return err }},
	} {
		path := filepath.Join(dir, f.name)
		b, err := readFile(path)
		if err == nil {
			err = f.read(b)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	var err error
	if archive.EthKey, err = jami.NewEthKey(); err != nil {
		return nil, err
	}
	archive.Settings = archiveSettings(set)
	files, err := s.device(archive, nil, device, set, now)
	if err != nil {
		return nil, err
	}
	a, _, err := s.add(files, Beside, now)
	return a, err
}
