package turn

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/config"
)

var noon = time.Unix(1_700_000_000, 0)

const vector = "Y+rU/iy178zVLEEKtTzl/qfJbiI="

// The vector was made with coturn's documented formula by openssl:
// printf 1700003600:alice | openssl dgst -sha1 -hmac 'north and south' -binary | base64
func TestCredential(t *testing.T) {
	c := Issue([]byte("north and south"), "alice", time.Hour, noon)
	if c.Username != "1700003600:alice" || c.Password != vector {
		t.Errorf("%+v", c)
	}
	if who, _, err := Open(c.Username, noon); who != "alice" || err != nil {
		t.Error(who, err)
	}
	if who, ago, err := Open(c.Username, noon.Add(2*time.Hour)); who != "alice" || ago != time.Hour || !errors.Is(err, ErrExpired) {
		t.Error(who, ago, err)
	}
	for _, bad := range []string{"", "alice", "1700003600", "1700003600:", "x:alice", "-1:a", "+1700003600:a", "01700003600:a", "99999999999999999999:a",
		"9000000000:a", "1700003600:" + strings.Repeat("a", 600)} {
		if who, _, err := Open(bad, noon); !errors.Is(err, ErrForm) || who != "" {
			t.Errorf("%q: %q, %v", bad, who, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, s := range []string{"1700003600:alice", "1:a", ":", "1700003600:a:b", "99999999999999999999:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		who, ago, err := Open(name, noon)
		if errors.Is(err, ErrForm) != (who == "") {
			t.Fatalf("%q: %q, %v", name, who, err)
		}
		if who != "" && !strings.HasSuffix(name, ":"+who) || ago < 0 {
			t.Fatalf("%q: %q %s", name, who, ago)
		}
	})
}

func TestServers(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"- urls: [turn:a]\n  username: u\n  password: sesame1\n", ""},
		{"- urls: [turns:a:443, 'turn:a?transport=tcp']\n  secret: sesame1\n- urls: [stun:b]\n", ""},
		{"", "list of servers"},
		{"[]", "names 0"},
		{"urls: [turn:a]", "list of servers"},
		{"- urls: [turn:a]\n  pasword: sesame1", "list of servers"},
		{"- urls: [turn:a]\n  password: [sesame1]", "list of servers"},
		{"- urls: []\n", "1 to 8 urls"},
		{"- urls: [http://a]\n", "stun:"},
		{"- urls: [turn:a]\n", "secret"},
		{"- urls: [turn:a]\n  username: u\n", "belong together"},
		{"- urls: [turn:a]\n  username: u\n  password: sesame1\n  secret: sesame1\n", "enough"},
		{"- urls: [turn:a]\n  username: \"u\\r\\nX: y\"\n  password: sesame1\n", "printable"},
		{"- urls: [\"turn:a>; x\"]\n  secret: sesame1\n", "printable"},
	} {
		list, err := parseServers([]byte(c.text))
		switch {
		case c.want == "" && (err != nil || len(list) == 0):
			t.Errorf("%q: %v", c.text, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		case err != nil && strings.Contains(err.Error(), "sesame1"):
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func FuzzServers(f *testing.F) {
	f.Add([]byte("- urls: [turn:a]\n  username: u\n  password: p\n"))
	f.Add([]byte("- urls: [turns:a:443]\n  secret: s\n- urls: [stun:b]\n"))
	f.Add([]byte("- &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseServers(text)
		if err != nil {
			return
		}
		out, _ := (&List{Known: list, Life: time.Hour}).For("who", noon)
		for _, s := range out {
			if len(s.URLs) == 0 || strings.ContainsAny(strings.Join(s.URLs, ""), "\r\n\"<>") || strings.ContainsAny(s.Username+s.Credential, "\r\n\"") {
				t.Fatalf("%+v", s)
			}
		}
	})
}

func TestFor(t *testing.T) {
	l := &List{Life: time.Hour, Known: []Known{
		{URLs: []string{"turn:a"}, Secret: "north and south"}, {URLs: []string{"turn:b"}, Username: "u", Password: "p"}, {URLs: []string{"stun:c"}}}}
	out, life := l.For("alice", noon)
	if len(out) != 3 || life != time.Hour || out[0].Credential != vector || out[1].Username != "u" || out[1].Credential != "p" || out[2].Username != "" {
		t.Errorf("%+v %s", out, life)
	}
	if out, _ := (*List)(nil).For("alice", noon); out != nil {
		t.Errorf("%+v", out)
	}
}

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	conf := &config.Config{Data: dir}
	made, err := Secret(conf)
	if err != nil || len(made) != 64 {
		t.Fatal(string(made), err)
	}
	st, err := os.Stat(filepath.Join(dir, "turn", "secret"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatal(st, err)
	}
	if again, err := Secret(conf); err != nil || string(again) != string(made) {
		t.Error("another secret the second time", err)
	}
	file := filepath.Join(dir, "given")
	conf.TURN.SecretFile = file
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"a secret of some length\nx", 0o600, ""},
		{"a secret of some length\n", 0o640, ""},
		{"a secret of some length\n", 0o644, "chmod 600"},
		{"short\n", 0o600, "guessed"},
		{"\n", 0o600, "empty"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := Secret(conf)
		if c.want == "" && (err != nil || string(got) != "a secret of some length") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q %o: %q, %v", c.text, c.mode, got, err)
		}
	}
	t.Setenv(config.EnvTURNSecret, "from the environment")
	if got, err := Secret(conf); err != nil || string(got) != "from the environment" {
		t.Errorf("%q, %v", got, err)
	}
	if _, still := os.LookupEnv(config.EnvTURNSecret); still {
		t.Error("the variable is still there")
	}
}
