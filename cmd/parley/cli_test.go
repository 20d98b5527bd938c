package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/supervise"
)

func TestMistakesOnTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("sip:\n  listn: ':1'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte("12x4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"PARLEY_DATA=" + dir}
	for _, tt := range []struct {
		args  string
		stdin string
		code  int
		words string // on standard error
	}{
		{args: "frobnicate", code: exitUsage, words: `no command "frobnicate"`},
		{args: "stats", code: exitUsage, words: "did you mean status"},
		{args: "room frobnicate", code: exitUsage, words: "parley room has no command"},
		{args: "status extra", code: exitUsage, words: "takes no arguments"},
		{args: "room show", code: exitUsage, words: "takes ROOM, got none"},
		{args: "room show a.b", code: exitUsage, words: "a-z, 0-9 and -"},
		{args: "room show *", code: exitUsage, words: "a-z, 0-9 and -"},
		{args: "room kick main", code: exitUsage, words: "takes ROOM PARTICIPANT, got one"},
		{args: "room create main --role king", code: exitUsage, words: "speaker or listener"},
		{args: "room create main --max -1", code: exitUsage, words: "--max"},
		{args: "room create main --sip-auth", code: exitUsage, words: "needs one"},
		{args: "room create main --pin-stdin --generate-pin", code: exitUsage, words: "give one of"},
		{args: "room create main --pin-stdin", stdin: "123\n", code: exitUsage, words: "4 to 12 digits"},
		{args: "room create main --pin-prompt", code: exitUsage, words: "needs a terminal"},
		{args: "room create main --pin-file " + pin, code: exitUsage, words: "4 to 12 digits"},
		{args: "room create main --pin-file /nowhere", code: exitError, words: "/nowhere"},
		{args: "room create main --pin 1234", code: exitUsage, words: "unknown flag: --pin"},
		{args: "account set", code: exitUsage, words: "nothing to set"},
		{args: "account export", code: exitUsage, words: "takes FILE, got none"},
		{args: "account export f --password-file - --archive-password-file -", code: exitUsage, words: "only one"},
		{args: "account export f --password x", code: exitUsage, words: "unknown flag: --password"},
		{args: "account export f --password-file /nowhere", code: exitError, words: "/nowhere"},
		{args: "account password --remove --password-file x", code: exitUsage, words: "give one of"},
		{args: "account import f", code: exitError, words: "no such file"},
		{args: "account device rename", code: exitUsage, words: "takes NAME"},
		{args: "account device revoke x --certificate /nowhere", code: exitError, words: "/nowhere"},
		{args: "account backup", code: exitUsage, words: "takes DIR|FILE"},
		{args: "call", code: exitUsage, words: "takes TO"},
		{args: "call sip:bob@192.0.2.7", code: exitUsage, words: "--room"},
		{args: "call x --hangup y --room main", code: exitUsage, words: "takes no arguments"},
		{args: "call x --room a.b", code: exitUsage, words: `room "a.b"`},
		{args: "bot create b", code: exitUsage, words: "--room ROOM"},
		{args: "bot create b --room main --allow sing", code: exitUsage, words: "listen,speak,chat,moderate"},
		{args: "bot create B! --room main", code: exitUsage, words: `bot "B!"`},
		{args: "sim --room a.b", code: exitUsage, words: `room "a.b"`},
		{args: "bench mix --room *", code: exitUsage, words: `room "*"`},
		{args: "bench scale --workers 2,1", code: exitUsage, words: "workers must rise from 1"},
		{args: "bench scale --workers 0", code: exitUsage, words: "workers must rise from 1"},
		{args: "config check c1.yaml", code: exitUsage, words: "takes no arguments, got one; did you mean --config c1.yaml?"},
		{args: "status --data " + bad, code: exitUsage, words: bad + " is no directory"},
		{args: "join --url nats://10.0.0.5:4223 --creds x", code: exitUsage, words: "parley join URL --creds FILE"},
		{args: "run nobody", code: exitUsage, words: "there are bus, media"},
		{args: "status --config /nowhere/p.yaml", code: exitUsage, words: "/nowhere/p.yaml"},
		{args: "config check --config " + bad, code: exitUsage, words: "bad.yaml:2: sip.listn"},
		{args: "up --sip.listen here", code: exitUsage, words: "flag --sip.listen"},
		{args: "up --media.listen :65530", code: exitUsage, words: "media.listen"},
		{args: "status --frobnicate", code: exitUsage, words: "unknown flag"},
		{args: "up --http.lisen=:8081", code: exitUsage, words: "unknown flag: --http.lisen; did you mean --http.listen?"},
		{args: "status -x", code: exitUsage, words: "unknown shorthand flag"},
		{args: "account create second", code: exitUsage, words: `--alias "second"`},
		{args: "account set --rendezvous=on", code: exitUsage, words: `--rendezvous "on": it takes true or false`},
		{args: "room create main --max many", code: exitUsage, words: `--max "many": it takes a whole number`},
		{args: "message send x y --wait soon", code: exitUsage, words: `--wait "soon": it takes a time such as 30s`},
		{args: "ready --admin.listen=", code: exitUsage, words: "admin.listen"},
		{args: "frobnicate --json", code: exitUsage, words: `{"code":"bad_request","message":"parley has no command`},
		{args: "status --json --frobnicate", code: exitUsage, words: `"retry":false}`},
		{args: "names lookup alice --json --server http://127.0.0.1:1", code: exitUnavailable, words: `{"code":"unavailable",`},
		{args: "names lookup", code: exitUsage, words: "takes NAME|ID, got none"},
		{args: "names lookup a", code: exitUsage, words: "3 to 32 characters"},
		{args: "names lookup alice@a/b", code: exitUsage, words: "not a host"},
		{args: "names lookup alice --server ftp://x", code: exitUsage, words: "http://"},
		{args: "names lookup alice --server http://127.0.0.1:1", code: exitUnavailable, words: "unavailable"},
		{args: "dht put k", code: exitUsage, words: "TEXT or --file"},
		{args: "dht put k v --file f", code: exitUsage, words: "TEXT or --file"},
		{args: "dht put k v --type 70000", code: exitUsage, words: "--type"},
		{args: "dht put k v --encrypt-to x --permanent", code: exitUsage, words: "--permanent"},
		{args: "dht cancel k v", code: exitUsage, words: "no id"},
		{args: "dht ping h --interval 1ms", code: exitUsage, words: "--interval"},
		{args: "dht get", code: exitUsage, words: "takes KEY"},
		{args: "run media --bootstrap", code: exitUsage, words: "parley run dht"},
		{args: "help exit-codes", code: exitOK},
		{args: "completion bash", code: exitOK},
		{args: "version --json", code: exitOK},
		{args: "", code: exitOK},
	} {
		t.Run(tt.args, func(t *testing.T) {
			r := parley(env, tt.stdin, strings.Fields(tt.args)...)
			if r.code != tt.code || !strings.Contains(r.err, tt.words) {
				t.Errorf("exit code %d, want %d; said %q, want %q", r.code, tt.code, r.err, tt.words)
			}
			if r.code != exitOK && r.out != "" {
				t.Errorf("standard output has %q", r.out)
			}
		})
	}
}

// No command line may take a PIN, a key or a token: argv is for everybody to read.
func TestExitCodesOfRefusals(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
	}{
		{nil, exitOK}, {errors.New("x"), exitError}, {usagef("x"), exitUsage}, {&supervise.InUseError{}, exitRefused}, {&config.Error{}, exitUsage},
		{contract.ErrBadRequest.With("x"), exitUsage}, {contract.ErrUnavailable, exitUnavailable}, {contract.ErrTimeout, exitUnavailable},
		{contract.ErrForbidden, exitRefused}, {contract.ErrPINWrong, exitRefused}, {contract.ErrLocked, exitRefused}, {contract.ErrExists, exitRefused},
		{contract.ErrNotFound, exitNotFound}, {contract.ErrStorage, exitError}, {contract.ErrInternal, exitError},
	} {
		if got := exitCode(tt.err); got != tt.code {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.code)
		}
	}
}

func TestWithoutANodeItIsSaidAtOnce(t *testing.T) {
	tr := newTrial(t)
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"room", "list"}, {"bot", "list"}, {"account", "show"}} {
		began := time.Now()
		r := parley(tr.env, "", args...)
		if took := time.Since(began); took > time.Second {
			t.Errorf("%v took %s", args, took)
		}
		if r.code != exitUnavailable || !strings.Contains(r.err, "parley up --data "+tr.data) || r.out != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

// Credentials and a silent bus: something listens there and never answers.
func TestHangingBusIsSaidAtOnce(t *testing.T) {
	tr := newTrial(t)
	l, err := net.Listen("tcp", tr.cfg.Bus.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.MkdirAll(filepath.Join(tr.data, "creds"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tr.data, "creds", "cli.creds"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r := parley(tr.env, "", "room", "list")
	if took := time.Since(began); took > time.Second || r.code != exitUnavailable {
		t.Errorf("after %s: %+v", took, r)
	}
}

func TestConfigCheckShowsEveryKey(t *testing.T) {
	tr := newTrial(t)
	r := parley(tr.env, "", "config", "check", "--json", "--log.level", "debug")
	var got map[string]any
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != exitOK {
		t.Fatalf("%v %+v", err, r)
	}
	if len(got) != len(config.Fields()) || got["log.level"] != "debug" || got["sip.listen"] != tr.cfg.SIP.Listen {
		t.Errorf("%v", got)
	}
	if _, err := os.Stat(filepath.Join(tr.data, "lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a check left something in the data directory")
	}
}

func TestConfigSample(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x.yaml")
	if r := parley(nil, "", "config", "sample", "--out", out); r.code != exitOK {
		t.Fatal(r)
	}
	if r := parley([]string{"HOME=/home/x"}, "", "config", "check", "--config", out); r.code != exitOK {
		t.Error(r)
	}
}

func TestNamesCannotSteerTheTerminal(t *testing.T) {
	if got := printable("a\x1b[2Jb\u202ec\u009b"); got != "a�[2Jb�c�" {
		t.Errorf("%q", got)
	}
}
