package main

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// The command line against a node in OpenDHT's network, with one other node in it.
func TestDHT(t *testing.T) {
	t.Parallel()
	tr := newTrial(t).settled(t)
	at := tr.cfg.DHT.Listen // unused by the other overlay
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := opendht.New(opendht.Options{Key: key, Listen: "127.0.0.1:0", Bootstrap: []string{at}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	n := tr.up(t, "--dht.overlay", "opendht", "--dht.opendht_listen", at, "--dht.opendht_bootstrap", other.Node().Addresses[0])
	var st contract.DHTStats
	eventually(t, "both know each other", func() bool {
		r := parley(n.env, "", "dht", "stats", "--json")
		return r.code == exitOK && json.Unmarshal([]byte(r.out), &st) == nil && st.Overlays[0].Tables[0].Good == 1 && other.Node().Peers == 1
	})
	eventually(t, "an account", func() bool { return parley(n.env, "", "account", "show").code == exitOK })
	run := func(code int, stdin string, args ...string) result {
		t.Helper()
		r := parley(n.env, stdin, append([]string{"dht"}, args...)...)
		if r.code != code {
			t.Errorf("dht %v: exit code %d, want %d: %s", args, r.code, code, r.err)
		}
		return r
	}
	put := func(stdin string, args ...string) (p dhtPut) {
		t.Helper()
		r := run(exitOK, stdin, append([]string{"put", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(r.out), &p); err != nil || len(p.IDs) == 0 {
			t.Fatalf("%v: %+v", err, r)
		}
		return p
	}
	get := func(key string) (vs []dhtValue) {
		t.Helper()
		r := run(exitOK, "", "get", "--json", key)
		var l struct{ Values []dhtValue }
		if err := json.Unmarshal([]byte(r.out), &l); err != nil {
			t.Fatalf("%v: %+v", err, r)
		}
		return l.Values
	}
	var acc contract.Account
	if err := json.Unmarshal([]byte(parley(n.env, "", "account", "show", "--json").out), &acc); err != nil {
		t.Fatal(err)
	}

	t.Run("put, get, cancel", func(t *testing.T) {
		p := put("", "tea", "at five", "--permanent", "--id", "7")
		if p.Key != jami.HashKey("tea").String() || p.IDs[0] != "7" || p.Peers != 1 || !p.Permanent {
			t.Errorf("%+v", p)
		}
		if vs, err := other.Get(t.Context(), overlay.Key(jami.HashKey("tea"))); err != nil || len(vs) != 1 || string(vs[0].Data) != "at five" {
			t.Errorf("the other node has %v, %v", vs, err)
		}
		put("", "tea", "at six", "--permanent", "--id", "7")
		if vs := get(p.Key); len(vs) != 1 || vs[0].Text != "at six" || !vs[0].Verified || vs[0].ID != "7" {
			t.Errorf("%+v", vs)
		}
		if r := run(exitOK, "", "get", "tea"); !strings.Contains(r.out, "at six") || !strings.Contains(r.out, "signed by node") {
			t.Error(r.out)
		}
		run(exitOK, "", "cancel", "tea", "7")
		run(exitNotFound, "", "cancel", "tea", "7")
		run(exitNotFound, "", "get", "tea")
	})
	t.Run("files", func(t *testing.T) {
		data := []byte{0, 1, 2, 0xff}
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		put("", "file", "--file", name)
		put(string(data), "pipe", "--file", "-", "--type", "5")
		for _, k := range []string{"file", "pipe"} {
			if vs := get(k); len(vs) != 1 || !slices.Equal(vs[0].Data, data) || vs[0].Text != "" {
				t.Errorf("%+v", vs)
			}
			if r := run(exitOK, "", "get", k); !strings.Contains(r.out, "000102ff") {
				t.Error(r.out)
			}
		}
		if vs := get("pipe"); vs[0].Type != 5 || vs[0].TTLMs > 60_000 {
			t.Errorf("%+v", vs)
		}
		run(exitUsage, strings.Repeat("x", jami.MaxValue+1), "put", "big", "--file", "-")
		run(exitError, "", "put", "none", "--file", "/nowhere")
	})
	t.Run("signed and encrypted", func(t *testing.T) {
		p := put("", "mine", "signed", "--sign", "--user-type", "note", "--seq", "3")
		v := get("mine")[0]
		if !p.Signed || v.Signer != acc.DeviceShort || !v.Verified || v.Text != "signed" || v.UserType != "note" || v.Seq != 3 || v.ID != p.IDs[0] {
			t.Errorf("%+v", v)
		}
		eventually(t, "the device is announced, and its certificate", func() bool {
			return parley(n.env, "", "dht", "put", "early letter", "to myself", "--encrypt-to", acc.ID).code == exitOK
		})
		p = put("", "letter", "to myself", "--encrypt-to", acc.ID)
		if len(p.For) != 1 || p.For[0] != acc.DeviceID {
			t.Errorf("%+v", p)
		}
		if v := get("letter")[0]; !v.Encrypted || !v.Decrypted || v.Text != "to myself" || v.Signer != acc.DeviceShort {
			t.Errorf("%+v", v)
		}
		e, err := (&jami.Value{ID: 9, Data: []byte("secret")}).EncryptTo(key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Put(t.Context(), overlay.Value{Key: overlay.Key(jami.HashKey("others")), Data: b}, false); err != nil {
			t.Fatal(err)
		}
		if r := run(exitOK, "", "get", "others"); !strings.Contains(r.out, "encrypted to another") {
			t.Error(r.out)
		}
		run(exitNotFound, "", "put", "x", "y", "--encrypt-to", strings.Repeat("ab", 20))
		run(exitUsage, "", "put", "x", "y", "--encrypt-to", "alice")
	})
	t.Run("Jami's own values", func(t *testing.T) {
		if v := get(acc.ID)[0]; v.What != "announcement" || v.Signer != acc.ID || !strings.HasSuffix(v.Says, acc.DeviceShort) {
			t.Errorf("%+v", v)
		}
		eventually(t, "the certificate is there", func() bool { return parley(n.env, "", "dht", "get", acc.DeviceShort).code == exitOK })
		if v := get(acc.DeviceShort)[0]; v.What != "certificate" || !strings.Contains(v.Says, acc.DeviceID) || !strings.Contains(v.Says, acc.ID) {
			t.Errorf("%+v", v)
		}
	})
	t.Run("listen", func(t *testing.T) { listens(t, n, put) })
	t.Run("ping", func(t *testing.T) {
		var p dhtPings
		r := run(exitOK, "", "ping", other.Node().Addresses[0], "--count", "2", "--interval", "50ms", "--json")
		if err := json.Unmarshal([]byte(r.out), &p); err != nil || p.Asked != 2 || p.Answered != 2 || p.Lost != 0 || len(p.Pongs) != 2 || p.LeastMs <= 0 || p.MeanMs > p.MostMs {
			t.Errorf("%v %+v", err, r)
		}
		silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		if r := run(exitUnavailable, "", "ping", silent.LocalAddr().String(), "--count", "1"); !strings.Contains(r.out, "no answer") || !strings.Contains(r.err, "does not answer") {
			t.Errorf("%+v", r)
		}
		run(exitUsage, "", "ping", "224.0.0.1:4222")
	})
	t.Run("stats", func(t *testing.T) {
		r := run(exitOK, "", "stats")
		for _, want := range []string{"opendht", "ipv4", "refresh", "dropped", other.Node().Addresses[0] + "  answers"} {
			if !strings.Contains(r.out, want) {
				t.Errorf("no %q in\n%s", want, r.out)
			}
		}
		if strings.Contains(r.out, "warning") {
			t.Error(r.out)
		}
	})
	t.Run("scan", func(t *testing.T) {
		var d contract.DHTScanned
		r := run(exitOK, "", "scan", "--list", "--time", "5s", "--json")
		if err := json.Unmarshal([]byte(r.out), &d); err != nil || d.Found != 1 || !d.Whole || len(d.Nodes) != 1 || d.Nodes[0].Addr != other.Node().Addresses[0] {
			t.Errorf("%v %+v", err, r)
		}
		run(exitUsage, "", "scan", "--rate", "100000")
	})
}

// listens follows a key from another process, as a person does.
func listens(t *testing.T, n *node, put func(string, ...string) dhtPut) {
	put("", "news", "before", "--id", "1")
	cmd := exec.Command("/proc/self/exe", "dht", "listen", "news", "--json")
	cmd.Env = append(append(os.Environ(), n.env...), envPlay+"=1", "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() }) // an error: it has ended, as it should
	late := time.AfterFunc(40*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	lines := bufio.NewScanner(out)
	next := func(event, id, text string) {
		t.Helper()
		var e dhtEvent
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &e) != nil || e.Event != event || e.Value.ID != id || e.Value.Text != text {
			t.Fatalf("got %q, want %s of %q", lines.Bytes(), event, text)
		}
	}
	next("there", "1", "before")
	put("", "news", "now", "--id", "2")
	next("new", "2", "now")
	if r := parley(n.env, "", "dht", "cancel", "news", "2"); r.code != exitOK {
		t.Errorf("%+v", r)
	}
	next("gone", "2", "now")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
