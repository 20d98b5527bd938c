package proxyclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
	"github.com/parley-jami/parley/services/dht/proxyjson"
)

func ctx(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return c
}

// plain is a value that anybody may have put.
func plain(id uint64, data string) *jami.Value { return &jami.Value{ID: id, Data: []byte(data)} }

func signed(t *testing.T, id uint64, seq uint16, data string) *jami.Value {
	t.Helper()
	v := &jami.Value{ID: id, Seq: seq, Data: []byte(data)}
	if err := v.Sign(overlaytest.Keys()[5]); err != nil {
		t.Fatal(err)
	}
	return v
}

func line(t testing.TB, v *jami.Value, expired bool) string {
	t.Helper()
	b, err := proxyjson.Line{Value: v, Expired: expired}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// texts are the data of values, those of packed ones unpacked.
func texts(vs []overlay.Value) []string {
	var out []string
	for _, v := range vs {
		data := v.Data
		if p, err := jami.ParseValue(data); err == nil {
			data = p.Data
		}
		out = append(out, string(data))
	}
	slices.Sort(out)
	return out
}

// isGet tells the requests for values from the others.
func isGet(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/key/") && !strings.HasSuffix(r.URL.Path, "/listen")
}

// hang answers no more, until the client leaves.
func hang(w http.ResponseWriter, r *http.Request) {
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// breakOff cuts the connection.
func breakOff(w http.ResponseWriter) {
	w.(http.Flusher).Flush()
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	c.Close()
}

// TestLyingProxyGet: what the first proxy does wrong, and what a get then has. The second
// proxy is honest and has "honest".
func TestLyingProxyGet(t *testing.T) {
	good := line(t, plain(1, "good"), false)
	forged := signed(t, 2, 0, "signed")
	forged.Data = []byte("forged")
	ca, err := jami.NewCA(overlaytest.Keys()[4], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := jami.PackBin(jami.MarshalChain(ca))
	if err != nil {
		t.Fatal(err)
	}
	other := &jami.Value{ID: 3, Type: mapping.TypeCertificate, Data: cert}
	var elsewhere atomic.Int32
	_, target := newNetwork().serve(t, "target", 1)
	target.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	say := func(parts ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Join(parts, "")) }
	}
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); io.WriteString(w, good) }
	}
	endless := func(first, again string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, first)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, again); err != nil {
					return
				}
			}
		}
	}
	type answer = func(http.ResponseWriter, *http.Request)
	for name, x := range map[string]struct {
		answer answer
		want   string // "": as many as one key may have
	}{
		"forged signature":       {say(good, line(t, forged, false)), "good"},
		"certificate of another": {say(good, line(t, other, false)), "good"},
		"value without an id":    {say(good, line(t, plain(0, "none"), false)), "good"},
		"expired in a get":       {say(good, line(t, plain(4, "ended"), true)), "good"},
		"some garbage":           {say("{}\n", "junk\n", "\n", "[1,2]\n", `{"id":"x"}`+"\n", good), "good"},
		"garbage alone":          {say(strings.Repeat("junk\n", maxBad+1)), "honest"},
		"no JSON by its type": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, good)
		}, "honest"},
		"endless line":            {endless("", strings.Repeat("x", 1000)), "honest"},
		"endless line after good": {endless(good, strings.Repeat("x", 1000)), "good"},
		"endless values": {func(w http.ResponseWriter, r *http.Request) {
			for i := uint64(1); r.Context().Err() == nil; i++ {
				if _, err := io.WriteString(w, line(t, plain(i, "x"), false)); err != nil {
					return
				}
			}
		}, ""},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target.URL+r.URL.Path, http.StatusFound)
		}, "honest"},
		"500":                  {status(500), "honest"},
		"503":                  {status(503), "honest"},
		"404":                  {status(404), "honest"},
		"no answer":            {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "honest"},
		"hangs after a value":  {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, good); hang(w, r) }, "good"},
		"hangs within a value": {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, good+good[:10]); hang(w, r) }, "good"},
		"breaks off":           {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, good+good[:10]); breakOff(w) }, "good"},
		"large header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHeader))
			io.WriteString(w, good)
		}, "honest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newNetwork()
			bad, s1 := w.serve(t, "bad", 1)
			_, s2 := w.serve(t, "honest", 1)
			bad.set(func(w http.ResponseWriter, r *http.Request) bool {
				if isGet(r) {
					x.answer(w, r)
				}
				return isGet(r)
			})
			key := overlay.Key{1}
			w.put(fmt.Sprintf("%x", key[:]), plain(9, "honest"), false)
			n := start(t, 0, s1.URL, s2.URL)
			waitUp(t, n, s1.URL)
			vs, err := n.Get(ctx(t, 3*time.Second), key)
			if err != nil {
				t.Fatal(err)
			}
			if got := texts(vs); x.want == "" && len(vs) != maxValues || x.want != "" && !slices.Equal(got, []string{x.want}) {
				t.Errorf("%d values: %.100q, want %q", len(vs), got, x.want)
			}
		})
	}
	t.Cleanup(func() {
		if n := elsewhere.Load(); n != 0 {
			t.Errorf("a redirect was followed %d times", n)
		}
	})
}

// TestLyingProxyPut: what a proxy answers to a put, and what becomes of that.
func TestLyingProxyPut(t *testing.T) {
	for name, x := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   error
		second int // puts at the second proxy
	}{
		"bad request": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400); io.WriteString(w, `{"err":"no"}`) }, overlay.ErrRefused, 0},
		"too large":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }, overlay.ErrTooLarge, 0},
		"put failed":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, nil, 1},
		"another id":  {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, line(t, plain(99, "x"), false)) }, nil, 1},
		"no value":    {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }, nil, 1},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}, nil, 1},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, nil, 1},
		"no answer":  {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil, 1},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{"); breakOff(w) }, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newNetwork()
			bad, s1 := w.serve(t, "bad", 1)
			_, s2 := w.serve(t, "honest", 1)
			bad.set(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPost {
					return false
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					return true
				}
				x.answer(w, r)
				return true
			})
			n := start(t, 0, s1.URL, s2.URL)
			waitUp(t, n, s1.URL)
			st, err := n.Put(ctx(t, 3*time.Second), overlay.Value{Key: overlay.Key{1}, Data: []byte("x")}, false)
			if !errors.Is(err, x.want) || err != nil && x.want == nil {
				t.Errorf("%+v, %v; want %v", st, err, x.want)
			}
			if got := len(w.postsOf("honest")); got != x.second || err == nil && st.Peers != 1 {
				t.Errorf("%d puts at the second proxy, want %d; %+v", got, x.second, st)
			}
			if stored := n.Node().Stored; (err == nil) != (stored == 1) {
				t.Errorf("%d values kept after %v", stored, err)
			}
		})
	}
}

func TestNothingAnswers(t *testing.T) {
	_, s := newNetwork().serve(t, "gone", 1)
	s.Close()
	n := start(t, 0, s.URL)
	if vs, err := n.Get(ctx(t, 5*time.Second), overlay.Key{1}); !errors.Is(err, overlay.ErrUnreachable) {
		t.Errorf("get: %v, %v", vs, err)
	}
	st, err := n.Put(ctx(t, 5*time.Second), overlay.Value{Key: overlay.Key{1}, Data: []byte("x")}, false)
	if err != nil || st.Peers != 0 {
		t.Errorf("put: %+v, %v", st, err)
	}
	now, stop, err := n.Listen(ctx(t, 5*time.Second), overlay.Key{1}, func(overlay.Change) {})
	if err != nil || !slices.Equal(texts(now), []string{"x"}) {
		t.Fatalf("listen: %v, %v", now, err)
	}
	stop()
	if d := n.Node(); len(d.Addresses) != 0 || d.Peers != 0 || d.Stored != 1 {
		t.Errorf("%+v", d)
	}
}

// recorder keeps what a listener was told.
type recorder struct {
	mu  sync.Mutex
	got []string
}

func (r *recorder) add(c overlay.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sign := "+"
	if c.Expired {
		sign = "-"
	}
	r.got = append(r.got, sign+texts([]overlay.Value{c.Value})[0])
}

func (r *recorder) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.got)
	slices.Sort(out)
	return out
}

func (r *recorder) wait(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	wait(t, fmt.Sprintf("told %q", want), func() (bool, any) { return slices.Equal(r.told(), want), r.told() })
}

// TestProxyGoesDown: the proxy in use ends in the midst of listening and another of the
// same network takes over. What changed meanwhile is told, once; what did not is not.
func TestProxyGoesDown(t *testing.T) {
	w := newNetwork()
	_, s1 := w.serve(t, "first", 1)
	_, s2 := w.serve(t, "second", 1)
	key := overlay.Key{1}
	text := fmt.Sprintf("%x", key[:])
	w.put(text, plain(1, "stays"), false)
	w.put(text, plain(2, "ends"), false)
	w.put(text, signed(t, 3, 0, "old"), false)
	n := start(t, 0, s1.URL, s2.URL)
	waitUp(t, n, s1.URL)
	mine, err := n.Put(ctx(t, 5*time.Second), overlay.Value{Key: overlay.Key{2}, Data: []byte("mine")}, true)
	if err != nil || mine.Peers != 1 {
		t.Fatalf("%+v, %v", mine, err)
	}
	var r recorder
	now, stop, err := n.Listen(ctx(t, 5*time.Second), key, r.add)
	if err != nil || !slices.Equal(texts(now), []string{"ends", "old", "stays"}) {
		t.Fatalf("%q, %v", texts(now), err)
	}
	defer stop()
	w.put(text, plain(4, "live"), false)
	r.wait(t, "+live")
	s1.CloseClientConnections()
	s1.Close()
	w.drop(text, 2)
	w.put(text, signed(t, 3, 1, "new"), false)
	w.put(text, plain(5, "comes"), false)
	r.wait(t, "+live", "-ends", "+new", "+comes")
	waitUp(t, n, s2.URL)
	wait(t, "the permanent value is at the second proxy", func() (bool, any) {
		p := w.postsOf("second")
		return len(p) == 1 && p[0].permanent, p
	})
	w.put(text, plain(6, "after"), false)
	r.wait(t, "+live", "-ends", "+new", "+comes", "+after")
}

// TestLyingListen: a listener is not told of what is forged, nor twice of the same.
func TestLyingListen(t *testing.T) {
	w := newNetwork()
	bad, s := w.serve(t, "bad", 1)
	forged := signed(t, 2, 9, "signed")
	forged.Data = []byte("forged")
	v := signed(t, 3, 1, "later")
	var count atomic.Int32
	bad.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/listen") {
			return false
		}
		count.Add(1)
		for _, l := range []string{"junk\n", line(t, forged, false), line(t, v, false), line(t, v, false), line(t, signed(t, 3, 0, "earlier"), false),
			line(t, signed(t, 3, 0, "earlier"), true), line(t, plain(7, "unknown"), true), line(t, forged, true), line(t, plain(1, "good"), false)} {
			io.WriteString(w, l)
		}
		breakOff(w)
		return true
	})
	w.put(fmt.Sprintf("%x", overlay.Key{1}), v, false)
	w.put(fmt.Sprintf("%x", overlay.Key{1}), plain(1, "good"), false)
	n := start(t, 0, s.URL)
	waitUp(t, n, s.URL)
	var r recorder
	now, stop, err := n.Listen(ctx(t, 5*time.Second), overlay.Key{1}, r.add)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	wait(t, "three connections", func() (bool, any) { return count.Load() >= 3, count.Load() })
	if got := append(r.told(), texts(now)...); len(got) != 2 {
		t.Errorf("told %q", got)
	}
}

// TestOwnOfAnotherProcess: what a process with the same key put last is replaced, although
// this one did not know of it.
func TestOwnOfAnotherProcess(t *testing.T) {
	w := newNetwork()
	_, s := w.serve(t, "proxy", 1)
	v := overlay.Value{Key: overlay.Key{1}, ID: 5}
	for i := range 3 {
		n := start(t, 0, s.URL)
		waitUp(t, n, s.URL)
		v.Data = fmt.Append(nil, "version ", i)
		if i == 1 {
			if err := n.Restore([]overlay.Value{v}); err != nil {
				t.Fatal(err)
			}
		} else if _, err := n.Put(ctx(t, 5*time.Second), v, true); err != nil {
			t.Fatal(err)
		}
		reader := start(t, 1, s.URL)
		wait(t, string(v.Data), func() (bool, any) {
			vs, err := reader.Get(ctx(t, 5*time.Second), v.Key)
			return err == nil && len(vs) == 1 && bytes.Equal(vs[0].Data, v.Data), texts(vs)
		})
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
