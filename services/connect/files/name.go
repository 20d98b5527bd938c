package files

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/parley-jami/parley/internal/jami"
)

// Scheme is what stands before the colon of a channel's name.
const Scheme = "data-transfer"

// Bounds of names.
const (
	maxChannelName = 1024 // bytes
	maxExt         = 7    // bytes
	maxName        = 255  // bytes
)

// MaxStart is the greatest offset that a daemon of version 13.7 reads from a channel's name, in
// bytes (swarm §5.2); a file cannot be resumed behind it.
const MaxStart = 1<<31 - 1

// Errors of names.
var (
	ErrName    = errors.New("not the name of a file")
	ErrProfile = errors.New("profiles are not exchanged")
)

// Ref is which file of which conversation is meant.
type Ref struct {
	Conversation string `json:"conversation"` // 40 hex digits
	Commit       string `json:"commit"`       // 40 hex digits
	TID          string `json:"tid"`          // decimal, up to 20 digits
}

// Check refuses what is no reference.
func (r Ref) Check() error {
	if !isHex(r.Conversation) || !isHex(r.Commit) || !isNumber(r.TID) {
		return fmt.Errorf("%w: conversation %.50q, commit %.50q, number %.30q", ErrName, r.Conversation, r.Commit, r.TID)
	}
	return nil
}

// String is the reference as the name of a file.
func (r Ref) String() string { return r.Conversation + "_" + r.Commit + "_" + r.TID }

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 40 && strings.ToLower(s) == s
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil && len(s) <= 20 && s[0] != '+'
}

// Request is what the name of a channel asks for.
type Request struct {
	Ref
	Device     jami.LongID // that opens the channel
	Ext        string      // without its dot; empty: none
	Start, End int64       // bytes; End is 0 for all
}

// Name is the channel's name.
func (r *Request) Name() string {
	s := Scheme + "://" + r.Conversation + "/" + r.Device.String() + "/" + r.Commit + "_" + r.TID
	if r.Ext != "" {
		s += "." + r.Ext
	}
	if r.Start != 0 || r.End != 0 {
		s += fmt.Sprintf("?start=%d&end=%d", r.Start, r.End)
	}
	return s
}

// ParseName reads the name of a channel. The error is [ErrProfile] for one of a profile.
func ParseName(s string) (*Request, error) {
	rest, ok := strings.CutPrefix(s, Scheme+"://")
	if !ok || len(s) > maxChannelName {
		return nil, fmt.Errorf("%w: channel %.80q", ErrName, s)
	}
	where, query, _ := strings.Cut(rest, "?")
	if strings.HasSuffix(where, ".vcf") && !strings.Contains(path.Base(where), "_") {
		return nil, ErrProfile
	}
	parts := strings.Split(where, "/")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: channel %.80q", ErrName, s)
	}
	device, err := jami.ParseLongID(parts[1])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrName, err)
	}
	r := &Request{Device: device}
	id, ext, dot := strings.Cut(parts[2], ".")
	if dot && !isExt(ext) {
		return nil, fmt.Errorf("%w: the extension %.20q", ErrName, ext)
	}
	commit, tid, _ := strings.Cut(id, "_")
	r.Ref, r.Ext = Ref{parts[0], commit, tid}, ext
	if err := r.Check(); err != nil {
		return nil, err
	}
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		to := map[string]*int64{"start": &r.Start, "end": &r.End}[key]
		if to == nil {
			continue // of newer daemons
		}
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || value[0] == '+' {
			return nil, fmt.Errorf("%w: %s=%.30q", ErrName, key, value)
		}
		*to = int64(n)
	}
	if r.End != 0 && r.End < r.Start {
		return nil, fmt.Errorf("%w: bytes %d to %d", ErrName, r.Start, r.End)
	}
	return r, nil
}

// isExt reports whether s may follow the dot.
func isExt(s string) bool {
	return len(s) > 0 && len(s) <= maxExt && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '/' || r == '\\' || r == '?' || r == '.' || !unicode.IsGraphic(r)
	})
}

// extOf is what a name's file id ends with (swarm §5.1); empty: nothing.
func extOf(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 && isExt(name[i+1:]) {
		return name[i+1:]
	}
	return ""
}

// localExt is an extension as our own files have it: what every file system and shell takes.
func localExt(name string) string {
	ext := extOf(name)
	if strings.ContainsFunc(ext, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		return ""
	}
	return strings.ToLower(ext)
}

// CheckName refuses a file's name that cannot be shown to people, or would be a path.
func CheckName(s string) error {
	switch {
	case s == "" || len(s) > maxName || !utf8.ValidString(s):
		return fmt.Errorf("%w: a name is UTF-8 of 1 to %d bytes", ErrName, maxName)
	case s == "." || s == ".." || strings.ContainsAny(s, `/\`) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%w: %.80q has what no name has", ErrName, s)
	}
	return nil
}
