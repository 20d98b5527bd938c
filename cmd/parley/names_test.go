package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/names/namestest"
)

// A name server as an operator runs it: settings from the environment, health,
// metrics, look-ups by the command line, an orderly end.
func TestNameServer(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	dir := filepath.Join(tr.data, "elsewhere")
	server := "http://" + tr.cfg.HTTP.Listen
	var log strings.Builder
	cmd := exec.Command("/proc/self/exe", "run", "names")
	cmd.Env = append(append(os.Environ(), tr.env...), envPlay+"=1", "GORACE=atexit_sleep_ms=0",
		"PARLEY_NAMES_LISTEN="+tr.cfg.HTTP.Listen, "PARLEY_NAMES_DATA="+dir)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill() // an error: it has ended, as it should
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	for end := time.Now().Add(20 * time.Second); parley(tr.env, "", "ready").code != exitOK; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not ready")
		}
	}
	c, err := names.New(names.Options{Server: server})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	account := namestest.Accounts(t, 1)[0]
	if err := c.Register(t.Context(), "Alice", "00", account); err != nil {
		t.Fatal(err)
	}
	want, err := names.Sign("alice", account)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"aLICE", want.Addr.String(), "0x" + want.Addr.String()} {
		r := parley(nil, "", "names", "lookup", what, "--server", server, "--json")
		var got namesFound
		if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != exitOK || got != (namesFound{"alice", want.Addr.String(), true}) {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if r := parley(nil, "", "names", "lookup", "alice", "--server", server); r.code != exitOK || !strings.Contains(r.out, want.Addr.String()) {
		t.Errorf("%+v", r)
	}
	for _, what := range []string{"bobby", strings.Repeat("0", 39) + "1"} {
		if r := parley(nil, "", "names", "lookup", what, "--server", server); r.code != exitNotFound || r.out != "" {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if r := parley(nil, "", "names", "lookup", "alice", "--server", "https://"+tr.cfg.HTTP.Listen); r.code != exitUnavailable || !strings.Contains(r.err, "http://") {
		t.Errorf("https:// to a plain server: %+v", r)
	}
	second := exec.Command("/proc/self/exe", "run", "names", "--log.format", "text", "--names.data", filepath.Join(tr.data, "second"))
	second.Env = cmd.Env
	said, err := second.CombinedOutput()
	if err == nil || strings.Count(string(said), "in use by another program; stop it, or set admin.listen") != 1 {
		t.Errorf("%v; it said %s", err, said)
	}
	resp, err := http.Get("http://" + tr.cfg.Admin.Listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"parley_names_registered 1", `parley_names_requests_total{op="register",result="ok"} 1`, `parley_names_requests_total{op="lookup",result="limited"} 0`,
	} {
		if !strings.Contains(string(page), line+"\n") {
			t.Errorf("/metrics has no %s", line)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "names.db")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(tr.data, "names")); err == nil {
		t.Error("the data directory has names too")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if !strings.Contains(log.String(), `"stopped"`) {
		t.Errorf("it does not say that it stopped: %s", &log)
	}
}

func TestNameServerIsNoPartOfANode(t *testing.T) {
	for _, p := range processes {
		for _, q := range alone {
			if p.name == q.name {
				t.Errorf("%s is both", p.name)
			}
		}
	}
}
