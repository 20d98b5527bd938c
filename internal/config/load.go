package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/knadh/koanf/v2"
)

// EnvFile names the file where no flag does.
const EnvFile = EnvPrefix + "CONFIG"

// Variables with secrets: the storage key of the account server and of identity, and what
// signs credentials for relays. They are no settings, which are shown and logged.
const (
	EnvStorageKey         = EnvPrefix + "JAMS_STORAGE_KEY"
	EnvIdentityStorageKey = EnvPrefix + "IDENTITY_STORAGE_KEY"
	EnvTURNSecret         = EnvPrefix + "TURN_SECRET"
)

// maxFile bounds what is read as configuration.
const maxFile = 1 << 20

// Sources are where values come from. The zero value is the defaults alone.
type Sources struct {
	File  string            // YAML; empty: none
	Env   []string          // "NAME=value", as os.Environ gives it
	Flags map[string]string // by key; only those that were given
}

// Load merges the sources and checks every value. An error is an *[Error] where
// a key is at fault; of several mistakes the first in rising order of source and
// line is told.
func Load(s Sources) (*Config, error) {
	m := newMerged()
	return m.finish(m.load(s))
}

func (m *merged) load(s Sources) error {
	if err := m.defaults(s.Env); err != nil {
		return err
	}
	if s.File != "" {
		if err := m.file(s.File); err != nil {
			return err
		}
	}
	if err := m.env(s.Env); err != nil {
		return err
	}
	return m.flags(s.Flags)
}

// finish makes the configuration of the layers, unless loading them failed.
func (m *merged) finish(err error) (*Config, error) {
	if err != nil {
		return nil, err
	}
	c := new(Config)
	if err := m.k.Unmarshal("", c); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	key, why := together(c)
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if len(c.Data) > maxData {
		key, why = "data", checks["path"].words
	}
	if key != "" {
		e := m.from[key]
		e.Key, e.Why = key, why
		return nil, &e
	}
	return c, nil
}

// merged collects the layers and remembers where each key was set last.
type merged struct {
	k    *koanf.Koanf
	from map[string]Error
}

func newMerged() *merged { return &merged{k: koanf.New("."), from: map[string]Error{}} }

// set puts one value on top; at says where it stands.
func (m *merged) set(f Field, v any, at Error) error {
	m.from[f.Key] = at
	if err := m.k.Set(f.Key, v); err != nil {
		return fmt.Errorf("configuration: %s: %w", f.Key, err)
	}
	return nil
}

func (m *merged) setText(f Field, text string, at Error) error {
	v, err := f.parse(text)
	if err != nil {
		at.Key, at.Why = f.Key, err.Error()
		return &at
	}
	return m.set(f, v, at)
}

func (m *merged) defaults(env []string) error {
	for _, f := range fields {
		text := f.Default
		if f.Key == "data" {
			text = DefaultData(env)
		}
		if err := m.setText(f, text, Error{Source: "default"}); err != nil {
			return err
		}
	}
	return nil
}

func (m *merged) file(path string) error {
	text, err := readFile(path)
	if err != nil {
		return err
	}
	return m.yaml(path, text)
}

func (m *merged) env(env []string) error {
	given := map[string]string{}
	for _, kv := range env {
		if name, value, ok := strings.Cut(kv, "="); ok && strings.HasPrefix(name, EnvPrefix) {
			given[name] = value
		}
	}
	for _, f := range fields {
		value, ok := given[f.Env]
		delete(given, f.Env)
		if !ok {
			continue
		}
		if err := m.setText(f, value, Error{Source: "environment variable " + f.Env}); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if meant := misspelt(name); meant != "" {
			return &Error{Source: "environment variable " + name, Why: "there is no such setting; did you mean " + meant + "?"}
		}
	}
	return nil
}

// misspelt returns what an unknown variable was meant for, or "" when it is none
// of ours: other programs may use the prefix (Kubernetes makes PARLEY_PORT and
// PARLEY_SERVICE_HOST for a service called parley).
func misspelt(name string) string {
	if name == EnvStorageKey || name == EnvIdentityStorageKey || name == EnvTURNSecret {
		return ""
	}
	best, dist := "", 3
	for _, f := range fields {
		if d := distance(name, f.Env); d < dist && name != EnvFile {
			best, dist = f.Env, d
		}
	}
	if best != "" {
		return best
	}
	for _, f := range fields {
		if f.section != "" && strings.HasPrefix(name, EnvPrefix+strings.ToUpper(f.section)+"_") {
			return f.Env
		}
	}
	return ""
}

func (m *merged) flags(flags map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		f, ok := lookup(key)
		at := Error{Source: "flag --" + key}
		if !ok {
			at.Why = unknown(key)
			return &at
		}
		if err := m.setText(f, flags[key], at); err != nil {
			return err
		}
	}
	return nil
}

// DefaultData is where the node lives when nobody says: PARLEY_DATA is looked at
// by [Load] itself; for root /var/lib/parley, else below $XDG_DATA_HOME.
func DefaultData(env []string) string {
	vars := map[string]string{}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	switch {
	case os.Geteuid() == 0:
		return "/var/lib/parley"
	case filepath.IsAbs(vars["XDG_DATA_HOME"]): // the XDG specification says to ignore relative ones
		return filepath.Join(vars["XDG_DATA_HOME"], "parley")
	case vars["HOME"] != "":
		return filepath.Join(vars["HOME"], ".local", "share", "parley")
	}
	return "parley-data"
}

// Environ returns the whole configuration as environment variables, so that a
// child has what its parent has, whatever happens to the file meanwhile.
func (c *Config) Environ() []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.Env + "=" + f.format(c)
	}
	return out
}

// Values returns every key with its value: string, []string, int or bool.
func (c *Config) Values() map[string]any {
	out := make(map[string]any, len(fields))
	for _, f := range fields {
		out[f.Key] = reflect.ValueOf(c).Elem().FieldByIndex(f.index).Interface()
	}
	return out
}

func readFile(path string) ([]byte, error) {
	cannot := func(err error) error { // the path is said once
		if e, ok := errors.AsType[*os.PathError](err); ok {
			err = e.Err
		}
		return &Error{Source: path, Why: "this configuration file cannot be read: " + err.Error()}
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, cannot(err)
	}
	if st.Size() > maxFile {
		return nil, &Error{Source: path, Why: fmt.Sprintf("larger than %d bytes; this is not a configuration", maxFile)}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, cannot(err)
	}
	return text, nil
}
