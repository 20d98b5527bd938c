// Package secret reads passwords from where they may stand: a file or standard
// input, never a command line.
package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Max bounds a password in bytes.
const Max = 1024

// ErrEmpty says that there is no password on the first line.
var ErrEmpty = errors.New("the first line, which has to be the password, is empty")

// FirstLine reads a password: the first line without its end. Spaces are part of it.
func FirstLine(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, Max+3))
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	switch {
	case len(line) == 0:
		return nil, ErrEmpty
	case len(line) > Max:
		return nil, fmt.Errorf("the first line is longer than the %d bytes that a password may have", Max)
	case bytes.IndexByte(line, 0) >= 0:
		return nil, errors.New("the first line has a zero byte; this is no password")
	}
	return line, nil
}

// TakeEnv reads a password from a variable, which this process and those that it starts
// do not have afterwards; nil is none.
func TakeEnv(name string) ([]byte, error) {
	text, ok := os.LookupEnv(name)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(name); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b, err := FirstLine(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// File reads the password in a file.
func File(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the file with the secret: %w", err)
	}
	defer f.Close()
	b, err := FirstLine(f)
	if err != nil {
		return nil, fmt.Errorf("the file with the secret, %s: %w", path, err)
	}
	return b, nil
}
