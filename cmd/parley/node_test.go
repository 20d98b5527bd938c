package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/simroom"
	sdk "github.com/parley-jami/parley/sdk/go"
	sdkcreds "github.com/parley-jami/parley/sdk/go/creds"
)

var allProcesses = []string{"bus", "identity", "dht", "connect", "media", "swarm", "conference"}

// One node lives through it all: it costs an account's keys to start one.
func TestNode(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	n := tr.up(t)
	eventually(t, "an account, rooms and links", func() bool {
		st, r := n.status(t)
		return r.code == exitOK && st.Account.ID != "" && len(st.Rooms) > 0
	})

	t.Run("status has what scripts rely on", func(t *testing.T) {
		_, r := n.status(t)
		var st struct {
			Account   map[string]any   `json:"account"`
			Links     map[string]any   `json:"links"`
			Processes []map[string]any `json:"processes"`
			Rooms     []map[string]any `json:"rooms"`
		}
		if err := json.Unmarshal([]byte(r.out), &st); err != nil {
			t.Fatal(err)
		}
		has := func(what string, m map[string]any, keys ...string) {
			for _, k := range keys {
				if m[k] == nil {
					t.Errorf("%s has no %q: %v", what, k, m)
				}
			}
		}
		has("account", st.Account, "id", "alias")
		has("links", st.Links, "join", "operator", "sip", "jami")
		names := map[string]bool{}
		for _, p := range st.Processes {
			has("process", p, "name", "pid", "up_s", "cpu_s", "rss_bytes", "restarts")
			names[p["name"].(string)] = true
		}
		for _, name := range allProcesses {
			if !names[name] {
				t.Errorf("no process %s", name)
			}
		}
		has("room", st.Rooms[0], "name", "participants")
		if r := parley(n.env, "", "status"); r.code != exitOK || !strings.Contains(r.out, "conference") {
			t.Errorf("as text: %+v", r)
		}
	})

	t.Run("a second node on the data directory is refused", func(t *testing.T) {
		second := newTrial(t)
		other := second.up(t, "--data", tr.data)
		if code := other.wait(t); code != exitRefused {
			t.Errorf("exit code %d", code)
		}
		if said := other.said(); !strings.Contains(said, "pid "+strconv.Itoa(n.cmd.Process.Pid)) {
			t.Errorf("it said %q", said)
		}
	})

	t.Run("rooms", func(t *testing.T) { rooms(t, n) })
	t.Run("bots", func(t *testing.T) { bots(t, n) })
	t.Run("the account", func(t *testing.T) {
		if r := parley(n.env, "", "account", "set", "--alias", "Round table"); r.code != exitOK {
			t.Error(r)
		}
		r := parley(n.env, "", "account", "show", "--json")
		var acc contract.Account
		if err := json.Unmarshal([]byte(r.out), &acc); err != nil || acc.Alias != "Round table" {
			t.Errorf("%v %+v", err, r)
		}
	})

	t.Run("its archive", func(t *testing.T) { archives(t, n) })
	t.Run("more accounts", func(t *testing.T) { severalAccounts(t, n) })

	t.Run("sim shows what others do", func(t *testing.T) { simOthers(t, n) })
	t.Run("an interrupted sim and bench leave the room", func(t *testing.T) { interrupts(t, n) })
	t.Run("each process comes back alone", func(t *testing.T) {
		for _, name := range allProcesses {
			before, _ := n.status(t)
			if err := syscall.Kill(before.pid(name), syscall.SIGKILL); err != nil {
				t.Fatal(name, err)
			}
			var after status
			eventually(t, name+" is back", func() bool {
				after, _ = n.status(t)
				return after.pid(name) != 0 && after.pid(name) != before.pid(name)
			})
			for _, other := range allProcesses {
				if other != name && after.pid(other) != before.pid(other) {
					t.Errorf("%s was killed and %s was restarted", name, other)
				}
			}
		}
		eventually(t, "all is well again", func() bool { _, r := n.status(t); return r.code == exitOK })
	})

	t.Run("status shows the processes while the bus hangs", func(t *testing.T) {
		st, _ := n.status(t)
		bus := st.pid("bus")
		if err := syscall.Kill(bus, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(bus, syscall.SIGCONT)
		st, r := n.status(t)
		if r.code != exitUnavailable || len(st.Processes) != len(allProcesses) || len(st.Missing) != 1 || st.Missing[0].What != "bus" || st.Account.ID == "" {
			t.Errorf("%+v", r)
		}
		if !strings.Contains(r.err, "missing: bus") {
			t.Errorf("standard error: %q", r.err)
		}
	})

	t.Run("SIGTERM drains", func(t *testing.T) {
		began := time.Now()
		if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		code := n.wait(t)
		if took := time.Since(began); code != exitOK || took > 5*time.Second {
			t.Errorf("exit code %d after %s", code, took)
		}
		if r := parley(n.env, "", "status"); r.code != exitUnavailable {
			t.Errorf("status: %+v", r)
		}
	})
}

func rooms(t *testing.T, n *node) {
	run := func(code int, stdin string, args ...string) result {
		t.Helper()
		r := parley(n.env, stdin, append([]string{"room"}, args...)...)
		if r.code != code {
			t.Errorf("room %v: exit code %d, want %d: %s", args, r.code, code, r.err)
		}
		return r
	}
	run(exitOK, "4711\n", "create", "tea", "--pin-stdin", "--title", "Tea")
	run(exitRefused, "", "create", "tea")
	var room contract.Room
	if r := run(exitOK, "", "show", "tea", "--json"); json.Unmarshal([]byte(r.out), &room) != nil || !room.HasPIN || room.Title != "Tea" || room.Participants == nil {
		t.Errorf("show: %s", r.out)
	}
	if r := run(exitOK, "", "lock", "tea", "--json"); !strings.Contains(r.out, `"locked": true`) {
		t.Errorf("lock: %s", r.out)
	}
	run(exitOK, "", "unlock", "tea")
	run(exitNotFound, "", "mute", "tea", "nobody")
	run(exitNotFound, "", "unmute", "tea", "nobody")
	run(exitNotFound, "", "kick", "tea", "nobody")
	if r := run(exitOK, "", "participants", "tea"); !strings.Contains(r.out, "nobody is here") {
		t.Errorf("participants: %s", r.out)
	}
	if r := run(exitOK, "", "list"); !strings.Contains(r.out, "tea") || strings.Contains(r.out, "4711") {
		t.Errorf("list: %s", r.out)
	}
	var made struct{ Name, PIN string }
	if r := run(exitOK, "", "create", "secret", "--generate-pin", "--json"); json.Unmarshal([]byte(r.out), &made) != nil || len(made.PIN) != 8 {
		t.Errorf("generated PIN: %s", r.out)
	}
	run(exitOK, "", "rm", "tea")
	run(exitOK, "", "rm", "secret")
	run(exitNotFound, "", "rm", "tea")
	run(exitNotFound, "", "show", "tea")
	if strings.Contains(n.said(), "4711") {
		t.Error("the PIN is in the log")
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func bots(t *testing.T, n *node) {
	creds := filepath.Join(t.TempDir(), "echo.creds")
	r := parley(n.env, "", "bot", "create", "echo", "--room", "main", "--allow", "listen,speak", "--out", creds, "--json")
	var made botCreated
	if err := json.Unmarshal([]byte(r.out), &made); err != nil || r.code != exitOK {
		t.Fatalf("%v %+v", err, r)
	}
	if made.URL == "" || len(made.Publish) == 0 || len(made.Subscribe) == 0 || made.Creds != creds {
		t.Errorf("%+v", made)
	}
	st, err := os.Stat(creds)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st, err)
	}
	if account, room, bot, err := sdkcreds.Read(creds); err != nil || len(account) != 40 || room != "main" || bot != "echo" {
		t.Errorf("the file is of %s in %s, %q: %v", bot, room, account, err)
	}
	text, err := os.ReadFile(creds)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.creds")
	for at := 0; at < bytes.Index(text, []byte("END USER NKEY SEED"))-10; at += 53 {
		if err := os.WriteFile(cut, text[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := sdkcreds.Read(cut); err == nil || !strings.Contains(err.Error(), cut) || !strings.Contains(err.Error(), "parley bot create") {
			t.Errorf("cut after %d of %d bytes: %v", at, len(text), err)
		}
	}
	if !strings.Contains(string(text), "BEGIN USER NKEY SEED") || strings.Contains(r.out, "BEGIN") {
		t.Error("the seed must stand in the file and nowhere else")
	}
	if r := parley(n.env, "", "bot", "create", "echo2", "--room", "main", "--out", creds); r.code != exitRefused {
		t.Errorf("a file is overwritten: %+v", r)
	}
	gone := filepath.Join(t.TempDir(), "gone.creds")
	if r := parley(n.env, "", "bot", "create", "echo", "--room", "main", "--out", gone); r.code != exitRefused {
		t.Errorf("the same name again: %+v", r)
	}
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Error("a refusal left a file behind")
	}
	if r := parley(n.env, "", "bot", "create", "lonely", "--room", "nowhere", "--out", gone); r.code != exitNotFound || !strings.Contains(r.err, "parley room create nowhere") {
		t.Errorf("a bot for no room: %+v", r)
	}
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Error("a refusal left a file behind")
	}
	if r := parley(n.env, "", "__complete", "bot", "create", "x", "--room", "ma"); !strings.Contains(r.out, "main\n") {
		t.Errorf("completion of --room: %+v", r)
	}
	if r := parley(n.env, "", "__complete", "bot", "create", "x", "--allow", "listen,s"); !strings.Contains(r.out, "listen,speak\n") {
		t.Errorf("completion of --allow: %+v", r)
	}
	r = parley(n.env, "", "bot", "create", "said", "--room", "main", "--allow", "listen,speak", "--out", gone)
	if next := "./examples/echo -creds " + gone + " -url " + made.URL + "\n"; r.code != exitOK || !strings.Contains(r.out, next) || !strings.Contains(r.out, "cmd.said.{join,") || !strings.Contains(r.out, ".room.main.\n") {
		t.Errorf("as text: %+v, want %q", r, next)
	}
	r = parley(n.env, "", "bot", "create", "piped", "--room", "main", "--out", "-", "--json")
	if r.code != exitOK || !strings.Contains(r.out, "BEGIN USER NKEY SEED") || !strings.HasPrefix(r.out, "-----BEGIN NATS USER JWT") || !strings.Contains(r.err, `"url"`) {
		t.Errorf("to standard output: %+v", r)
	}
	full := &app{in: strings.NewReader(""), out: fullDisk{}, err: new(bytes.Buffer), env: n.env}
	if code := full.main(t.Context(), []string{"bot", "create", "lost", "--room", "main", "--out", "-"}); code != exitError {
		t.Errorf("credentials that could not be written: exit code %d: %s", code, full.err)
	}
	var all contract.BotList
	if r := parley(n.env, "", "bot", "list", "--json"); json.Unmarshal([]byte(r.out), &all) != nil {
		t.Errorf("%+v", r)
	}
	for _, b := range all.Bots {
		if (b.Revoked != nil) != (b.Name == "lost") {
			t.Errorf("%+v", b)
		}
	}
	if r := parley(n.env, "", "bot", "list"); !strings.Contains(r.out, "echo") {
		t.Errorf("%+v", r)
	}
	if r := parley(n.env, "", "bot", "revoke", "echo"); r.code != exitOK {
		t.Errorf("%+v", r)
	}
	if r := parley(n.env, "", "bot", "revoke", "nobody"); r.code != exitNotFound {
		t.Errorf("%+v", r)
	}
}

func simOthers(t *testing.T, n *node) {
	if r := parley(n.env, "", "sim", "--room", "nowhere", "--speakers", "1", "--seconds", "1"); r.code != exitNotFound || r.out != "" {
		t.Errorf("no room: %+v", r)
	}
	creds := filepath.Join(t.TempDir(), "guest.creds")
	if r := parley(n.env, "", "bot", "create", "guest", "--room", "main", "--allow", "chat,speak", "--out", creds); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	bot, err := sdk.Connect(sdk.Options{Creds: creds, URL: "nats://" + n.cfg.Bus.Listen})
	if err != nil {
		t.Fatal(err)
	}
	defer bot.Close()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { // as soon as it has begun
		err := bot.Events(ctx, 1, func(e contract.RoomEvent) {
			if e.Type != contract.EventJoined || e.Participant.Name != "Speaker 1" {
				return
			}
			_, err := bot.Join(ctx, "Guest")
			if err == nil {
				_, err = bot.Chat(ctx, "good morning")
			}
			if err := errors.Join(err, bot.Leave()); err != nil {
				t.Error(err)
			}
			stop()
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	r := parley(n.env, "", "sim", "--speakers", "1", "--seconds", "4", "--json")
	var did []string
	for dec := json.NewDecoder(strings.NewReader(r.out)); dec.More(); {
		var e simroom.Event
		if err := dec.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Other != (e.Who == "Guest") || e.Other != (e.ID == "guest") {
			t.Errorf("%+v", e)
		}
		if e.Other {
			did = append(did, e.What+" "+e.Text)
		}
	}
	if got := strings.Join(did, ","); r.code != exitOK || got != "join ,chat good morning,leave left" {
		t.Errorf("%q of %+v", got, r)
	}
}

func interrupts(t *testing.T, n *node) {
	for want, args := range map[int][]string{
		exitOK:    {"sim", "--speakers", "2", "--seconds", "60"},
		exitError: {"bench", "mix", "--listeners", "3", "--speakers", "1", "--seconds", "60"},
	} {
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Env = append(append(os.Environ(), n.env...), envPlay+"=1", "GORACE=atexit_sleep_ms=0")
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() }) // an error: it has ended, as it should
		in := func() int { st, _ := n.status(t); return st.Rooms[0].Total }
		eventually(t, args[0]+" is in the room", func() bool { return in() >= 2 })
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() // the exit code is looked at
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("%s: exit code %d: %s", args[0], code, &said)
		}
		if left := in(); left != 0 {
			t.Errorf("%s left %d behind", args[0], left)
		}
	}
}

func TestPortInUseNamesTheSetting(t *testing.T) {
	for setting, network := range map[string]string{"sip.listen": "udp", "http.listen": "tcp", "bus.listen": "tcp", "dht.listen": "udp", "admin.listen": "tcp", "media.listen": "udp"} {
		t.Run(setting, func(t *testing.T) {
			tr := newTrial(t)
			addr := map[string]string{"sip.listen": tr.cfg.SIP.Listen, "http.listen": tr.cfg.HTTP.Listen, "bus.listen": tr.cfg.Bus.Listen,
				"dht.listen": tr.cfg.DHT.Listen, "admin.listen": tr.cfg.Admin.Listen, "media.listen": tr.cfg.Media.Listen}[setting]
			if network == "udp" {
				c, err := net.ListenPacket("udp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			} else {
				l, err := net.Listen("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
			}
			n := tr.up(t)
			if code := n.wait(t); code != exitError {
				t.Errorf("exit code %d", code)
			}
			if said := n.said(); !strings.Contains(said, setting) || !strings.Contains(said, addr) || !strings.Contains(said, "in use") {
				t.Errorf("it said %q", said)
			}
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	n := newTrial(t).up(t)
	eventually(t, "the supervisor answers", func() bool { st, _ := n.status(t); return st.pid("bus") != 0 })
	st, _ := n.status(t)
	// A process that hangs keeps the drain waiting.
	if err := syscall.Kill(st.pid("connect"), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if err := n.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if code := n.wait(t); code != exitError {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}
