package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/supervise"
)

// A machine under load makes the supervisor slow; the command line must not take
// that for a node that does not run.
func TestASlowSupervisorIsNotMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after time.Duration
		words string
	}{
		"slow":  {time.Second, "the bus of the node has not started yet"},
		"hangs": {time.Minute, "the supervisor of the node on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.MkdirTemp("", "ply") // short: it holds a Unix socket
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(data) })
			if err := os.Mkdir(filepath.Join(data, "run"), 0o700); err != nil {
				t.Fatal(err)
			}
			l, err := supervise.ListenUp(data)
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
				case <-time.After(c.after):
					if err := json.NewEncoder(w).Encode(&localStatus{Node: supervise.Node{BusURL: "nats://127.0.0.1:1"}}); err != nil {
						t.Error(err)
					}
				}
			}))
			srv.Listener.Close() // its own; an error would be of a closed one
			srv.Listener = l
			srv.Start()
			defer srv.Close()
			r := parley([]string{"PARLEY_DATA=" + data}, "", "room", "list")
			if r.code != exitUnavailable || !strings.Contains(r.err, c.words) || strings.Contains(r.err, "no node") {
				t.Errorf("%+v", r)
			}
		})
	}
}
