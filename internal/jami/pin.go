package jami

import (
	"bytes"
	"compress/zlib"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PINPeriod is how long a PIN leads to the same place (§3.6).
const PINPeriod = 20 * time.Minute

const (
	pinSize  = 8
	pinChars = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	// maxLinked bounds an archive from the DHT once it is inflated: a value of 64 KiB may
	// become 64 MiB.
	maxLinked = 8 << 20
)

// Errors of linking a device with a PIN.
var (
	ErrPIN             = errors.New("a PIN has 8 letters and digits")
	ErrArchiveTooLarge = errors.New("the archive is too large for a value of the DHT: link the device with an archive file")
)

// PIN is what a person carries from one device of an account to a new one, in capitals.
// It is a secret: formatted with fmt it does not show.
type PIN string

// NewPIN makes a PIN by chance.
func NewPIN() (PIN, error) {
	const unbiased = 256 - 256%len(pinChars)
	out := make([]byte, 0, pinSize)
	for b := make([]byte, 2*pinSize); len(out) < pinSize; {
		if _, err := rand.Read(b); err != nil {
			return "", fmt.Errorf("PIN: %w", err)
		}
		for _, c := range b {
			if int(c) < unbiased && len(out) < pinSize {
				out = append(out, pinChars[int(c)%len(pinChars)])
			}
		}
	}
	return PIN(out), nil
}

// ParsePIN takes a PIN as a person enters it: in any case, with space around. The error
// is [ErrPIN].
func ParsePIN(s string) (PIN, error) {
	s = strings.TrimSpace(s)
	n := len(s) // before: some letters beyond ASCII have capitals within
	if s = strings.ToUpper(s); n != pinSize || len(s) != pinSize || strings.Trim(s, pinChars) != "" {
		return "", ErrPIN
	}
	return PIN(s), nil
}

// Show returns the PIN as it is shown to the person: in small letters.
func (p PIN) Show() string { return strings.ToLower(string(p)) }

func (PIN) String() string { return "PIN" }

// GoString hides the PIN from %#v.
func (PIN) GoString() string { return "PIN" }

// PINSlot is where and how an archive lies in the DHT.
type PINSlot struct {
	Location ID
	Key      []byte // AES-256
}

// Slot returns the place for a time. The password is the archive's, which may be empty.
// Importers look at that of now and that of now-PINPeriod. It takes as long as
// [StretchKey].
func (p PIN) Slot(password []byte, at time.Time) PINSlot {
	seed := strconv.FormatInt(at.Unix()/int64(PINPeriod/time.Second), 16)
	key := StretchKey(password, []byte(string(p)+seed))
	return PINSlot{Location: sha1.Sum(key), Key: key}
}

// PackForPIN returns the data of the value for the slot: unsigned, of [TypeData], not
// permanent. The error is [ErrArchiveTooLarge] where it does not fit into one.
func (a *Archive) PackForPIN(s PINSlot) ([]byte, error) {
	text, err := a.json()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err = w.Write(text); err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	data, err := Seal(s.Key, b.Bytes())
	if err != nil {
		return nil, err
	}
	if len(data) > MaxValue {
		return nil, fmt.Errorf("%w: %w (%d bytes, at most %d)", ErrArchive, ErrArchiveTooLarge, len(data), MaxValue)
	}
	return data, nil
}

// ParsePINArchive reads the data of a value at the slot. Anybody may put values there: what is
// not for its key is [ErrDecrypt], and to be passed over.
func ParsePINArchive(s PINSlot, data []byte) (*Archive, error) {
	if len(data) > MaxValue {
		return nil, ErrDecrypt
	}
	packed, err := Open(s.Key, data)
	if err != nil {
		return nil, err
	}
	text, err := inflate(packed, maxLinked)
	if err != nil {
		return nil, err
	}
	return parseArchiveJSON(text)
}
