//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStockFetchesAFile: a stock daemon gets a file of its conversation from our node, whose
// account it has invited. The node does not have the conversation: what the commit says of the file it
// is told.
func TestStockFetchesAFile(t *testing.T) {
	t.Setenv("RIG_DHT", "none")
	r := startRig(t, 1)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht")
	p := r.peer(1)
	t.Cleanup(func() {
		if t.Failed() {
			r.said(1, "transfer", "download", "file", "channel")
		}
	})
	alice, aliceID := p.account("alice", map[string]string{"Account.hostname": rigSUT + ":4224"})
	var own struct{ ID string }
	n.ask(&own, "account", "show")
	n.logged(time.Minute, "device announced")

	dir := shortDir(t)
	data := bytes.Repeat([]byte("stock daemons read files, "), 40_000)
	path := filepath.Join(dir, "photo.png")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var conv string
	p.call(&conv, "configuration.startConversation", alice)
	p.call(nil, "configuration.addConversationMember", alice, conv, own.ID)
	from := p.mark()
	p.call(nil, "configuration.sendFile", alice, conv, path, "photo.png", "")
	var m map[string]string
	for end := time.Now().Add(30 * time.Second); m["type"] != "application/data-transfer+json"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the daemon does not announce its file")
		}
		for _, e := range p.events(from) {
			if e.name == "messageReceived" && m["type"] != "application/data-transfer+json" {
				if err := json.Unmarshal(e.args[2], &m); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Logf("files: the daemon announces %v", m)

	// Another holder has it: we.
	var sent struct {
		SHA3 string `json:"sha3"`
		Size int64
	}
	n.ask(&sent, "file", "send", aliceID, path, "--conversation", conv, "--commit", m["id"], "--tid", m["tid"])
	if sent.SHA3 != m["sha3sum"] || sent.Size != int64(len(data)) {
		t.Errorf("we say %+v of it", sent)
	}
	// The daemon loses its own.
	err := filepath.WalkDir(filepath.Join(r.state, "p1"), func(at string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), m["id"]+"_") {
			return os.Remove(at)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	follow := n.lines("file", "follow")
	to := filepath.Join(dir, "came.png")
	from = p.mark()
	began := time.Now()
	p.call(nil, "configuration.downloadFile", alice, conv, m["id"], m["fileId"], to)
	for end := time.Now().Add(time.Minute); !slices.ContainsFunc(p.events(from), func(e rigEvent) bool {
		return e.name == "dataTransferEvent" && string(e.args[len(e.args)-1]) == "6"
	}); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the daemon does not have it; the node says %s", follow)
		}
	}
	t.Logf("files: a stock daemon has fetched %d bytes of our node after %v", len(data), time.Since(began))
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	n.stop()
}

// TestFilesBetweenNodes: a file of one of our nodes comes to another.
func TestFilesBetweenNodes(t *testing.T) {
	t.Setenv("RIG_DHT", "none")
	r := startRig(t, 1)
	a := r.startNode(shortDir(t), "--dht.overlay", "opendht")
	b := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", rigSUT+":4224", "--bus.listen", "127.0.0.1:5223", "--http.listen", ":9080", "--http.tls_listen", "",
		"--sip.listen", "", "--sip.tls_listen", "", "--media.listen", ":25000", "--dht.listen", "0.0.0.0:5222", "--dht.opendht_listen", ":5224", "--admin.listen", "127.0.0.1:9190", "--jami.listen", ":5225")
	var alice, bob struct{ ID string }
	a.ask(&alice, "account", "show")
	b.ask(&bob, "account", "show")
	a.logged(time.Minute, "device announced")

	dir := shortDir(t)
	path, to := filepath.Join(dir, "film.mkv"), filepath.Join(dir, "came.mkv")
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var sent struct{ Link string }
	began := time.Now()
	a.ask(&sent, "file", "send", bob.ID, path)
	t.Logf("files: %d MiB are offered after %v", len(data)>>20, time.Since(began))
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		var l struct{ Devices []struct{ Connected bool } }
		if out, err := b.try("account", "reach", alice.ID); err == nil && json.Unmarshal(out, &l) == nil && len(l.Devices) == 1 && l.Devices[0].Connected {
			break
		}
		if time.Now().After(end) {
			t.Fatal("one node does not reach the other")
		}
	}
	began = time.Now()
	b.ask(nil, "file", "get", sent.Link, "--out", to)
	took := time.Since(began)
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	t.Logf("files: %d MiB from node to node in %v, %.0f MiB/s", len(data)>>20, took, float64(len(data)>>20)/took.Seconds())
	b.stop()
	a.stop()
}
