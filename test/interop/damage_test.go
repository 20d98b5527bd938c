//go:build interop

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

// damage is done to one file of a stopped node.
type damage struct {
	name    string
	file    string              // pattern below the data directory
	do      func([]byte) []byte // nil: the file is made of junk
	says    []string            // in one line of the log, besides the file's name
	aside   string              // set aside under the name with this added, as documented; else left as it is
	joins   bool                // people can still join the room other
	ready   bool                // the node can be joined, so /readyz says yes
	dies    string              // the process that ends with these words, to be started again with a longer and longer pause
	refused func(t *testing.T, m *node) string
}

func half(b []byte) []byte { return b[:len(b)/2] }

func flip(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)/3] ^= 0x55
	return b
}

func (m *node) botRoom(t *testing.T, creds string) *parley.Room {
	t.Helper()
	r, err := parley.Connect(parley.Options{Creds: creds, URL: m.busURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// A damaged file is refused in words that say how to restore it, or set aside
// where that is documented; it is never overwritten, what needs it not goes on, and
// no process is started again and again.
func TestDamagedState(t *testing.T) {
	n := startNode(t)
	creds := filepath.Join(t.TempDir(), "c")
	if err := os.Mkdir(creds, 0o700); err != nil {
		t.Fatal(err)
	}
	inMain, inOther := filepath.Join(creds, "main"), filepath.Join(creds, "other")
	n.parley("room", "create", "other")
	n.parley("bot", "create", "talker", "--room", "main", "--allow", "chat", "--out", inMain)
	n.parley("bot", "create", "guest", "--room", "other", "--allow", "chat", "--out", inOther)
	talker := n.botRoom(t, inMain)
	if _, err := talker.Join(context.Background(), "Talker"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := talker.Chat(context.Background(), fmt.Sprint("message ", i)); err != nil {
			t.Fatal(err)
		}
	}
	talker.Close()
	n.stop()

	call := func(room string, f func(ctx context.Context, r *parley.Room) error) func(*testing.T, *node) string {
		return func(t *testing.T, m *node) string {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			err := f(ctx, m.botRoom(t, room))
			if !errors.Is(err, contract.ErrStateDamaged) {
				t.Errorf("refused with %v, want %q", err, contract.ErrStateDamaged.Code)
			}
			return fmt.Sprint(err)
		}
	}
	join := call(inMain, func(ctx context.Context, r *parley.Room) error { _, err := r.Join(ctx, "x"); return err })
	history := call(inMain, func(ctx context.Context, r *parley.Room) error {
		_, err := parley.Call(ctx, r, contract.RoomHistory, contract.ChatQuery{})
		return err
	})
	for _, d := range []damage{
		{name: "account", file: "identity/*/archive.gz", do: half, says: []string{"backup"}},
		{name: "device key", file: "identity/*/ring_device.key", do: half, says: []string{"backup"}},
		{name: "list of bots", file: "identity/bots.json", do: half, says: []string{"backup"}, joins: true, ready: true, refused: func(t *testing.T, m *node) string {
			out, err := m.try("bot", "create", "new", "--room", "main", "--out", filepath.Join(t.TempDir(), "x"))
			if err == nil {
				t.Errorf("a bot was made: %s", out)
			}
			return out
		}},
		{name: "room's journal", file: "conference/rooms/main.log", do: flip, says: []string{"move the file away"}, joins: true, ready: true, refused: join},
		{name: "room's settings", file: "conference/rooms/main.json", do: half, says: []string{"backup", "main.prev"}, joins: true, ready: true, refused: join},
		{name: "chat's last commit", file: "swarm/*/conversations/MAIN/.git/HEAD*", do: half, says: []string{"backup"}, joins: true, ready: true, refused: history},
		{name: "chats of the rooms", file: "swarm/*/rooms.json", do: half, says: []string{"backup"}, joins: true, ready: true},
		{name: "overlay's key", file: "dht/node.key", do: half, says: []string{"backup"}, joins: true, ready: true},
		{name: "overlay's values", file: "dht/permanent.json", says: []string{"backup"}, joins: true, ready: true},
		{name: "session key", file: "connect/session.key", do: half, says: []string{"restore"}, dies: "connect"},
		{name: "bus keys", file: "bus/keys/keys.json", do: half, says: []string{"backup"}, dies: "bus"},
		{name: "leg", file: "media/legs/00000000000000aa.json", aside: ".damaged", joins: true, ready: true, dies: "media"},
		{name: "SIP dialog", file: "connect/sip/junk.json", aside: ".bad", joins: true, ready: true},
	} {
		t.Run(d.name, func(t *testing.T) {
			data := t.TempDir()
			if out, err := exec.Command("cp", "-a", n.data+"/.", data).CombinedOutput(); err != nil {
				t.Fatalf("copy: %v %s", err, out)
			}
			m := newNode(t, data)
			var path string
			var bad []byte
			if d.dies == "media" { // which forgets the legs of a node that was stopped
				m.start()
				path, bad = d.spoil(t, data)
				if err := syscall.Kill(m.pid("media"), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			} else {
				path, bad = d.spoil(t, data)
				m.launch()
			}
			t.Cleanup(m.stop)
			name := filepath.Base(path)
			if d.name == "chat's last commit" { // the objects are named by their hash, in folders
				name = filepath.Base(filepath.Dir(path)) + name
			}
			var line string
			m.wait("the log names "+name, 15*time.Second, func() bool { line = lineWith(m.out.String(), name); return line != "" })
			for _, s := range d.says {
				if !strings.Contains(line, s) {
					t.Errorf("the log does not say %q: %s", s, line)
				}
			}
			if d.ready {
				m.wait("joinable", 10*time.Second, m.ready)
			}
			said := ""
			if d.refused != nil {
				said = d.refused(t, m)
				if !strings.Contains(said, name) {
					t.Errorf("the refusal does not name %s: %s", name, said)
				}
			}
			if d.joins {
				ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
				defer cancel()
				if _, err := m.botRoom(t, inOther).Join(ctx, "Guest"); err != nil {
					t.Errorf("the other room: %v", err)
				}
			}
			time.Sleep(time.Second) // for a restart or a late overwriting to show
			if got := m.ready(); got != d.ready {
				t.Errorf("/readyz says ready: %v", got)
			}
			for line := range strings.Lines(m.out.String()) {
				if strings.Contains(line, "process ended") && (d.dies == "" || !strings.Contains(line, fmt.Sprintf(`"process":%q`, d.dies))) {
					t.Errorf("a process ended: %s", line)
				}
			}
			where := path + d.aside
			now, err := os.ReadFile(where)
			if err != nil || !bytes.Equal(now, bad) {
				t.Errorf("the damaged file was changed (%v)", err)
			}
			fmt.Printf("bad input: damaged %s: %.400s\n", d.name, strings.ReplaceAll(message(line), data, "DATA"))
		})
	}
}

// conversation returns the id of a room's chat.
func conversation(t *testing.T, data, room string) string {
	t.Helper()
	maps, err := filepath.Glob(filepath.Join(data, "swarm/*/rooms.json"))
	if err != nil || len(maps) != 1 {
		t.Fatalf("rooms.json: %v %v", maps, err)
	}
	text, err := os.ReadFile(maps[0])
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	if err := json.Unmarshal(text, &ids); err != nil || ids[room] == "" {
		t.Fatalf("%s: %s, %v", maps[0], text, err)
	}
	return ids[room]
}

// spoil does the damage and returns the file with its new content.
func (d *damage) spoil(t *testing.T, data string) (path string, bad []byte) {
	t.Helper()
	pattern := filepath.Join(data, d.file)
	if d.do == nil {
		path, bad = pattern, []byte("\x00 this is no state \xff")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
	} else {
		if before, after, ok := strings.Cut(pattern, "MAIN"); ok {
			pattern = before + conversation(t, data, "main") + after
		}
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %v %v", pattern, files, err)
		}
		path = files[0]
		if filepath.Base(path) == "HEAD" { // the commit that it names
			head, err := os.ReadFile(filepath.Join(filepath.Dir(path), "refs/heads/main"))
			if err != nil {
				t.Fatal(err)
			}
			h := strings.TrimSpace(string(head))
			path = filepath.Join(filepath.Dir(path), "objects", h[:2], h[2:])
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad = d.do(b)
		if err := os.Chmod(path, 0o600); err != nil { // objects of Git are read-only
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, bad
}

func lineWith(log, text string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// message is a log line from its message on.
func message(line string) string {
	if _, rest, ok := strings.Cut(line, `"msg":`); ok {
		return rest
	}
	return line
}
