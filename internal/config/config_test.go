package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "parley.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	c, err := Load(Sources{Env: []string{"HOME=/home/x"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.HTTP.Listen != ":8080" || c.Media.Loudest != 4 || c.Rooms.Default != "main" || c.Media.Public == nil || len(c.Media.Public) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestLaterSourcesWin(t *testing.T) {
	file := write(t, "http:\n  listen: ':1'\nsip: {listen: ':2'}\nmedia:\n  loudest: 2\n  public: [192.0.2.1, '2001:db8::1']\n")
	c, err := Load(Sources{
		File:  file,
		Env:   []string{"PARLEY_SIP_LISTEN=:3", "PARLEY_MEDIA_LOUDEST=3", "PARLEY_HTTP_TLS_LISTEN=", "PARLEY_DATA=/tmp/x"},
		Flags: map[string]string{"media.loudest": "5"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.HTTP.Listen != ":1" || c.SIP.Listen != ":3" || c.Media.Loudest != 5 || c.HTTP.TLSListen != "" || c.Data != "/tmp/x" {
		t.Errorf("%+v", c)
	}
	if want := []string{"192.0.2.1", "2001:db8::1"}; !reflect.DeepEqual(c.Media.Public, want) {
		t.Errorf("media.public %q", c.Media.Public)
	}
}

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		env        []string
		flags      map[string]string
		key        string
		line       int
		words      []string
	}{
		{name: "unknown key", file: "http:\n  listn: ':1'\n", key: "http.listn", line: 2, words: []string{"did you mean http.listen"}},
		{name: "unknown section", file: "\n\nhttpd:\n  listen: ':1'\n", key: "httpd", line: 3, words: []string{"no such key"}},
		{name: "unknown, nothing near", file: "http:\n  frobnicate: 1\n", key: "http.frobnicate", line: 2, words: []string{"http has http.listen"}},
		{name: "bad address", file: "sip:\n  # of the phones\n  listen: 5060\n", key: "sip.listen", line: 3, words: []string{`"5060"`, "HOST:PORT"}},
		{name: "bad number", file: "media:\n  loudest: 9\n", key: "media.loudest", line: 2, words: []string{"from 1 to 8"}},
		{name: "not a number", file: "media:\n  loudest: many\n", key: "media.loudest", line: 2, words: []string{"whole number"}},
		{name: "bad word", file: "log:\n  level: loud\n", key: "log.level", line: 2, words: []string{"debug, info, warn, error"}},
		{name: "twice", file: "log:\n  level: info\n  level: warn\n", key: "log.level", line: 3, words: []string{"line 2"}},
		{name: "section twice", file: "log: {}\nlog: {}\n", key: "log", line: 2, words: []string{"set twice"}},
		{name: "section is a value", file: "log: info\n", key: "log", line: 1, words: []string{"keys and values"}},
		{name: "list is a value", file: "media:\n  public: 192.0.2.1\n", key: "media.public", line: 2, words: []string{"[a, b]"}},
		{name: "proxy key alone", file: "dht:\n  proxy_key: k.pem\n", key: "dht.proxy_key", line: 2, words: []string{"dht.proxy_cert"}},
		{name: "proxy certificate alone", file: "dht:\n  proxy_cert: c.pem\n", key: "dht.proxy_cert", line: 2, words: []string{"dht.proxy_key"}},
		{name: "bad overlay", file: "dht:\n  overlay: chord\n", key: "dht.overlay", line: 2, words: []string{"libp2p, opendht, both, proxy"}},
		{name: "bad node", file: "dht:\n  opendht_bootstrap: [':4222']\n", key: "dht.opendht_bootstrap", line: 2, words: []string{"HOST:PORT"}},
		{name: "bad proxy", file: "dht:\n  proxy: ['http://x:[9-8]']\n", key: "dht.proxy", line: 2, words: []string{"[80-95]"}},
		{name: "no proxy", file: "dht:\n  overlay: proxy\n", key: "dht.overlay", line: 2, words: []string{"dht.proxy"}},
		{name: "bad item", file: "media:\n  public: [192.0.2.1, home]\n", key: "media.public", line: 2, words: []string{`"home"`, "IP address"}},
		{name: "value is a list", file: "sip:\n  listen: [':1']\n", key: "sip.listen", line: 2, words: []string{"single value"}},
		{name: "no value", file: "sip:\n  listen:\n", key: "sip.listen", line: 2, words: []string{"no value"}},
		{name: "bus has no free port", file: "bus:\n  listen: 127.0.0.1:0\n", key: "bus.listen", line: 2, words: []string{"other processes must know"}},
		{name: "ports run out", file: "media:\n  listen: ':65530'\n", key: "media.listen", line: 2, words: []string{"65278"}},
		{name: "half a certificate", file: "http:\n  cert: /x.pem\n", key: "http.cert", line: 2, words: []string{"http.key"}},
		{name: "half an authority", file: "jams:\n  ca_cert: /x.pem\n", key: "jams.ca_cert", line: 2, words: []string{"jams.ca_key"}},
		{name: "a directory without a DN", file: "jams:\n  ldap_url: ldaps://x\n", key: "jams.ldap_url", line: 2, words: []string{"jams.ldap_user_dn"}},
		{name: "no directory", file: "jams:\n  ldap_url: http://x\n", key: "jams.ldap_url", line: 2, words: []string{"ldaps://"}},
		{name: "half a certificate of names", file: "names:\n  key: /x.pem\n", key: "names.key", line: 2, words: []string{"names.cert"}},
		{name: "half a certificate of the relay", file: "turn:\n  cert: /x.pem\n", key: "turn.cert", line: 2, words: []string{"turn.key"}},
		{name: "TLS without a certificate", file: "turn:\n  tls_listen: ':443'\n", key: "turn.tls_listen", line: 2, words: []string{"turn.cert"}},
		{name: "ports of the relay", file: "turn:\n  ports: 5000-4000\n", key: "turn.ports", line: 2, words: []string{"FIRST-LAST"}},
		{name: "low ports of the relay", file: "turn:\n  ports: 80-4000\n", key: "turn.ports", line: 2, words: []string{"from 1024"}},
		{name: "peer of the relay", file: "turn:\n  allow_peers: [10.0.0.0/8, host]\n", key: "turn.allow_peers", line: 2, words: []string{`"host"`, "PREFIX"}},
		{name: "relay's URL", file: "turn:\n  urls: ['https://x']\n", key: "turn.urls", line: 2, words: []string{"turn:"}},
		{name: "relay's transport", file: "turn:\n  urls: ['turn:x?transport=sctp']\n", key: "turn.urls", line: 2, words: []string{"turn:"}},
		{name: "relay without a host", file: "turn:\n  urls: ['turn:']\n", key: "turn.urls", line: 2, words: []string{"turn:"}},
		{name: "the relay's secret misspelt", env: []string{"PARLEY_TURN_SECRT=x"}, words: []string{"PARLEY_TURN_SEC"}},
		{name: "data path too long for sockets", file: "data: /" + strings.Repeat("x", 120) + "\n", key: "data", line: 1, words: []string{"bytes, since"}},
		{name: "syntax", file: "http:\n  listen: ':1\n", line: 2, words: []string{"parley.yaml:"}},
		{name: "two documents", file: "{}\n---\n{}\n", words: []string{"more than one"}},
		{name: "no mapping", file: "- 1\n", line: 1, words: []string{"keys and values"}},
		{name: "environment", env: []string{"PARLEY_SIP_LISTEN=x"}, key: "sip.listen", words: []string{"environment variable PARLEY_SIP_LISTEN"}},
		{name: "environment misspelt", env: []string{"PARLEY_SIP_LISTN=:1"}, words: []string{"PARLEY_SIP_LISTEN"}},
		{name: "environment of no key", env: []string{"PARLEY_HTTP_FROBNICATE=:1"}, words: []string{"PARLEY_HTTP_"}},
		{name: "flag", flags: map[string]string{"dht.listen": "x"}, key: "dht.listen", words: []string{"flag --dht.listen"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Sources{Env: append([]string{"HOME=/home/x"}, tt.env...), Flags: tt.flags}
			if tt.file != "" {
				s.File = write(t, tt.file)
			}
			c, err := Load(s)
			e, ok := errors.AsType[*Error](err)
			if !ok || c != nil {
				t.Fatalf("error %v, config %v", err, c)
			}
			if e.Key != tt.key || tt.line != 0 && e.Line != tt.line {
				t.Errorf("key %q line %d, want %q %d: %v", e.Key, e.Line, tt.key, tt.line, err)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func TestWhatIsNoMistake(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "log:\n  # level: info\n", "null\n", "log: {level: &x warn}\n", "http:\n  listen: ''\n"} {
		if _, err := Load(Sources{File: write(t, text), Env: []string{"HOME=/home/x", "PARLEY_PORT=tcp://10.0.0.1:8080", "PARLEY_SERVICE_HOST=10.0.0.1"}}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAFileThatCannotBeReadIsNamed(t *testing.T) {
	for _, path := range []string{"/nowhere/parley.yaml", t.TempDir()} {
		_, err := Load(Sources{File: path})
		if e, ok := errors.AsType[*Error](err); !ok || e.Source != path || !strings.Contains(err.Error(), path) {
			t.Errorf("%v", err)
		}
	}
}

// A child gets its parent's configuration through the environment, whole.
func TestEnvironRoundTrip(t *testing.T) {
	c, err := Load(Sources{File: write(t, "data: /x\nhttp: {listen: '', tls_listen: ':7'}\nmedia: {loudest: 7, public: [192.0.2.1, 192.0.2.2]}\nlog: {level: debug}\n")})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(Sources{Env: c.Environ()})
	if err != nil || !reflect.DeepEqual(c, again) {
		t.Errorf("%v\n%+v\n%+v", err, c, again)
	}
}

func TestDefaultData(t *testing.T) {
	if os.Geteuid() == 0 {
		if d := DefaultData([]string{"HOME=/root"}); d != "/var/lib/parley" {
			t.Error(d)
		}
		return
	}
	for _, tt := range []struct{ env, want string }{
		{"XDG_DATA_HOME=/x", "/x/parley"},
		{"HOME=/home/x", "/home/x/.local/share/parley"},
	} {
		if d := DefaultData([]string{tt.env}); d != tt.want {
			t.Errorf("%s: %s", tt.env, d)
		}
	}
}

func TestSampleIsFreshAndChangesNothing(t *testing.T) {
	const path = "../../deploy/parley.yaml"
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, Sample()) {
		t.Errorf("%s is stale: run make generate", path)
	}
	env := []string{"HOME=/home/x"}
	plain, err := Load(Sources{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	sampled, err := Load(Sources{File: path, Env: env})
	if err != nil || !reflect.DeepEqual(plain, sampled) {
		t.Errorf("the sample changes the configuration: %v", err)
	}
}

// With its keys no longer commented out, the sample says the defaults.
func TestSampleShowsTheDefaults(t *testing.T) {
	var text strings.Builder
	for line := range strings.Lines(string(Sample())) {
		trimmed := strings.TrimLeft(line, " ")
		rest, commented := strings.CutPrefix(trimmed, "# ")
		name, _, isKey := strings.Cut(rest, ": ")
		known := slices.ContainsFunc(Fields(), func(f Field) bool { return f.Key == name || strings.HasSuffix(f.Key, "."+name) })
		if commented && isKey && known {
			line = strings.Replace(line, "# ", "", 1)
		}
		text.WriteString(line)
	}
	file := write(t, text.String())
	got, err := Load(Sources{File: file})
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	want, err := Load(Sources{Flags: map[string]string{"data": "/var/lib/parley"}})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v\n%+v", err, got, want)
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	for _, f := range Fields() {
		if f.Doc == "" {
			t.Errorf("%s has no doc", f.Key)
		}
	}
}

// FuzzLoad: whatever a file holds, loading ends with a valid configuration or an
// error that names the file, and what was loaded survives the way to a child.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"", "http:\n  listen: ':1'\n", "media: {public: [192.0.2.1], loudest: 3}\n", "a: &a [*a]\n", "<<: {}\n",
		"log: {level: !!binary aW5mbw==}\n", "? [x]\n: y\n", "---\n...\n---\n", "data: \"\\0\"\n", "sip:\n  listen: |\n    :5\n", string(Sample())} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m := newMerged()
		if err := m.defaults([]string{"HOME=/home/x"}); err != nil {
			t.Fatal(err)
		}
		c, err := m.finish(m.yaml("file.yaml", text))
		if err != nil {
			if !strings.Contains(err.Error(), "file.yaml") {
				t.Fatalf("%q does not name the file", err)
			}
			return
		}
		again, err := Load(Sources{Env: c.Environ()})
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%v\n%+v\n%+v", err, c, again)
		}
	})
}
