package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/both"
	"github.com/parley-jami/parley/services/dht/libp2p"
	"github.com/parley-jami/parley/services/dht/opendht"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
	"github.com/parley-jami/parley/services/dht/proxyjson"
	"github.com/parley-jami/parley/services/dht/push"
)

func TestMain(m *testing.M) {
	// libp2p's, which never ends.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"))
}

const patience = 20 * time.Second

func node(t testing.TB, i int, bootstrap ...string) *opendht.Node {
	t.Helper()
	n, err := opendht.New(opendht.Options{Key: overlaytest.Keys()[i], Listen: "127.0.0.1:0", Bootstrap: bootstrap, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func peer(t testing.TB, bootstrap ...string) *libp2p.Node {
	t.Helper()
	k, err := libp2p.NodeKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := libp2p.New(libp2p.Options{Key: k, Listen: "127.0.0.1:0", Bootstrap: bootstrap, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// networks are two nodes each: the proxy's, and another.
var networks = map[string]func(t testing.TB) (ours, other overlay.Overlay){
	"opendht": func(t testing.TB) (overlay.Overlay, overlay.Overlay) {
		a := node(t, 0)
		b := node(t, 1, a.Node().Addresses...)
		met(t, a, b)
		return a, b
	},
	"libp2p": func(t testing.TB) (overlay.Overlay, overlay.Overlay) {
		a := peer(t)
		b := peer(t, a.Node().Addresses...)
		met(t, a, b)
		return a, b
	},
	"both": func(t testing.TB) (overlay.Overlay, overlay.Overlay) {
		a, x := node(t, 0), peer(t)
		b, y := node(t, 1, a.Node().Addresses...), peer(t, x.Node().Addresses...)
		met(t, a, b)
		met(t, x, y)
		return both.New(x, a, zap.NewNop()), both.New(y, b, zap.NewNop())
	},
}

func met(t testing.TB, os ...overlay.Overlay) {
	t.Helper()
	wait(t, "nodes have met", func() (bool, any) {
		for _, o := range os {
			if o.Node().Peers < len(os)-1 {
				return false, o.Node()
			}
		}
		return true, nil
	})
}

func wait(t testing.TB, what string, ok func() (bool, any)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		done, saw := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: last saw %v", what, saw)
		}
	}
}

// pushes records what is pushed.
type pushes struct {
	mu   sync.Mutex
	sent []push.Message
	only []string // platforms; empty: all
}

func (p *pushes) Check(t push.Target) error {
	for _, x := range p.only {
		if x != t.Platform {
			return fmt.Errorf("%w: %s", push.ErrUnsupported, t.Platform)
		}
	}
	return nil
}

func (p *pushes) Send(m push.Message) error {
	if err := p.Check(m.Target); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, m)
	return nil
}

func (p *pushes) notices(t testing.TB) []proxyjson.Notice {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []proxyjson.Notice
	for _, m := range p.sent {
		n, err := proxyjson.ParseNotice(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, *n)
	}
	return out
}

// clock is moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// server is a proxy that serves.
type server struct {
	*Proxy
	url  string
	push *pushes
	stop func() error
}

func serve(t testing.TB, o Options) *server {
	t.Helper()
	s := &server{push: &pushes{}}
	if o.Push == nil {
		o.Push = s.push
	}
	if o.Log == nil {
		o.Log = zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))
	}
	if o.File == "" {
		o.File = filepath.Join(t.TempDir(), "proxy.json")
	}
	var err error
	if o.Metrics, err = NewMetrics(prometheus.NewRegistry(), func() Counts { return s.Counts() }); err != nil {
		t.Fatal(err)
	}
	if s.Proxy, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	h := httptest.NewServer(s)
	s.url = h.URL
	s.stop = sync.OnceValue(func() error {
		s.End()
		h.Close()
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

func (s *server) ask(t testing.TB, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s: %v", method, path, resp.Header)
	}
	return resp.StatusCode, string(b)
}

// must puts and returns the answer.
func (s *server) must(t testing.TB, method, path, body string) string {
	t.Helper()
	status, text := s.ask(t, method, path, body)
	if status != 200 {
		t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return text
}

// reader reads the lines of a listener.
type reader struct {
	lines chan string
	close func()
}

func (s *server) listen(t testing.TB, path string) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		t.Fatalf("listen: %d", resp.StatusCode)
	}
	r := &reader{lines: make(chan string, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(r.lines)
		defer resp.Body.Close()
		for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
			r.lines <- sc.Text()
		}
	}()
	r.close = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(r.close)
	return r
}

func (r *reader) next(t testing.TB) string {
	t.Helper()
	select {
	case l, ok := <-r.lines:
		if !ok {
			t.Fatal("the answer ended")
		}
		return l
	case <-time.After(patience):
		t.Fatal("no line")
		return ""
	}
}

// values are lines without their order.
func values(t testing.TB, text string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for l := range strings.Lines(text) {
		out[strings.TrimSpace(l)] = true
	}
	return out
}

func sign(t testing.TB, v *jami.Value, key int) *jami.Value {
	t.Helper()
	if err := v.Sign(overlaytest.Keys()[key]); err != nil {
		t.Fatal(err)
	}
	return v
}

func body(t testing.TB, v *jami.Value) string {
	t.Helper()
	b, err := proxyjson.Line{Value: v}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Each form of value is put, found and listened to as it is, and by another node.
func TestValues(t *testing.T) {
	for name, network := range networks {
		t.Run(name, func(t *testing.T) {
			ours, other := network(t)
			s := serve(t, Options{Overlay: ours})
			signed := sign(t, &jami.Value{ID: 12, Type: 0, Data: []byte("signed"), UserType: "text/plain"}, 2)
			forTwo, err := (&jami.Value{ID: 13, Data: []byte("secret"), Type: 4}).EncryptTo(&overlaytest.Keys()[2].PublicKey, overlaytest.Keys()[3])
			if err != nil {
				t.Fatal(err)
			}
			listener := s.listen(t, "/key/foo/listen")
			told, stop, err := other.Listen(t.Context(), overlay.Key(jami.HashKey("foo")), func(overlay.Change) {})
			if err != nil || len(told) != 0 {
				t.Fatal(told, err)
			}
			defer stop()
			want := map[string]bool{}
			for _, text := range []string{
				`{"data":"cGxhaW4=","id":"11","prio":1,"type":3,"utype":"text/plain"}`,
				body(t, signed), body(t, forTwo),
			} {
				if got := s.must(t, "POST", "/foo", text); got != text+"\n" {
					t.Errorf("put %s, got %s", text, got)
				}
				if got := listener.next(t); got != text {
					t.Errorf("put %s, heard %s", text, got)
				}
				want[text] = true
			}
			for _, path := range []string{"/foo", "/key/foo", "/key/" + jami.HashKey("foo").String()} {
				got := values(t, s.must(t, "GET", path, ""))
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s: %v, want %v", path, got, want)
				}
			}
			// The other node's proxy finds the same.
			s2 := serve(t, Options{Overlay: other})
			wait(t, "the other node finds them", func() (bool, any) {
				got := values(t, s2.must(t, "GET", "/foo", ""))
				return fmt.Sprint(got) == fmt.Sprint(want), got
			})
			listener.close()
			wait(t, "nobody listens", func() (bool, any) { c := s.Counts(); return c.Listens == 0 && c.Keys == 0, c })
		})
	}
}

// A value that another node put is told, and that it expires.
func TestListenTellsOfTheEnd(t *testing.T) {
	o := &fake{}
	s := serve(t, Options{Overlay: o})
	a, b := s.listen(t, "/key/foo/listen"), s.listen(t, "/key/foo/listen")
	key := overlay.Key(jami.HashKey("foo"))
	v := overlay.Value{Key: key, ID: 5, Type: 5, Data: []byte("hello")}
	wait(t, "one listener of the overlay serves both", func() (bool, any) { return o.listening(key) == 1, o.listening(key) })
	wait(t, "both listen", func() (bool, any) { return s.watchers(key) == 2, nil })
	o.change(key, overlay.Change{Value: v})
	w := v
	w.Data = []byte("other")
	o.change(key, overlay.Change{Value: w})
	o.change(key, overlay.Change{Value: v, Expired: true}) // what was replaced
	o.change(key, overlay.Change{Value: w, Expired: true})
	for _, r := range []*reader{a, b} {
		for _, want := range []string{`{"data":"aGVsbG8=","id":"5","type":5}`, `{"data":"b3RoZXI=","id":"5","type":5}`, `{"data":"b3RoZXI=","expired":true,"id":"5","type":5}`} {
			if got := r.next(t); got != want {
				t.Errorf("heard %s, want %s", got, want)
			}
		}
	}
	a.close()
	wait(t, "one listens", func() (bool, any) { return s.watchers(key) == 1 && o.listening(key) == 1, nil })
	b.close()
	wait(t, "nobody listens", func() (bool, any) { return o.listening(key) == 0, o.listening(key) })
}

func (s *server) watchers(key overlay.Key) int {
	s.feeds.mu.Lock()
	f := s.feeds.by[key]
	s.feeds.mu.Unlock()
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watch)
}

// What is wrong is said, by the status and the words that clients of OpenDHT know.
func TestRefusals(t *testing.T) {
	s := serve(t, Options{Overlay: &fake{}, Push: &pushes{only: []string{"unifiedpush"}}})
	forged := sign(t, &jami.Value{ID: 12, Data: []byte("signed")}, 2)
	forged.Data = []byte("forged")
	for _, tt := range []struct {
		method, path, body string
		status             int
		words              string
	}{
		{"POST", "/foo", `nope`, 400, `"err:":"Incorrect JSON"`},
		{"POST", "/foo", `[]`, 400, `"err:":"Incorrect JSON"`},
		{"POST", "/foo", ``, 400, `{"err":"Missing parameters"}`},
		{"POST", "/foo", `{"data":"!"}`, 400, `data`},
		{"POST", "/foo", `{"data":"` + strings.Repeat("A", proxyjson.MaxValue) + `"}`, 400, `too long`},
		{"POST", "/foo", `{"data":"` + strings.Repeat("AAAA", 65536/3+1) + `"}`, 413, `too large`},
		{"POST", "/foo", body(t, forged), 400, `{"err":"the value's signature does not verify"}`},
		{"POST", "/0000000000000000000000000000000000000000", `{"data":""}`, 400, `zero key`},
		{"POST", "/" + strings.Repeat("k", 2000), `{"data":""}`, 400, `1024 bytes`},
		{"POST", "/foo", `{"data":"","permanent":{"key":"tok","client_id":"c"}}`, 400, `android`},
		{"SUBSCRIBE", "/key/foo", `{}`, 400, `{"err":"No token"}`},
		{"SUBSCRIBE", "/key/foo", `{`, 400, `"err:":"Incorrect JSON"`},
		{"SUBSCRIBE", "/key/foo", `{"key":"tok","client_id":"c","platform":"ios"}`, 400, `ios`},
		{"SUBSCRIBE", "/key/foo", `{"key":"tok","client_id":"c"}`, 400, `android`},
		{"SUBSCRIBE", "/key/foo", `{"key":"` + strings.Repeat("k", 9000) + `"}`, 400, `too long`},
		{"UNSUBSCRIBE", "/key/foo", `{"client_id":"c"}`, 400, `No token`},
		{"POST", "/node/pingPush", `{"client_id":"c"}`, 400, `No token`},
		{"POST", "/node/pingPush", `{"key":"t","platform":"ios"}`, 400, `ios`},
		{"PUT", "/key/foo", `{}`, 501, `err`},
		{"POST", "/key/foo/sign", `{}`, 501, `err`},
		{"GET", "/a/b/c/d", ``, 501, `err`},
	} {
		status, text := s.ask(t, tt.method, tt.path, tt.body)
		if status != tt.status || !strings.Contains(text, tt.words) {
			t.Errorf("%s %.60s %.60s: %d %s", tt.method, tt.path, tt.body, status, text)
		}
		var m map[string]string
		if json.Unmarshal([]byte(text), &m) != nil || m["err"] == "" {
			t.Errorf("%s: no error in %s", tt.path, text)
		}
	}
	if c := s.Counts(); c != (Counts{}) {
		t.Errorf("kept: %+v", c)
	}
}

// What the overlay does not take is told, and not kept.
func TestPutThatFails(t *testing.T) {
	o := &fake{}
	s := serve(t, Options{Overlay: o})
	for _, tt := range []struct {
		err    error
		status int
	}{
		{overlay.ErrRefused, 502}, {overlay.ErrQuota, 502}, {overlay.ErrClosed, 503}, {overlay.ErrTooLarge, 413}, {io.ErrUnexpectedEOF, 502},
	} {
		o.fail(tt.err)
		if status, text := s.ask(t, "POST", "/foo", `{"data":"","id":"4"}`); status != tt.status {
			t.Errorf("%v: %d %s", tt.err, status, text)
		}
	}
	if c := s.Counts(); c.Puts != 0 {
		t.Errorf("%+v", c)
	}
	o.fail(nil)
	s.must(t, "POST", "/foo", `{"data":"","id":"4"}`)
}

// Nobody replaces a value of another.
func TestReplace(t *testing.T) {
	s := serve(t, Options{Overlay: &fake{}})
	put := func(v *jami.Value) int {
		status, _ := s.ask(t, "POST", "/foo", body(t, v))
		return status
	}
	mine := func(seq uint16, data string) *jami.Value {
		return sign(t, &jami.Value{ID: 2, Seq: seq, Data: []byte(data)}, 2)
	}
	for i, tt := range []struct {
		v      *jami.Value
		status int
	}{
		{&jami.Value{ID: 1, Data: []byte("a")}, 200},
		{&jami.Value{ID: 1, Data: []byte("a")}, 200},
		{&jami.Value{ID: 1, Data: []byte("b")}, 502},
		{sign(t, &jami.Value{ID: 1, Data: []byte("b")}, 2), 502},
		{mine(3, "a"), 200},
		{mine(4, "b"), 200},
		{mine(3, "a"), 502},
		{mine(4, "c"), 502},
		{&jami.Value{ID: 2, Data: []byte("b")}, 502},
		{sign(t, &jami.Value{ID: 2, Seq: 9, Data: []byte("b")}, 3), 502},
		{&jami.Value{ID: 2, Cipher: []byte("b")}, 502},
	} {
		if got := put(tt.v); got != tt.status {
			t.Errorf("%d: %d", i, got)
		}
	}
}

// What a node says of itself is what clients of OpenDHT look for.
func TestNode(t *testing.T) {
	o := &fake{}
	s := serve(t, Options{Overlay: o, VAPID: "key"})
	for _, path := range []string{"/", "/node/info"} {
		n, err := proxyjson.ParseNodeInfo([]byte(s.must(t, "GET", path, "")))
		if err != nil || n.IPv4.Good != 0 || n.PublicIP != "::ffff:127.0.0.1" || n.VAPID != "key" {
			t.Errorf("%s: %+v, %v", path, n, err)
		}
		if _, err := jami.ParseID(n.NodeID); err != nil {
			t.Error(err)
		}
	}
	alone := serve(t, Options{Overlay: o, Alone: true})
	if n, err := proxyjson.ParseNodeInfo([]byte(alone.must(t, "GET", "/", ""))); err != nil || n.IPv4.Good != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	s.must(t, "POST", "/foo", `{"data":"","permanent":true}`)
	s.must(t, "POST", "/foo", `{"data":""}`)
	s.must(t, "SUBSCRIBE", "/foo", `{"key":"t","client_id":"c"}`)
	s.listen(t, "/key/foo/listen")
	var st proxyjson.NodeStats
	if err := json.Unmarshal([]byte(s.must(t, "GET", "/node/stats", "")), &st); err != nil {
		t.Fatal(err)
	}
	if st.Listens != 1 || st.Puts != 2 || st.Permanent != 1 || st.PushListens != 1 || st.Node.NodeID == "" {
		t.Errorf("%+v", st)
	}
	req, err := http.NewRequest("OPTIONS", s.url+"/key/foo", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if h := resp.Header; resp.StatusCode != 200 || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "LISTEN") || h.Get("Access-Control-Allow-Headers") != "content-type" {
		t.Errorf("%d %v", resp.StatusCode, h)
	}
}

// A reader that takes nothing is cut off and holds nobody up.
func TestSlowReader(t *testing.T) {
	o := &fake{}
	s := serve(t, Options{Overlay: o})
	key := overlay.Key(jami.HashKey("foo"))
	w := &stuck{writing: make(chan struct{}), go_on: make(chan struct{}), ResponseRecorder: httptest.NewRecorder()}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.ServeHTTP(w, httptest.NewRequest("GET", "/key/foo/listen", nil))
	}()
	<-w.writing // the header
	w.go_on <- struct{}{}
	wait(t, "it listens", func() (bool, any) { return s.watchers(key) == 1, nil })
	quick := s.listen(t, "/key/foo/listen")
	wait(t, "both listen", func() (bool, any) { return s.watchers(key) == 2, nil })
	for i := range behind + 10 {
		o.change(key, overlay.Change{Value: overlay.Value{Key: key, ID: uint64(i + 1), Data: []byte("v")}})
		quick.next(t)
	}
	close(w.go_on)
	go func() {
		for range w.writing {
		}
	}()
	<-ended
	close(w.writing)
	if n := bytes.Count(w.Body.Bytes(), []byte("\n")); n >= behind+10 {
		t.Errorf("%d lines", n)
	}
}

// stuck is a writer that waits for each write.
type stuck struct {
	*httptest.ResponseRecorder
	writing, go_on chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	s.writing <- struct{}{}
	<-s.go_on
	return s.ResponseRecorder.Write(b)
}

// TestTrace: at its debug level the log says what was put, found and told for which client,
// and nothing of what is in it.
func TestTrace(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	s := serve(t, Options{Overlay: node(t, 0), Log: zap.New(core), Alone: true})
	l := s.listen(t, "/key/foo/listen")
	in := body(t, &jami.Value{ID: 7, Data: []byte("private words")})
	s.must(t, "POST", "/key/foo", in)
	l.next(t)
	s.must(t, "GET", "/key/foo", "")
	if status, text := s.ask(t, "POST", "/key/foo", body(t, &jami.Value{ID: 7, Data: []byte("others")})); status != http.StatusBadGateway {
		t.Errorf("another value of the id: %d %s", status, text)
	}
	l.close()
	for _, want := range []string{"listener came", "value put", "value told", "values found", "value refused", "listener went"} {
		var said []observer.LoggedEntry
		wait(t, want, func() (bool, any) { said = logs.FilterMessage(want).All(); return len(said) > 0, logs.All() })
		m := said[0].ContextMap()
		if len(said) != 1 || m["key"] != jami.HashKey("foo").String() || m["client"] != "127.0.0.1" {
			t.Errorf("%s: %v", want, said)
		}
		if id, ok := m["id"]; ok && id != uint64(7) {
			t.Errorf("%s: id %v", want, id)
		}
	}
	if text := fmt.Sprint(logs.All()); strings.Contains(text, "private") || strings.Contains(text, in) {
		t.Errorf("the log has what is in a value: %s", text)
	}
}
