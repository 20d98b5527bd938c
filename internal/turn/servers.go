package turn

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Bounds of a list of relays.
const (
	maxFile    = 64 << 10 // bytes
	maxServers = 16
	maxURLs    = 8 // of one server
)

// Server is one that clients are sent to, in the form of RTCIceServer (WebRTC §4.2.4).
type Server struct {
	URLs       []string `json:"urls"`
	Username   string   `json:"username,omitempty"`
	Credential string   `json:"credential,omitempty"`
}

// Known is a server that we know credentials of: lasting ones, a secret to make
// short-lived ones, or none for STUN.
type Known struct {
	URLs     []string `yaml:"urls"`
	Username string   `yaml:"username"`
	Password string   `yaml:"password"`
	Secret   string   `yaml:"secret"`
}

// List is the servers that clients are sent to. It is fixed after it was made.
type List struct {
	Known []Known
	Life  time.Duration // of short-lived credentials
}

// For returns the servers with credentials for who, and how long these are good; 0: for
// good.
func (l *List) For(who string, now time.Time) (out []Server, life time.Duration) {
	if l == nil {
		return nil, 0
	}
	for _, k := range l.Known {
		s := Server{URLs: k.URLs, Username: k.Username, Credential: k.Password}
		if k.Secret != "" {
			c := Issue([]byte(k.Secret), who, l.Life, now)
			s.Username, s.Credential, life = c.Username, c.Password, l.Life
		}
		out = append(out, s)
	}
	return out, life
}

// ReadServers reads a YAML list of servers. An error names the entry but never a
// password.
func ReadServers(path string) ([]Known, error) {
	if err := Private(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	list, err := parseServers(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

func parseServers(text []byte) ([]Known, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var list []Known
	if err := dec.Decode(&list); err != nil {
		// What the decoder says may quote the value that did not fit.
		return nil, fmt.Errorf("it has to be a list of servers, each with urls, and username and password or secret")
	}
	if len(list) == 0 || len(list) > maxServers {
		return nil, fmt.Errorf("it names %d servers; 1 to %d can be handed out", len(list), maxServers)
	}
	for i, k := range list {
		if why := k.refuse(); why != "" {
			return nil, fmt.Errorf("server %d: %s", i+1, why)
		}
	}
	return list, nil
}

func (k Known) refuse() string {
	if len(k.URLs) == 0 || len(k.URLs) > maxURLs {
		return fmt.Sprintf("it needs 1 to %d urls", maxURLs)
	}
	relay := false
	for _, u := range k.URLs {
		scheme, rest, _ := strings.Cut(u, ":")
		switch scheme {
		case "turn", "turns":
			relay = true
		case "stun", "stuns":
		default:
			return "urls begin with stun:, stuns:, turn: or turns:"
		}
		if rest == "" || len(u) > 512 || strings.ContainsFunc(u, unprintable) {
			return "a url has a host and printable characters alone"
		}
	}
	lasting := k.Username != "" || k.Password != ""
	switch {
	case lasting && k.Secret != "":
		return "it has a lasting password and a secret; one of them is enough"
	case lasting && (k.Username == "" || k.Password == ""):
		return "username and password belong together"
	case relay && !lasting && k.Secret == "":
		return "a relay asks for username and password, or secret"
	}
	if len(k.Username) > maxUsername || len(k.Password) > 1024 || strings.ContainsFunc(k.Username+k.Password, unprintable) {
		return "username and password are printable ASCII without spaces"
	}
	return ""
}

// unprintable is what cannot stand in a header (RFC 9725 §4.6 has all of it in Link).
func unprintable(r rune) bool {
	return r <= ' ' || r > '~' || r == '"' || r == '<' || r == '>' || r == '\\'
}
