package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/parley-jami/parley/bus/contract"
)

// credsOut is where credentials go. It is opened before they are made, so that none are made that cannot
// be kept.
type credsOut struct {
	path string // absolute; "-": standard output
	file *os.File
	app  *app
	kept bool
}

// openCreds makes the file at path, for the owner alone.
func (a *app) openCreds(path string) (*credsOut, error) {
	if path == "-" {
		return &credsOut{path: path, app: a}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, contract.ErrExists.With("%s is there already; remove it or choose another file with --out", path)
	} else if err != nil {
		return nil, fmt.Errorf("credentials file: %w", err)
	}
	o := &credsOut{path: path, file: f, app: a}
	if abs, err := filepath.Abs(path); err == nil {
		o.path = abs
	}
	return o, nil
}

// keep writes the credentials.
func (o *credsOut) keep(text []byte) error {
	if o.file == nil {
		_, err := o.app.out.Write(text)
		o.kept = err == nil
		return err
	}
	_, err := o.file.Write(text)
	if err == nil {
		err = o.file.Sync()
	}
	o.kept = err == nil
	return err
}

// close ends it; a file that has not got its credentials goes.
func (o *credsOut) close() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	if !o.kept {
		err = errors.Join(err, os.Remove(o.path))
	}
	return err
}

// beside is where a is to tell what it did: not where the credentials went.
func (o *credsOut) beside() *app {
	if o.file != nil {
		return o.app
	}
	b := *o.app
	b.out = o.app.err
	return &b
}
