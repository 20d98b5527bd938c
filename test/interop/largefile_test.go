//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// largeFile is how much is sent each way.
const largeFile = 100 << 20

// writeFile writes random bytes and returns their SHA3-512.
func writeFile(t *testing.T, path string, seed byte) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha3.New512()
	if _, err := io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8([32]byte{seed}), largeFile); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha3.New512()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// grows waits until a file that a pattern names has so many bytes, and returns how many.
func grows(t *testing.T, pattern string, most int64, limit time.Duration) int64 {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range found {
			if info, err := os.Stat(p); err == nil && info.Size() >= most {
				return info.Size()
			}
		}
	}
	t.Fatalf("%s does not get %d bytes within %v", pattern, most, limit)
	return 0
}

// pid is a process of the node.
func (n *rigNode) pid(name string) int {
	n.r.t.Helper()
	var st struct {
		Processes []struct {
			Name string
			PID  int
		}
	}
	n.ask(&st, "status")
	for _, p := range st.Processes {
		if p.Name == name {
			return p.PID
		}
	}
	n.r.t.Fatalf("no process %s", name)
	return 0
}

// jamid is the process of a stock daemon.
func (r *rig) jamid(i int) int {
	r.t.Helper()
	out, err := exec.Command("ip", "netns", "pids", fmt.Sprintf("rp%d", i)).Output()
	if err != nil {
		r.t.Fatal(err)
	}
	for f := range strings.FieldsSeq(string(out)) {
		if exe, err := os.Readlink("/proc/" + f + "/exe"); err == nil && strings.HasSuffix(exe, "/jamid") {
			pid, err := strconv.Atoi(f)
			if err != nil {
				r.t.Fatal(err)
			}
			return pid
		}
	}
	r.t.Fatalf("daemon %d does not run", i)
	return 0
}

// transfers are what a command that follows files said of one.
func transfers(out *lockedBuffer, commit string) (all []fileNews) {
	for s := bufio.NewScanner(strings.NewReader(out.String())); s.Scan(); {
		var n struct{ File *fileNews }
		if json.Unmarshal(s.Bytes(), &n) == nil && n.File != nil && n.File.Commit == commit {
			all = append(all, *n.File)
		}
	}
	return all
}

type fileNews struct {
	ID, Commit, State, Why, Path string
	Given                        bool
	Bytes                        int64
}

// lineSpeed is what iperf3 makes of the link between a daemon and the node, in MiB/s.
func lineSpeed(t *testing.T, r *rig) float64 {
	t.Helper()
	server := r.sut("iperf3", "-s", "-1")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait() //nolint:errcheck // it ends with its one client
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var out bytes.Buffer
		cmd := exec.Command("ip", "netns", "exec", "rp1", "iperf3", "-J", "-t", "2", "-c", rigSUT)
		cmd.Stdout = &out
		err := cmd.Run()
		var x struct {
			End struct {
				Sum struct {
					Bps float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		if err == nil && json.Unmarshal(out.Bytes(), &x) == nil && x.End.Sum.Bps > 0 {
			return x.End.Sum.Bps / 8 / (1 << 20)
		}
		if time.Now().After(end) {
			server.Process.Kill() //nolint:errcheck // it has ended
			t.Fatalf("iperf3: %v %s", err, out.Bytes())
		}
	}
}

// TestLargeFilesWithStock: 100 MiB each way with a stock daemon, in a conversation. Half way the receiver is killed;
// both go on at the byte where they were.
func TestLargeFilesWithStock(t *testing.T) {
	r, n, own, peers := swarmRig(t, "alice")
	alice := peers[0]
	conv := alice.invites(n, own)
	n.ask(nil, "account", "request", "accept", alice.id)
	n.ready(conv, 2, time.Minute)
	dir := shortDir(t)
	line := lineSpeed(t, r)

	// From the daemon to us.
	theirs, came := filepath.Join(dir, "film.mkv"), filepath.Join(dir, "came.mkv")
	sum := writeFile(t, theirs, 1)
	inbox, follow := n.lines("message", "follow"), n.lines("file", "follow")
	began := time.Now()
	alice.call(nil, "configuration.sendFile", alice.acc, conv, theirs, "../../film.mkv", "")
	var x struct{ Conversation, Commit, TID, Name, SHA3 string }
	for end := time.Now().Add(30 * time.Second); x.Commit == ""; time.Sleep(20 * time.Millisecond) {
		for s := bufio.NewScanner(strings.NewReader(inbox.String())); s.Scan(); {
			var h struct {
				Message *struct {
					From string
					File *struct{ Conversation, Commit, TID, Name, SHA3 string }
				}
			}
			if json.Unmarshal(s.Bytes(), &h) == nil && h.Message != nil && h.Message.File != nil {
				x = *h.Message.File
			}
		}
		if time.Now().After(end) {
			t.Fatal("we are not told of the file")
		}
	}
	t.Logf("large files: the daemon's file is announced after %v, its reading included", time.Since(began).Round(10*time.Millisecond))
	if x.Name != "film.mkv" || x.SHA3 != sum {
		t.Errorf("%+v", x)
	}
	var listed struct {
		Announced []struct{ Commit, From string }
	}
	if n.ask(&listed, "file", "list"); len(listed.Announced) != 1 || listed.Announced[0].Commit != x.Commit || listed.Announced[0].From != alice.id {
		t.Errorf("listed is %+v", listed)
	}
	link := url.URL{Scheme: "data-transfer", Host: conv, Path: "/" + x.Commit + "_" + x.TID,
		RawQuery: url.Values{"from": {alice.id}, "name": {x.Name}, "size": {strconv.Itoa(largeFile)}, "sha3": {sum}}.Encode()}
	began = time.Now()
	get := r.sut(parleyBinary(t), "file", "get", link.String(), "--out", came, "--data", n.data)
	if err := get.Start(); err != nil {
		t.Fatal(err)
	}
	connect := n.pid("connect")
	had := grows(t, filepath.Join(n.data, "connect", "files", "in", "*", "*.part"), largeFile/3, 30*time.Second)
	if err := syscall.Kill(connect, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if err := get.Wait(); err != nil {
		t.Fatalf("file get: %v\n%s", err, follow)
	}
	whole := time.Since(began)
	t.Logf("large files: of the daemon's %d MiB we had %d when connect was killed; the rest is there %v later", largeFile>>20, had>>20, time.Since(killed).Round(10*time.Millisecond))
	if got := sumOf(t, came); got != sum {
		t.Error("other bytes came")
	}
	steps, resumed := transfers(follow, x.Commit), int64(0)
	for i := 1; i < len(steps); i++ {
		if steps[i].ID != steps[0].ID || steps[i].Bytes < had && steps[i-1].Bytes >= had {
			t.Errorf("it began anew: %+v", steps)
		}
		if steps[i].State == "running" && resumed == 0 && steps[i].Bytes >= had {
			resumed = steps[i].Bytes
		}
	}
	if resumed == 0 {
		t.Errorf("it was not resumed: %+v", steps)
	}
	t.Logf("large files: resumed at byte %d; %v in all", resumed, whole.Round(10*time.Millisecond))

	// Undisturbed, for its speed: the announced hash is known, so it is removed and fetched once more.
	for _, p := range []string{came, steps[len(steps)-1].Path} {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	began = time.Now()
	n.ask(nil, "file", "get", link.String())
	t.Logf("large files: %d MiB of the daemon in %v, %.0f MiB/s with the SHA3-512 of it; iperf3 on the link %.0f MiB/s", largeFile>>20,
		time.Since(began).Round(10*time.Millisecond), float64(largeFile>>20)/time.Since(began).Seconds(), line)

	// From us to the daemon, which is killed half way.
	ours, to := filepath.Join(dir, "ours.mkv"), filepath.Join(dir, "theirs.mkv")
	sum = writeFile(t, ours, 2)
	from := alice.mark()
	var sent struct{ Conversation, Commit, TID string }
	n.ask(&sent, "file", "send", alice.id, ours)
	m := alice.said(from, 30*time.Second, conv, func(m map[string]string) bool { return m["type"] == "application/data-transfer+json" })
	if m["id"] != sent.Commit || m["sha3sum"] != sum || m["totalSize"] != strconv.Itoa(largeFile) || sent.Conversation != conv {
		t.Fatalf("%+v is announced as %v", sent, m)
	}
	alice.call(nil, "configuration.downloadFile", alice.acc, conv, m["id"], m["fileId"], to)
	grows(t, to, largeFile/3, 30*time.Second)
	if err := syscall.Kill(r.jamid(1), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.run("stop", "1")
	r.run("start", "1")
	had = grows(t, to, 1, time.Second)
	alice = &swarmPeer{r.peer(1), alice.acc, alice.id}
	// A daemon of 13.7 keeps what it wants, and asks again when it has fetched the conversation: a download that its
	// app asks for anew begins at the first byte.
	began = time.Now()
	n.ask(nil, "message", "send", alice.id, "go on", "--wait", "60s")
	if grows(t, to, largeFile, 30*time.Second); had == largeFile {
		t.Error("it was killed too late")
	}
	t.Logf("large files: of ours the daemon had %d MiB when it was killed; the rest is there %v after it was started anew", had>>20, time.Since(began).Round(10*time.Millisecond))
	if got := sumOf(t, to); got != sum {
		t.Error("other bytes came to the daemon")
	}
	resumed = 0
	for _, s := range transfers(follow, m["id"]) {
		if s.State == "running" && s.Bytes == had {
			resumed = s.Bytes
		}
	}
	t.Logf("large files: it asked for what is behind byte %d", resumed)
	if resumed == 0 {
		t.Errorf("it did not go on where it was: %+v", transfers(follow, m["id"]))
	}
	n.stop()
}
