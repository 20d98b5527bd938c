package names_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/names/namestest"
)

// directory answers as the public server does: it knows what is registered, says of
// an account nothing but the name, and writes addresses with 0x.
type directory struct {
	t      *testing.T
	mu     sync.Mutex
	byName map[string]names.Record
	asked  atomic.Int64
}

func newDirectory(t *testing.T) (*directory, *httptest.Server) {
	d := &directory{t: t, byName: map[string]names.Record{}}
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	return d, srv
}

func (d *directory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.asked.Add(1)
	for h, want := range map[string]string{"User-Agent": "JamiDHT", "Accept": "*/*", "Content-Type": "application/json"} {
		if got := r.Header.Get(h); got != want {
			d.t.Errorf("%s: %q", h, got)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	say := func(status int, v map[string]any) {
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			d.t.Error(err)
		}
	}
	_, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case strings.HasPrefix(r.URL.Path, "/addr/"):
		for _, rec := range d.byName {
			if rec.Addr.String() == what {
				say(200, map[string]any{"name": rec.Name})
				return
			}
		}
		say(404, map[string]any{"error": "address not registered"})
	case r.Method == http.MethodPost:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			d.t.Error(err)
		}
		rec, err := names.ParseRegistration(what, body)
		old, taken := d.byName[what]
		switch {
		case errors.Is(err, names.ErrBadSignature):
			say(401, map[string]any{"success": false})
		case err != nil:
			say(400, map[string]any{"success": false})
		case taken && old.Addr != rec.Addr:
			say(403, map[string]any{"success": false, "name": what, "addr": "0x" + old.Addr.String()})
		default:
			d.byName[what] = rec
			say(200, map[string]any{"success": true})
		}
	default:
		rec, ok := d.byName[what]
		if !ok {
			say(404, map[string]any{"error": "name not registered"})
			return
		}
		var m map[string]any
		if err := json.Unmarshal(rec.Reply(), &m); err != nil {
			d.t.Error(err)
		}
		m["addr"] = "0x" + rec.Addr.String()
		say(200, m)
	}
}

func client(t *testing.T, server string) *names.Client {
	t.Helper()
	c, err := names.New(names.Options{Server: server})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestClient(t *testing.T) {
	d, srv := newDirectory(t)
	ctx := t.Context()
	keys := namestest.Accounts(t, 2)
	c := client(t, srv.URL+"/")
	if _, err := c.Lookup(ctx, "alice"); !errors.Is(err, names.ErrNotFound) {
		t.Fatal(err)
	}
	if err := c.Register(ctx, "Alice", "00", keys[0]); err != nil {
		t.Fatal(err)
	}
	if err := c.Register(ctx, "alice", "00", keys[0]); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := c.Register(ctx, "ALICE", "00", keys[1]); !errors.Is(err, names.ErrTaken) {
		t.Errorf("another account: %v", err)
	}
	if err := c.Register(ctx, "a", "00", keys[1]); !errors.Is(err, names.ErrInvalidName) {
		t.Errorf("invalid name: %v", err)
	}
	id, _, err := jami.PublicIDs(keys[0].Public())
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := jami.PublicIDs(keys[1].Public())
	if err != nil {
		t.Fatal(err)
	}
	// Who registered knows it without asking; another client asks once each way.
	before := d.asked.Load()
	if r, err := c.Lookup(ctx, "aLice"); err != nil || r.Addr != id || !r.Verified() {
		t.Errorf("%+v, %v", r, err)
	}
	if d.asked.Load() != before {
		t.Error("asked for what was just registered")
	}
	c2 := client(t, srv.URL)
	for range 3 {
		if r, err := c2.Lookup(ctx, "ALICE"); err != nil || r.Addr != id || r.Name != "alice" || !r.Verified() {
			t.Errorf("%+v, %v", r, err)
		}
		if r, err := c2.Reverse(ctx, id); err != nil || r.Name != "alice" || r.Addr != id || r.Verified() {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := c2.Reverse(ctx, other); !errors.Is(err, names.ErrNotFound) {
			t.Error(err)
		}
	}
	if n := d.asked.Load() - before; n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}

func TestCacheExpires(t *testing.T) {
	d, srv := newDirectory(t)
	var now atomic.Int64
	c, err := names.New(names.Options{Server: srv.URL, Now: func() time.Time { return time.Unix(now.Load(), 0) }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	look := func(name string, want error, asks int64) {
		t.Helper()
		before := d.asked.Load()
		if _, err := c.Lookup(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if n := d.asked.Load() - before; n != asks {
			t.Errorf("%s: asked %d times, want %d", name, n, asks)
		}
	}
	d.byName["alice"] = record(t, "alice", namestest.Accounts(t, 1)[0])
	look("alice", nil, 1)
	look("bobby", names.ErrNotFound, 1)
	now.Add(9)
	look("bobby", names.ErrNotFound, 0)
	now.Add(2)
	look("bobby", names.ErrNotFound, 1)
	look("alice", nil, 0)
	now.Add(3600)
	look("alice", nil, 1)
	for i := range 5000 { // more than are kept
		look(fmt.Sprintf("free-%d", i), names.ErrNotFound, 1)
	}
	look("free-4999", names.ErrNotFound, 0)
	look("free-1", names.ErrNotFound, 1)
}

// What a server that is wrong, slow or hostile comes to.
func TestHostileServers(t *testing.T) {
	var reply func(w http.ResponseWriter, r *http.Request)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reply(w, r) }))
	defer srv.Close()
	elsewhere := httptest.NewTLSServer(http.NotFoundHandler())
	defer elsewhere.Close()
	status := func(n int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(n)
			io.WriteString(w, body)
		}
	}
	const id = `{"addr":"4f891b21a87d5e3c41f96563e358a295aba4e960"}`
	for _, tt := range []struct {
		what         string
		reply        func(http.ResponseWriter, *http.Request)
		look, enlist error
	}{
		{"gone", status(404, strings.Repeat("x", 1<<20)), names.ErrNotFound, names.ErrTaken},
		{"incomplete", status(400, ""), names.ErrNotFound, names.ErrIncomplete},
		{"bad signature", status(401, ""), names.ErrNotFound, names.ErrBadSignature},
		{"conflict", status(409, ""), names.ErrNotFound, names.ErrTaken},
		{"too many requests", status(429, ""), names.ErrUnavailable, names.ErrUnavailable},
		{"out of order", status(500, ""), names.ErrUnavailable, names.ErrUnavailable},
		{"no success", status(200, id), nil, names.ErrUnavailable},
		{"created", status(201, `{"success":true}`), names.ErrNotFound, nil},
		{"no JSON", status(200, "<html>"), names.ErrInvalidReply, names.ErrInvalidReply},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < 1<<10; i++ {
				if _, err := w.Write(make([]byte, 1<<12)); err != nil {
					return
				}
			}
		}, names.ErrInvalidReply, names.ErrInvalidReply},
		{"large header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			io.WriteString(w, id)
		}, names.ErrUnavailable, names.ErrUnavailable},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, id)
		}, names.ErrUnavailable, names.ErrUnavailable},
		{"round and round", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}, names.ErrUnavailable, names.ErrUnavailable},
		{"another scheme", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		}, names.ErrUnavailable, names.ErrUnavailable},
	} {
		reply = tt.reply
		c := client(t, srv.URL)
		if _, err := c.Lookup(t.Context(), "alice"); !errors.Is(err, tt.look) {
			t.Errorf("%s: look-up: %v, want %v", tt.what, err, tt.look)
		}
		if err := c.Register(t.Context(), "alice", "00", namestest.Accounts(t, 1)[0]); !errors.Is(err, tt.enlist) {
			t.Errorf("%s: registration: %v, want %v", tt.what, err, tt.enlist)
		}
	}
	reply = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client(t, srv.URL).Lookup(ctx, "alice"); !errors.Is(err, names.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
	srv.Close()
	if _, err := client(t, srv.URL).Lookup(t.Context(), "alice"); !errors.Is(err, names.ErrUnavailable) {
		t.Errorf("away: %v", err)
	}
}

func TestReverseOfAnother(t *testing.T) {
	keys := namestest.Accounts(t, 2)
	r := record(t, "alice", keys[0])
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(r.Reply()) }))
	defer srv.Close()
	other, _, err := jami.PublicIDs(keys[1].Public())
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, srv.URL)
	if got, err := c.Reverse(t.Context(), r.Addr); err != nil || !got.Verified() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Reverse(t.Context(), other); !errors.Is(err, names.ErrInvalidReply) {
		t.Error(err)
	}
}

// asked is a transport that notes what is asked.
type asked []string

func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	*a = append(*a, r.URL.String())
	return nil, errors.New("not sent")
}

func TestNameAtHost(t *testing.T) {
	for _, tt := range []struct{ name, url string }{
		{"alice", "http://ns.test/base/name/alice"},
		{"Alice@Example.org", "https://Example.org/name/alice"},
		{"alice@example.org:8443", "https://example.org:8443/name/alice"},
		{"alice@[2001:db8::1]:1", "https://[2001:db8::1]:1/name/alice"},
		{name: "alice@"}, {name: "alice@a/b"}, {name: "alice@u@h"}, {name: "alice@h?x"}, {name: "alice@h#x"}, {name: "alice@h:x"},
		{name: "alice@h\\x"}, {name: "alice@%41"}, {name: "alice@" + strings.Repeat("h", 300)}, {name: "alice@:80"}, {name: "alice@exämple.org"},
	} {
		var a asked
		c, err := names.New(names.Options{Server: "http://ns.test/base/", Transport: &a})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Lookup(t.Context(), tt.name)
		if tt.url == "" {
			if !errors.Is(err, names.ErrInvalidName) || len(a) != 0 {
				t.Errorf("%s: %v, asked %v", tt.name, err, a)
			}
			continue
		}
		if len(a) != 1 || a[0] != tt.url {
			t.Errorf("%s: asked %v, want %s", tt.name, a, tt.url)
		}
	}
	for _, s := range []string{"ftp://x", "http://", "http://u:p@h", "http://h?q", "://", "http://h#f"} {
		if _, err := names.New(names.Options{Server: s}); err == nil {
			t.Errorf("server %s is taken", s)
		}
	}
}
