package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/names/namestest"
	"github.com/parley-jami/parley/services/names/store"
)

func newHandler(t testing.TB, s Store) *Handler {
	t.Helper()
	if s == nil {
		st, err := store.Open(filepath.Join(t.TempDir(), "names.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
		s = st
	}
	m, err := NewMetrics(prometheus.NewRegistry(), func() int { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	return NewHandler(s, zap.NewNop(), m)
}

func registration(t testing.TB, name string, account int) []byte {
	t.Helper()
	r, err := names.Sign(name, namestest.Accounts(t, account+1)[account])
	if err != nil {
		t.Fatal(err)
	}
	return r.Registration("00")
}

// ask sends one request from an address.
func ask(h http.Handler, from, method, path string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const local = "127.0.0.1:1"

func TestAPI(t *testing.T) {
	h := newHandler(t, nil)
	id := func(account int) string {
		id, _, err := jami.PublicIDs(namestest.Accounts(t, account+1)[account].Public())
		if err != nil {
			t.Fatal(err)
		}
		return id.String()
	}
	for _, tt := range []struct {
		what, method, path string
		body               []byte
		status             int
		words              string
	}{
		{"free name", "GET", "/name/alice", nil, 404, "not registered"},
		{"account without a name", "GET", "/addr/" + id(0), nil, 404, "not registered"},
		{"replayed for another name", "POST", "/name/bobby", registration(t, "alice", 0), 401, "did not sign"},
		{"free, still", "GET", "/name/bobby", nil, 404, ""},
		{"registered", "POST", "/name/Alice", registration(t, "alice", 0), 200, `{"success":true}`},
		{"again", "POST", "/name/alice", registration(t, "alice", 0), 200, `{"success":true}`},
		{"squatted", "POST", "/name/ALICE", registration(t, "alice", 1), 403, `"success":false`},
		{"second name", "POST", "/name/alice2", registration(t, "alice2", 0), 403, "another name"},
		{"found", "GET", "/name/aLICE", nil, 200, `"addr":"` + id(0)},
		{"found by address", "GET", "/addr/" + id(0), nil, 200, `"name":"alice"`},
		{"found by 0x", "GET", "/addr/0x" + strings.ToUpper(id(0)), nil, 200, `"name":"alice"`},
		{"head", "HEAD", "/name/alice", nil, 200, ""},
		{"leading dash", "POST", "/name/-bob", registration(t, "-bob", 1), 200, "true"},
		{"short", "GET", "/name/a", nil, 400, "3 to 32"},
		{"long", "GET", "/name/" + strings.Repeat("x", 33), nil, 400, "3 to 32"},
		{"very long", "GET", "/name/" + strings.Repeat("x", 7000), nil, 400, "3 to 32"},
		{"escaped letter", "GET", "/name/%61lice", nil, 200, id(0)},
		{"escaped slash", "GET", "/name/..%2falice", nil, 400, "made of"},
		{"escaped NUL", "GET", "/name/alice%00", nil, 400, "made of"},
		{"Cyrillic", "GET", "/name/%D0%B0lice", nil, 400, "made of"},
		{"Kelvin sign", "POST", "/name/%E2%84%AAelly", registration(t, "kelly", 2), 400, "made of"},
		{"bytes that are no text", "GET", "/name/%ff%fe%fd", nil, 400, "made of"},
		{"not an id", "GET", "/addr/alice", nil, 400, "40 hex"},
		{"zero id", "GET", "/addr/" + strings.Repeat("0", 40), nil, 400, "40 hex"},
		{"no body", "POST", "/name/carol", nil, 400, "incomplete"},
		{"cut body", "POST", "/name/carol", registration(t, "carol", 2)[:200], 400, "incomplete"},
		{"long body", "POST", "/name/carol", make([]byte, 1<<20), 400, "too long"},
		{"form", "POST", "/name/carol", []byte("addr=1"), 400, "incomplete"},
		{"up and down", "GET", "/name/../name/alice", nil, 301, ""},
		{"nothing there", "GET", "/", nil, 404, ""},
		{"deeper", "GET", "/name/alice/x", nil, 404, ""},
		{"other method", "DELETE", "/name/alice", nil, 405, ""},
		{"register an address", "POST", "/addr/" + id(0), nil, 405, ""},
	} {
		w := ask(h, local, tt.method, tt.path, tt.body)
		if tt.status == 301 && w.Code == 307 {
			w.Code = 301 // either keeps a GET a GET
		}
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.words) {
			t.Errorf("%s: %d %s, want %d %s", tt.what, w.Code, w.Body, tt.status, tt.words)
		}
	}
	for _, path := range []string{"/name/alice", "/addr/" + id(0)} {
		r, err := names.ParseReply("", ask(h, local, "GET", path, nil).Body.Bytes())
		if err != nil || !r.Verified() || r.Name != "alice" || r.Addr.String() != id(0) {
			t.Errorf("%s: %+v, %v", path, r, err)
		}
	}
}

// A body whose length is not told, and one that ends early.
func TestBodiesOnTheWire(t *testing.T) {
	srv := httptest.NewServer(newHandler(t, nil))
	defer srv.Close()
	post := func(body io.Reader) int {
		resp, err := http.Post(srv.URL+"/name/alice", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	endless := new(zeros)
	if s := post(io.LimitReader(endless, 64<<20)); s != 400 {
		t.Errorf("endless: %d", s)
	}
	if n := endless.n.Load(); n > 16<<20 {
		t.Errorf("%d bytes of it were read", n)
	}
	if s := post(struct{ io.Reader }{bytes.NewReader(registration(t, "alice", 0))}); s != 200 {
		t.Errorf("chunked: %d", s)
	}
}

// zeros counts what is read of it.
type zeros struct{ n atomic.Int64 }

func (z *zeros) Read(b []byte) (int, error) {
	clear(b)
	z.n.Add(int64(len(b)))
	return len(b), nil
}

// One address sends 10,000 requests of each kind; another is served as before.
func TestFlood(t *testing.T) {
	h := newHandler(t, nil)
	const flood = 10_000
	var mu sync.Mutex
	status := map[string]int{}
	var wg sync.WaitGroup
	began := time.Now()
	for g := range 8 {
		wg.Go(func() {
			for i := range flood / 8 {
				from := fmt.Sprintf("[2001:db8::%x:%x]:1", g, i) // of one /64
				for _, m := range []string{"GET", "POST"} {
					w := ask(h, from, m, "/name/alice", nil)
					mu.Lock()
					status[fmt.Sprint(m, w.Code)]++
					mu.Unlock()
					if w.Code == 503 && w.Header().Get("Retry-After") == "" {
						t.Error("nothing says when to try again")
					}
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	t.Logf("%d requests in %v: %v", 2*flood, took, status)
	allow := lookupsBurst + int(took.Seconds()*lookupsPerSec) + 2
	if n := status["GET404"]; n < lookupsBurst || n > allow || status["GET503"] != flood-n {
		t.Errorf("look-ups: %v", status)
	}
	if n := status["POST400"]; n < registrationsBurst || n > registrationsBurst+int(took.Seconds()*registrationsPerSec)+2 || status["POST503"] != flood-n {
		t.Errorf("registrations: %v", status)
	}
	for _, from := range []string{"192.0.2.1:1", "[2001:db8:0:1::1]:1"} {
		if w := ask(h, from, "GET", "/name/alice", nil); w.Code != 404 {
			t.Errorf("%s: %d", from, w.Code)
		}
	}
	if h.looking.Len() != 3 {
		t.Errorf("%d addresses are remembered", h.looking.Len())
	}
}

// stuck is a disk that does not answer, or answers with errors.
type stuck struct {
	waiting atomic.Int32
	open    chan struct{}
	err     error
}

func (s *stuck) ByName(string) (names.Record, error)  { return names.Record{}, s.err }
func (s *stuck) ByAddr(jami.ID) (names.Record, error) { return names.Record{}, s.err }
func (s *stuck) Register(*names.Record) error {
	s.waiting.Add(1)
	<-s.open
	return s.err
}

func TestTooMuchAtOnce(t *testing.T) {
	s := &stuck{open: make(chan struct{})}
	h := newHandler(t, s)
	body := registration(t, "alice", 0)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			if w := ask(h, local, "POST", "/name/alice", body); w.Code != 200 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	for end := time.Now().Add(10 * time.Second); s.waiting.Load() < atOnce; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not all came through")
		}
	}
	if w := ask(h, local, "POST", "/name/alice", body); w.Code != 503 {
		t.Errorf("one more: %d", w.Code)
	}
	close(s.open)
	wg.Wait()
}

// What the server can't do is no "not found" and no "taken".
func TestBrokenStore(t *testing.T) {
	s := &stuck{open: make(chan struct{}), err: errors.New("disk full")}
	close(s.open)
	h := newHandler(t, s)
	for _, r := range []struct {
		method, path string
		body         []byte
	}{{"GET", "/name/alice", nil}, {"GET", "/addr/4f891b21a87d5e3c41f96563e358a295aba4e960", nil}, {"POST", "/name/alice", registration(t, "alice", 0)}} {
		w := ask(h, local, r.method, r.path, r.body)
		if w.Code != 500 || strings.Contains(w.Body.String(), "disk") {
			t.Errorf("%s %s: %d %s", r.method, r.path, w.Code, w.Body)
		}
	}
}

// broken panics.
type broken struct{ Store }

func (broken) ByName(string) (names.Record, error) { panic("mistake") }

func TestPanicCostsOneRequest(t *testing.T) {
	h := newHandler(t, broken{})
	for range 2 * atOnce {
		if w := ask(h, local, "GET", "/name/alice", nil); w.Code != 500 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

func FuzzHandler(f *testing.F) {
	h := newHandler(f, nil)
	f.Add("POST", "name", "alice", registration(f, "alice", 0))
	f.Add("GET", "name", "Alice", []byte{})
	f.Add("GET", "addr", "0x4f891b21a87d5e3c41f96563e358a295aba4e960", []byte("x"))
	f.Add("GET", "name", "%2e%2e%2f", []byte{})
	f.Fuzz(func(t *testing.T, method, kind, what string, body []byte) {
		r, err := http.NewRequest(method, "http://h/"+kind+"/"+what, bytes.NewReader(body))
		if err != nil {
			return
		}
		r.RemoteAddr = local
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%q %q %q: %s", method, kind, what, w.Body)
		}
		if w.Code == 500 {
			t.Errorf("%q %q %q: %d", method, kind, what, w.Code)
		}
	})
}
