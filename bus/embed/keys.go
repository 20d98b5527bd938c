package embed

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nkeys"
)

// keyFile is DATA/bus/keys/keys.json: the seeds of all that this bus signs for.
// Losing it loses the streams' account and every bot, so it is never written over
// when it does not parse.
type keyFile struct {
	Version  int               `json:"version"` // 1
	Operator string            `json:"operator"`
	System   string            `json:"system"`
	Node     string            `json:"node"`
	Workers  string            `json:"workers"` // signs the users of media workers
	Callers  string            `json:"callers"` // of those that take calls, too
	Standby  string            `json:"standby"` // signs those of conferences on other machines
	CA       string            `json:"ca"`      // PEM, key and certificate: signs what the bus shows for TLS
	Users    map[string]string `json:"users"`   // by process
	Signers  map[string]string `json:"signers"` // by process: sign its user in a NATS of another operator
}

// keys are the key pairs of that file.
type keys struct {
	operator, system, node nkeys.KeyPair
	guests                 map[string]nkeys.KeyPair // signers of who is on another machine, by role
	users                  map[string]nkeys.KeyPair
	signers                map[string]nkeys.KeyPair
	ca                     *authority
	// foreign: the servers are not Parley's, and operator is a key that they trust.
	foreign bool
}

const keyFileVersion = 1

// loadKeys reads the keys of the bus directory, or makes them at the first start.
// A process that a newer version added gets a key of its own.
func loadKeys(dir string, users []string) (*keys, error) {
	kd := filepath.Join(dir, "keys")
	if err := os.MkdirAll(kd, 0o700); err != nil {
		return nil, fmt.Errorf("bus keys: %w", err)
	}
	path := filepath.Join(kd, "keys.json")
	raw, err := os.ReadFile(path)
	first := errors.Is(err, os.ErrNotExist)
	switch {
	case first:
		for _, state := range []string{"accounts", "jetstream"} {
			if ents, err := os.ReadDir(filepath.Join(dir, state)); err == nil && len(ents) > 0 {
				return nil, fmt.Errorf("%s is missing but %s is not empty: restore the file from a backup, or move %s away to begin anew (rooms' past events and all bots are then lost)",
					path, filepath.Join(dir, state), dir)
			}
		}
	case err != nil:
		return nil, fmt.Errorf("bus keys: %w", err)
	}
	var f keyFile
	changed := first
	if first {
		if f, err = newKeyFile(); err != nil {
			return nil, err
		}
	} else if err := json.Unmarshal(raw, &f); err != nil {
		return nil, damagedKeys(path, err)
	}
	if f.Version != keyFileVersion {
		return nil, fmt.Errorf("%s has version %d, this program knows %d: use the version that wrote it", path, f.Version, keyFileVersion)
	}
	for _, s := range []*string{&f.Workers, &f.Callers, &f.Standby} {
		if *s != "" {
			continue
		}
		if *s, err = newSeed(nkeys.PrefixByteAccount); err != nil { // the file is of a former version
			return nil, err
		}
		changed = true
	}
	if f.CA == "" {
		if f.CA, err = newAuthority(time.Now()); err != nil {
			return nil, err
		}
		changed = true
	}
	for _, by := range []struct {
		seeds  *map[string]string
		prefix nkeys.PrefixByte
	}{{&f.Users, nkeys.PrefixByteUser}, {&f.Signers, nkeys.PrefixByteAccount}} {
		for _, u := range users {
			if (*by.seeds)[u] != "" {
				continue
			}
			if *by.seeds == nil {
				*by.seeds = map[string]string{}
			}
			if (*by.seeds)[u], err = newSeed(by.prefix); err != nil {
				return nil, err
			}
			changed = true
		}
	}
	k, err := f.pairs()
	if err != nil {
		return nil, damagedKeys(path, err)
	}
	if changed {
		out, err := json.MarshalIndent(f, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("bus keys: %w", err)
		}
		if err := writeFile(path, out); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func damagedKeys(path string, err error) error {
	return fmt.Errorf("%s is damaged (%w): restore it from a backup; without one move the directories bus and creds of the data directory away and make the bots again", path, err)
}

func newKeyFile() (keyFile, error) {
	f := keyFile{Version: keyFileVersion, Users: map[string]string{}}
	var err error
	for _, s := range []struct {
		to     *string
		prefix nkeys.PrefixByte
	}{{&f.Operator, nkeys.PrefixByteOperator}, {&f.System, nkeys.PrefixByteAccount}, {&f.Node, nkeys.PrefixByteAccount}} {
		if *s.to, err = newSeed(s.prefix); err != nil {
			return f, err
		}
	}
	return f, nil
}

func newSeed(prefix nkeys.PrefixByte) (string, error) {
	kp, err := nkeys.CreatePair(prefix)
	if err != nil {
		return "", fmt.Errorf("new key: %w", err)
	}
	seed, err := kp.Seed()
	if err != nil {
		return "", fmt.Errorf("new key: %w", err)
	}
	return string(seed), nil
}

func (f *keyFile) pairs() (*keys, error) {
	k := &keys{users: map[string]nkeys.KeyPair{}, signers: map[string]nkeys.KeyPair{}, guests: map[string]nkeys.KeyPair{}}
	var err error
	if k.operator, err = pair("operator", f.Operator, nkeys.PrefixByteOperator); err != nil {
		return nil, err
	}
	if k.system, err = pair("system", f.System, nkeys.PrefixByteAccount); err != nil {
		return nil, err
	}
	if k.node, err = pair("node", f.Node, nkeys.PrefixByteAccount); err != nil {
		return nil, err
	}
	for service, seed := range map[string]string{"media": f.Workers, "calls": f.Callers, "conference": f.Standby} {
		if k.guests[service], err = pair(service, seed, nkeys.PrefixByteAccount); err != nil {
			return nil, err
		}
	}
	if k.ca, err = parseAuthority(f.CA); err != nil {
		return nil, err
	}
	for name, seed := range f.Users {
		if k.users[name], err = pair("user "+name, seed, nkeys.PrefixByteUser); err != nil {
			return nil, err
		}
	}
	for name, seed := range f.Signers {
		if k.signers[name], err = pair("signer of "+name, seed, nkeys.PrefixByteAccount); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// pair parses a seed, which has a checksum of its own, and checks its type.
func pair(what, seed string, want nkeys.PrefixByte) (nkeys.KeyPair, error) {
	prefix, _, err := nkeys.DecodeSeed([]byte(seed))
	if err != nil {
		return nil, fmt.Errorf("seed of %s: %w", what, err)
	}
	if prefix != want {
		return nil, fmt.Errorf("seed of %s is of another type of key", what)
	}
	return nkeys.FromSeed([]byte(seed))
}
