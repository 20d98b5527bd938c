package names

import (
	"net/url"
	"strings"

	"github.com/parley-jami/parley/internal/jami"
)

// Lengths of a name (dht-and-identity §5.2).
const (
	minName = 3
	maxName = 32
)

// maxHost is the longest name of a host (RFC 1035 §2.3.4) with a port.
const maxHost = 253 + len(":65535")

// Normalize returns the name in the form in which it is signed and kept. Only
// ASCII is a name: letters of other scripts that look or fold like it are refused.
func Normalize(name string) (string, error) {
	if len(name) < minName || len(name) > maxName {
		return "", ErrInvalidName.With("a name has %d to %d characters", minName, maxName)
	}
	out := []byte(name)
	for i, c := range out {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case 'A' <= c && c <= 'Z':
			out[i] = c | 0x20
		default:
			return "", ErrInvalidName.With("a name is made of a-z, 0-9, - and _")
		}
	}
	return string(out), nil
}

// split parts NAME@HOST into the normalised name and the host, "" if none.
func split(text string) (name, host string, err error) {
	name, host, at := strings.Cut(text, "@")
	if name, err = Normalize(name); err != nil {
		return "", "", err
	}
	if at && !isHost(host) {
		return "", "", ErrInvalidName.With("what follows the @ is not a host")
	}
	return name, host, nil
}

// isHost takes HOST or HOST:PORT and nothing that would lead elsewhere in a URL.
func isHost(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	for _, c := range []byte(s) {
		if !(c == '-' || c == '.' || c == '_' || c == ':' || c == '[' || c == ']' ||
			'0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z') {
			return false
		}
	}
	u, err := url.Parse("https://" + s)
	return err == nil && u.Host == s && u.Hostname() != ""
}

// ParseAddr reads a Jami Id as name servers write it.
func ParseAddr(s string) (jami.ID, error) {
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	id, err := jami.ParseID(s)
	if err != nil || id.IsZero() {
		return jami.ID{}, ErrInvalidName.With("not a Jami Id: it has 40 hex digits")
	}
	return id, nil
}
