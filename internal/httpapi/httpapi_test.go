package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/internal/limits"
)

func newAPI(t *testing.T, atOnce int) (*API, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m, err := NewMetrics(reg, Names{Name: "test", Server: "the test", Ops: []string{"do"}, Results: []string{"taken"}, Buckets: []float64{1}},
		Gauge("parley_test_things", "Things.", func() int { return 7 }))
	if err != nil {
		t.Fatal(err)
	}
	return API{Log: zaptest.NewLogger(t), Metrics: m, LimitedStatus: 429,
		Refusal: func(result, words string) any { return map[string]string{"code": result, "words": words} }}.Bounded(atOnce), reg
}

// counted is how many requests came to the result.
func counted(t *testing.T, reg *prometheus.Registry, result string) (n float64) {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if f.GetName() == "parley_test_requests_total" && l.GetName() == "result" && l.GetValue() == result {
					n += m.Counter.GetValue()
				}
			}
		}
	}
	return n
}

func ask(h http.Handler, from, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAnswers(t *testing.T) {
	a, reg := newAPI(t, 4)
	for _, tt := range []struct {
		what   string
		fn     func(*http.Request) Answer
		status int
		result string
		body   string
		retry  string
	}{
		{"success", func(*http.Request) Answer { return Success([]int{1}) }, 200, OK, "[1]", ""},
		{"refusal", func(*http.Request) Answer { return a.Refuse(403, "taken", "no") }, 403, "taken", `{"code":"taken","words":"no"}`, ""},
		{"a panic", func(*http.Request) Answer { panic("ours") }, 500, Error, "a mistake in the server", ""},
		{"later", func(*http.Request) Answer { return a.TooMany(1500*time.Millisecond, "later") }, 429, Limited, "later", "2"},
		{"busy", func(*http.Request) Answer { return a.Busy() }, 503, Busy, "at once", "2"},
		{"a body", func(r *http.Request) Answer {
			b, no := a.Body(r, 4)
			if no != nil {
				return *no
			}
			return Success(string(b))
		}, 200, OK, `"body"`, ""},
		{"a long body", func(r *http.Request) Answer { _, no := a.Body(r, 3); return *no }, 400, Invalid, "too long", ""},
		{"a long body of unknown length", func(r *http.Request) Answer { r.ContentLength = -1; _, no := a.Body(r, 3); return *no }, 400, Invalid, "too long", ""},
		{"half a body", func(r *http.Request) Answer {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("b"), broken{}))
			_, no := a.Body(r, 4)
			return *no
		}, 400, Invalid, "whole", ""},
	} {
		before := counted(t, reg, tt.result)
		w := ask(a.Handle("do", limits.NewAddresses(1, 1), tt.fn), "192.0.2.1:1", "body")
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) || w.Header().Get("Retry-After") != tt.retry {
			t.Errorf("%s: %d %s, %v", tt.what, w.Code, w.Body, w.Header())
		}
		if n := counted(t, reg, tt.result) - before; n != 1 {
			t.Errorf("%s: counted %v times", tt.what, n)
		}
		if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", tt.what, w.Header())
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("gone") }

// Neither an address nor all together get more than their share.
func TestBounds(t *testing.T) {
	a, reg := newAPI(t, 2)
	l := limits.NewAddresses(1, 3)
	in, out := make(chan struct{}), make(chan struct{})
	slow := a.Handle("do", l, func(*http.Request) Answer { in <- struct{}{}; <-out; return Success(1) })
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if w := ask(slow, "192.0.2.1:1", ""); w.Code != 200 {
				t.Errorf("%d", w.Code)
			}
		})
		<-in
	}
	if w := ask(slow, "192.0.2.2:1", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("too much in all: %d", w.Code)
	}
	close(out)
	wg.Wait()
	quick := a.Handle("do", l, func(*http.Request) Answer { return Success(1) })
	codes := ""
	for range 3 {
		codes += fmt.Sprint(ask(quick, "192.0.2.1:1", "").Code, " ")
	}
	if codes != "200 429 429 " {
		t.Errorf("of one address: %s", codes)
	}
	if counted(t, reg, Busy) != 1 || counted(t, reg, Limited) != 2 {
		t.Errorf("busy %v, limited %v", counted(t, reg, Busy), counted(t, reg, Limited))
	}
}

// At the end what has come is answered, on every door; one that fails ends all.
func TestServe(t *testing.T) {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	log := zaptest.NewLogger(t)
	in, out := make(chan struct{}), make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { in <- struct{}{}; <-out; fmt.Fprint(w, "whole") })
	a, b := listen(), listen()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, log, func() { close(out) }, Door{NewServer(h, log, time.Minute, time.Minute), a}, Door{NewServer(h, log, time.Minute, time.Minute), b})
	}()
	got := make(chan string, 2)
	for _, l := range []net.Listener{a, b} {
		go func() {
			resp, err := http.Get("http://" + l.Addr().String())
			if err != nil {
				got <- err.Error()
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			got <- fmt.Sprint(string(text), err)
		}()
		<-in
	}
	cancel()
	for range 2 {
		if s := <-got; s != "whole<nil>" {
			t.Error(s)
		}
	}
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	c := listen()
	c.Close()
	if err := Serve(t.Context(), log, func() {}, Door{NewServer(h, log, time.Minute, time.Minute), c}, Door{NewServer(h, log, time.Minute, time.Minute), listen()}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a door that fails: %v", err)
	}
}

// A stream is bounded and counted like an answer, and one that ends early is seen to.
func TestStream(t *testing.T) {
	a, reg := newAPI(t, 4)
	places := limits.NewPlaces(1, 1)
	for _, tt := range []struct {
		what   string
		fn     func(http.ResponseWriter, *http.Request) (string, *Answer)
		status int
		result string
		body   string
		aborts bool
	}{
		{"lines", func(w http.ResponseWriter, _ *http.Request) (string, *Answer) { fmt.Fprintln(w, "a"); return OK, nil }, 200, OK, "a\n", false},
		{"a refusal", func(http.ResponseWriter, *http.Request) (string, *Answer) {
			x := a.Refuse(502, "taken", "no")
			return "", &x
		}, 502, "taken", `{"code":"taken","words":"no"}`, false},
		{"a refusal too late", func(w http.ResponseWriter, _ *http.Request) (string, *Answer) {
			fmt.Fprintln(w, "a")
			x := a.Refuse(502, "taken", "no")
			return "", &x
		}, 200, "taken", "a\n", true},
		{"a panic", func(http.ResponseWriter, *http.Request) (string, *Answer) { panic("ours") }, 500, Error, "a mistake in the server", false},
		{"no place", func(w http.ResponseWriter, r *http.Request) (string, *Answer) {
			in := a.Stream("do", limits.NewAddresses(1, 3), places, func(http.ResponseWriter, *http.Request) (string, *Answer) { return OK, nil })
			in.ServeHTTP(w, r)
			return OK, nil
		}, 503, Busy, "at once", false},
	} {
		before := counted(t, reg, tt.result)
		aborted := false
		h := a.Stream("do", limits.NewAddresses(1, 3), places, tt.fn)
		w := ask(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				if p := recover(); p != nil {
					aborted = p == http.ErrAbortHandler
				}
			}()
			h.ServeHTTP(w, r)
		}), "192.0.2.1:1", "")
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) || aborted != tt.aborts {
			t.Errorf("%s: %d %s, aborted %v", tt.what, w.Code, w.Body, aborted)
		}
		if n := counted(t, reg, tt.result) - before; n != 1 {
			t.Errorf("%s: counted %v times", tt.what, n)
		}
		if n := places.Taken(); n != 0 {
			t.Errorf("%s: %d places taken", tt.what, n)
		}
	}
	if w := ask(a.Stream("do", limits.NewAddresses(1, 0), nil, nil), "192.0.2.1:1", ""); w.Code != 429 {
		t.Errorf("too many: %d", w.Code)
	}
}
