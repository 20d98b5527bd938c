package proxyclient

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
	"github.com/parley-jami/parley/services/dht/proxyjson"
)

// network is what the proxies of a test have in common: values, kept as nodes keep them.
type network struct {
	mu      sync.Mutex
	keys    map[string]map[uint64]*entry
	told    map[string]map[chan proxyjson.Line]bool
	posts   []post
	listens int // connections of listeners that began
}

type entry struct {
	*jami.Value
	permanent bool
	timer     *time.Timer
}

// post is a put that a proxy took.
type post struct {
	proxy     string
	id        uint64
	permanent bool
	at        time.Time
}

func newNetwork() *network {
	return &network{keys: map[string]map[uint64]*entry{}, told: map[string]map[chan proxyjson.Line]bool{}}
}

// put stores a value as nodes do: only a signed one is replaced, by a later one.
func (w *network) put(key string, v *jami.Value, permanent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.keys[key]
	if m == nil {
		m = map[uint64]*entry{}
		w.keys[key] = m
	}
	e := &entry{Value: v, permanent: permanent}
	if old := m[v.ID]; old != nil {
		if old.Signed() && v.Signed() && v.Seq < old.Seq {
			return
		}
		old.timer.Stop()
	}
	life := overlay.Lifetime(v.Type)
	if permanent {
		life = 24*time.Hour + life
	}
	e.timer = time.AfterFunc(life, func() { w.drop(key, v.ID) })
	m[v.ID] = e
	w.tellLocked(key, proxyjson.Line{Value: v})
}

// drop ends a value.
func (w *network) drop(key string, id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.keys[key][id]; e != nil {
		e.timer.Stop()
		delete(w.keys[key], id)
		w.tellLocked(key, proxyjson.Line{Value: e.Value, Expired: true})
	}
}

func (w *network) tellLocked(key string, l proxyjson.Line) {
	for c := range w.told[key] {
		c <- l
	}
}

// values returns what is there, and, with c, has it told of changes.
func (w *network) values(key string, c chan proxyjson.Line) []proxyjson.Line {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []proxyjson.Line
	for _, e := range w.keys[key] {
		out = append(out, proxyjson.Line{Value: e.Value})
	}
	if c != nil {
		if w.told[key] == nil {
			w.told[key] = map[chan proxyjson.Line]bool{}
		}
		w.told[key][c] = true
		w.listens++
	}
	return out
}

// close ends timers.
func (w *network) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.keys {
		for _, e := range m {
			e.timer.Stop()
		}
	}
}

func (w *network) listened() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listens
}

func (w *network) postsOf(proxy string) []post {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []post
	for _, p := range w.posts {
		if p.proxy == proxy {
			out = append(out, p)
		}
	}
	return out
}

// proxy is one proxy of a network. first, when it is set and returns true, answered a
// request in its own way.
type proxy struct {
	*network
	name string // its node id
	good int

	mu    sync.Mutex
	first func(w http.ResponseWriter, r *http.Request) bool
}

func (p *proxy) set(fn func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first = fn
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	p.mu.Lock()
	first := p.first
	p.mu.Unlock()
	if first != nil && first(w, r) {
		return
	}
	key, listen := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/key/"), "/listen")
	switch {
	case r.URL.Path == "/node/info":
		b, err := proxyjson.NodeInfo{NodeID: p.name, IPv4: proxyjson.Table{Good: p.good}}.Marshal()
		if err != nil {
			panic(err)
		}
		w.Write(b)
	case r.Method == http.MethodPost:
		p.post(w, r, key)
	case listen:
		c := make(chan proxyjson.Line, 2*maxOwn)
		lines := p.values(key, c)
		defer func() {
			p.network.mu.Lock()
			defer p.network.mu.Unlock()
			delete(p.told[key], c)
		}()
		for {
			for _, l := range lines {
				writeLine(w, l)
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case l := <-c:
				lines = []proxyjson.Line{l}
			}
		}
	default:
		for _, l := range p.values(key, nil) {
			writeLine(w, l)
		}
	}
}

func (p *proxy) post(w http.ResponseWriter, r *http.Request, key string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	put, err := proxyjson.ParsePut(body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"err": err.Error()})
		return
	}
	p.put(key, put.Value, put.Permanent)
	if p.good == 0 { // as OpenDHT's says when it keeps the only copy
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, `{"err":"Put failed"}`)
		return
	}
	p.network.mu.Lock()
	p.posts = append(p.posts, post{p.name, put.Value.ID, put.Permanent, time.Now()})
	p.network.mu.Unlock()
	writeLine(w, proxyjson.Line{Value: put.Value})
}

func writeLine(w io.Writer, l proxyjson.Line) {
	b, err := l.Marshal()
	if err != nil {
		panic(err)
	}
	w.Write(append(b, '\n'))
}

// serve starts a proxy of a network.
func (w *network) serve(t *testing.T, name string, good int) (*proxy, *httptest.Server) {
	t.Helper()
	p := &proxy{network: w, name: name, good: good}
	s := httptest.NewServer(p)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		w.close()
	})
	return p, s
}

// start starts a client and waits until a proxy answered it.
func start(t *testing.T, i int, urls ...string) *Node {
	t.Helper()
	n, err := New(Options{Key: overlaytest.Keys()[i], Servers: urls, Log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func wait(t *testing.T, what string, ok func() (bool, any)) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		done, saw := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: last saw %v", what, saw)
		}
	}
}

func waitUp(t *testing.T, n *Node, url string) {
	t.Helper()
	wait(t, "proxy in use is "+url, func() (bool, any) {
		a := n.Node().Addresses
		return len(a) == 1 && a[0] == url, fmt.Sprint(a)
	})
}
