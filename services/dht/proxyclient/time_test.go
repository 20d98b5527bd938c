package proxyclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
)

// These tests run in a bubble whose clock stands until all wait, with proxies on pipes.

// wires are proxies by host name.
type wires struct {
	t  *testing.T
	mu sync.Mutex
	at map[string]*pipes
	// dials counts connections, those that were refused too.
	dials int
}

// pipes is a listener.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (w *wires) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.dials++
	p := w.at[host]
	w.mu.Unlock()
	if p == nil {
		return nil, errors.New("connection refused")
	}
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-p.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *wires) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials
}

// serve starts a proxy; stop ends it and its connections.
func (w *wires) serve(host string, p *proxy) (stop func()) {
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	w.mu.Lock()
	w.at[host] = l
	w.mu.Unlock()
	s := &http.Server{Handler: p}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			w.t.Error(err)
		}
	}()
	return func() {
		w.mu.Lock()
		delete(w.at, host)
		w.mu.Unlock()
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
		<-ended
	}
}

// bubble runs a test with a client of the proxies "a" and "b" of one network; only "a" is
// there.
func bubble(t *testing.T, test func(t *testing.T, w *wires, a *proxy, n *Node)) {
	overlaytest.Keys() // outside
	synctest.Test(t, func(t *testing.T) {
		w := &wires{t: t, at: map[string]*pipes{}}
		net := newNetwork()
		defer net.close()
		a := &proxy{network: net, name: "a", good: 1}
		n, err := New(Options{Key: overlaytest.Keys()[0], Servers: []string{"http://a", "http://b"}, Log: zap.NewNop(), dial: w.dial})
		if err != nil {
			t.Fatal(err)
		}
		test(t, w, a, n)
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

// settle returns when a client uses the proxy that was started beside it, for which it may
// have looked before.
func settle() {
	time.Sleep(downFirst)
	synctest.Wait()
}

var theKey = overlay.Key{1}

func keyText() string { return fmt.Sprintf("%x", theKey[:]) }

func mustPut(t *testing.T, n *Node, data string, permanent bool) overlay.Stored {
	t.Helper()
	st, err := n.Put(t.Context(), overlay.Value{Key: theKey, Data: []byte(data)}, permanent)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestPermanentIsPutAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		defer w.serve("a", a)()
		time.Sleep(downFirst) // it may have looked for a proxy before
		began := time.Now()
		st := mustPut(t, n, "kept", true)
		mustPut(t, n, "once", false)
		time.Sleep(24*time.Hour - time.Second)
		p := a.postsOf("a")
		if len(p) != 3 || !p[2].permanent || p[2].at.Sub(began) > 22*time.Hour || p[2].at.Sub(began) < 21*time.Hour {
			t.Fatalf("%+v", p)
		}
		time.Sleep(30 * time.Hour)
		if vs, err := n.Get(t.Context(), theKey); err != nil || !slices.Equal(texts(vs), []string{"kept"}) || len(a.values(keyText(), nil)) != 1 {
			t.Errorf("%q, %v", texts(vs), err)
		}
		if !n.Cancel(t.Context(), theKey, st.Value.ID) {
			t.Error("not cancelled")
		}
		before := len(a.postsOf("a"))
		time.Sleep(25 * time.Hour)
		if p := a.postsOf("a"); len(p) != before || p[before-1].permanent {
			t.Errorf("after the cancel: %+v", p[before-1:])
		}
		if d := n.Node(); d.Stored != 0 || n.own.gone != 0 || len(n.own.keys) != 0 {
			t.Errorf("%+v and %d that are gone are still kept", d, n.own.gone)
		}
	})
}

// TestPackedPermanentIsLetGo: what this node did not sign cannot be replaced, but the proxy
// stops to keep it.
func TestPackedPermanentIsLetGo(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		defer w.serve("a", a)()
		settle()
		b, err := plain(7, "packed").Pack()
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, n, string(b), true)
		if !n.Cancel(t.Context(), theKey, 7) || n.Cancel(t.Context(), theKey, 7) {
			t.Error("cancel: want true, then false")
		}
		if p := a.postsOf("a"); len(p) != 2 || !p[0].permanent || p[1].permanent {
			t.Errorf("%+v", p)
		}
		time.Sleep(overlay.Lifetime(0) + time.Second)
		if vs := a.values(keyText(), nil); len(vs) != 0 {
			t.Errorf("%d values are still there", len(vs))
		}
	})
}

// TestCancelReachesWhoeverWasAsked: a proxy that said no to a permanent put may keep it all
// the same; the one that took it then may be away when the value is cancelled. Both are
// told.
func TestCancelReachesWhoeverWasAsked(t *testing.T) {
	packed, err := plain(7, "packed").Pack()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"packed": string(packed), "signed": "text"} {
		for _, away := range []time.Duration{0, 3 * time.Minute} {
			t.Run(fmt.Sprint(name, ", the other is away ", away), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
					defer w.serve("a", a)()
					b := &proxy{network: a.network, name: "b", good: 1}
					stop := w.serve("b", b)
					defer func() { stop() }()
					settle()
					a.set(func(w http.ResponseWriter, r *http.Request) bool {
						if r.Method == http.MethodPost {
							w.WriteHeader(http.StatusBadGateway)
						}
						return r.Method == http.MethodPost
					})
					st := mustPut(t, n, data, true)
					a.set(nil)
					if p := a.postsOf("b"); len(p) != 1 || !p[0].permanent {
						t.Fatalf("the second proxy took %+v", p)
					}
					if away > 0 {
						stop()
					}
					if !n.Cancel(t.Context(), theKey, st.Value.ID) {
						t.Error("not cancelled")
					}
					if away > 0 {
						time.Sleep(away)
						stop = w.serve("b", b)
					}
					time.Sleep(6 * time.Minute) // the slowest of tries
					if p := a.postsOf("a"); len(p) != 1 || p[0].permanent {
						t.Errorf("the first proxy took %+v", p)
					}
					if p := a.postsOf("b"); len(p) != 2 || p[1].permanent {
						t.Errorf("the second proxy took %+v", p)
					}
				})
			})
		}
	}
}

func TestFailedPutIsTriedUntilItExpired(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		a.good = 0
		stop := w.serve("a", a)
		settle()
		if st := mustPut(t, n, "first", false); st.Peers != 0 {
			t.Errorf("%+v", st)
		}
		time.Sleep(9 * time.Minute)
		if vs, err := n.Get(t.Context(), theKey); err != nil || !slices.Equal(texts(vs), []string{"first"}) {
			t.Errorf("%q, %v", texts(vs), err)
		}
		stop()
		if st := mustPut(t, n, "second", false); st.Peers != 0 {
			t.Errorf("%+v", st)
		}
		b := &proxy{network: a.network, name: "b", good: 1}
		defer w.serve("b", b)()
		time.Sleep(45 * time.Second)
		if p := a.postsOf("b"); len(p) != 2 { // both are still to live
			t.Errorf("%d puts at the proxy that came", len(p))
		}
		time.Sleep(11 * time.Minute)
		if d := n.Node(); d.Stored != 0 {
			t.Errorf("%+v", d)
		}
	})
}

// TestProxyIsAway: attempts become rare while no proxy is there, and all goes on soon after
// one is.
func TestProxyIsAway(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		stop := w.serve("a", a)
		settle()
		mustPut(t, n, "kept", true)
		var r recorder
		_, unlisten, err := n.Listen(t.Context(), theKey, r.add)
		if err != nil {
			t.Fatal(err)
		}
		defer unlisten()
		time.Sleep(5 * time.Minute)
		if got := a.listened(); got != 1 {
			t.Errorf("%d connections of a listener that has a good one", got)
		}
		stop()
		time.Sleep(time.Hour)
		before := w.count()
		time.Sleep(time.Hour)
		if made := w.count() - before; made < 60 || made > 1000 {
			t.Errorf("%d attempts in an hour", made)
		}
		if d := n.Node(); len(d.Addresses) != 0 || d.Peers != 0 {
			t.Errorf("%+v", d)
		}
		defer w.serve("a", a)()
		time.Sleep(downLast + time.Second)
		if d := n.Node(); len(d.Addresses) != 1 || d.Peers != 1 {
			t.Errorf("%+v", d)
		}
		if p := a.postsOf("a"); len(p) != 2 || !p[1].permanent {
			t.Errorf("permanent values after it came back: %+v", p)
		}
		a.put(keyText(), plain(8, "news"), false)
		synctest.Wait()
		if got := r.told(); !slices.Equal(got, []string{"+news"}) {
			t.Errorf("told %q", got)
		}
	})
}

// TestProxyStartedAnew: it is another node after a moment away, and has lost what it kept.
func TestProxyStartedAnew(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		stop := w.serve("a", a)
		settle()
		mustPut(t, n, "kept", true)
		time.Sleep(infoEvery)
		stop()
		anew := &proxy{network: a.network, name: "anew", good: 1}
		defer w.serve("a", anew)()
		time.Sleep(infoEvery + time.Second)
		if p := a.postsOf("anew"); len(p) != 1 || !p[0].permanent {
			t.Errorf("%+v", p)
		}
	})
}

// TestPreferredWithPeers: a proxy that knows peers is preferred to one that is alone.
func TestPreferredWithPeers(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		a.good = 0
		defer w.serve("a", a)()
		settle()
		if d := n.Node(); len(d.Addresses) != 1 || d.Addresses[0] != "http://a:80" {
			t.Errorf("%+v", d)
		}
		defer w.serve("b", &proxy{network: a.network, name: "b", good: 3})()
		time.Sleep(infoEvery + time.Second)
		if d := n.Node(); d.Peers != 3 || d.Addresses[0] != "http://b:80" {
			t.Errorf("%+v", d)
		}
	})
}

// TestSlowLine: a line that does not end in time ends the connection, and so does one byte
// at a time.
func TestSlowLine(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		var slow atomic.Bool
		a.set(func(rw http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/listen") || slow.Swap(true) {
				return false
			}
			for r.Context().Err() == nil {
				io.WriteString(rw, "x")
				rw.(http.Flusher).Flush()
				time.Sleep(time.Second)
			}
			return true
		})
		defer w.serve("a", a)()
		time.Sleep(time.Minute) // a proxy that was found down at the start is found up: a change ends connections
		var r recorder
		_, unlisten, err := n.Listen(t.Context(), theKey, r.add)
		if err != nil {
			t.Fatal(err)
		}
		defer unlisten()
		a.put(keyText(), plain(8, "news"), false)
		time.Sleep(lineTime - 2*time.Second)
		if got := r.told(); len(got) != 0 {
			t.Errorf("told %q by a proxy that says nothing", got)
		}
		time.Sleep(5 * time.Second)
		if got := r.told(); !slices.Equal(got, []string{"+news"}) {
			t.Errorf("told %q", got)
		}
	})
}

// TestWhatTheStreamMissed: a look now and then finds it.
func TestWhatTheStreamMissed(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		a.set(func(rw http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/listen") {
				hang(rw, r)
				return true
			}
			return false
		})
		defer w.serve("a", a)()
		settle()
		a.put(keyText(), signed(t, 3, 0, "old"), true)
		var r recorder
		now, unlisten, err := n.Listen(t.Context(), theKey, r.add)
		if err != nil || !slices.Equal(texts(now), []string{"old"}) {
			t.Fatalf("%q, %v", texts(now), err)
		}
		defer unlisten()
		a.put(keyText(), signed(t, 3, 1, "new"), true)
		time.Sleep(pollEvery + time.Second)
		if got := r.told(); !slices.Equal(got, []string{"+new"}) {
			t.Errorf("told %q", got)
		}
		// What was not there once may be there the next time.
		var gets atomic.Int32
		a.set(func(rw http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/listen") {
				hang(rw, r)
				return true
			}
			return isGet(r) && gets.Add(1)%2 == 1
		})
		time.Sleep(10 * time.Minute)
		if got := r.told(); !slices.Equal(got, []string{"+new"}) {
			t.Errorf("told %q", got)
		}
		a.set(func(rw http.ResponseWriter, r *http.Request) bool { return isGet(r) })
		time.Sleep(pollEvery + pollSoon + time.Second)
		if got := r.told(); !slices.Equal(got, []string{"+new", "-new"}) {
			t.Errorf("told %q", got)
		}
	})
}

// TestUnendedValueEnds: a proxy that never says that a value ended does not keep it for
// ever.
func TestUnendedValueEnds(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		a.set(func(rw http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/listen") {
				io.WriteString(rw, line(t, plain(1, "eternal"), false))
				hang(rw, r)
				return true
			}
			return isGet(r)
		})
		defer w.serve("a", a)()
		settle()
		var r recorder
		now, unlisten, err := n.Listen(t.Context(), theKey, r.add)
		if err != nil {
			t.Fatal(err)
		}
		defer unlisten()
		told := func() []string { // what is there at once is not told again
			if len(now) > 0 {
				return append([]string{"+" + texts(now)[0]}, r.told()...)
			}
			return r.told()
		}
		time.Sleep(overlay.Lifetime(0) - time.Second)
		if got := told(); !slices.Equal(got, []string{"+eternal"}) {
			t.Errorf("told %q", got)
		}
		time.Sleep(2 * time.Second)
		if got := told(); !slices.Equal(got, []string{"+eternal", "-eternal"}) {
			t.Errorf("told %q", got)
		}
	})
}

// TestFloodOfLines: a proxy that tells without end is read slowly.
func TestFloodOfLines(t *testing.T) {
	bubble(t, func(t *testing.T, w *wires, a *proxy, n *Node) {
		var sent atomic.Int32
		a.set(func(rw http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/listen") {
				return false
			}
			on, off := line(t, plain(1, "x"), false), line(t, plain(1, "x"), true)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(rw, on+off); err != nil {
					break
				}
				sent.Add(2)
			}
			return true
		})
		defer w.serve("a", a)()
		settle()
		_, unlisten, err := n.Listen(t.Context(), theKey, func(overlay.Change) {})
		if err != nil {
			t.Fatal(err)
		}
		defer unlisten()
		time.Sleep(10 * time.Second)
		if got, most := int(sent.Load()), lineBurst+11*lineRate; got < lineBurst || got > most {
			t.Errorf("%d lines were taken in 10 s, want at most %d", got, most)
		}
	})
}
