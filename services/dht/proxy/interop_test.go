//go:build interop

package proxy

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
)

// These tests run against Debian's dhtnode, as a node and as a proxy, and python3-opendht,
// on loopback.

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func run(t *testing.T, name string, args ...string) (io.Writer, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(name, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; install dhtnode and python3-opendht", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() // an error: it has ended
		cmd.Wait()         // killed, which is one
	})
	return in, bufio.NewScanner(out)
}

// stockProxy is Debian's, of a node that knows another.
func stockProxy(t *testing.T, bootstrap string) *server {
	t.Helper()
	port := freePort(t)
	run(t, "dhtnode", "-s", "-p", strconv.Itoa(freePort(t)), "-b", bootstrap, "--proxyserver", strconv.Itoa(port))
	s := &server{url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	wait(t, "the stock proxy knows the network", func() (bool, any) {
		resp, err := http.Get(s.url + "/")
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return !strings.Contains(string(b), `"good":0,"incoming":0},"ipv6":{"dubious":0,"good":0`), fmt.Sprint(string(b), err)
	})
	return s
}

// pair is our proxy and a stock one in one network.
func pair(t *testing.T) (ours, stock *server, first *netNode) {
	t.Helper()
	port := strconv.Itoa(freePort(t))
	run(t, "dhtnode", "-s", "-p", port)
	first = &netNode{"127.0.0.1:" + port}
	stock = stockProxy(t, first.addr)
	n := node(t, 0, first.addr)
	wait(t, "our node knows the network", func() (bool, any) { return n.Node().Peers >= 2, n.Node() })
	return serve(t, Options{Overlay: n}), stock, first
}

type netNode struct{ addr string }

// shape is an answer without what differs by chance.
func shape(status int, text string) string {
	var out []string
	for l := range strings.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			if l = strings.TrimSpace(l); l != "" {
				out = append(out, l)
			}
			continue
		}
		out = append(out, fmt.Sprint(shapeOf(m)))
	}
	slices.Sort(out)
	return fmt.Sprint(status, out)
}

func shapeOf(m map[string]any) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		switch v := m[k].(type) {
		case map[string]any:
			out = append(out, fmt.Sprint(k, shapeOf(v)))
		case string:
			if slices.Contains([]string{"data", "utype", "cypher", "sig", "to"}, k) {
				out = append(out, k+"="+v)
			} else {
				out = append(out, k+":string")
			}
		default:
			out = append(out, fmt.Sprintf("%s:%T", k, v))
		}
	}
	return out
}

// Each request has an answer of the same form as that of Debian's proxy.
func TestSameAnswersAsStock(t *testing.T) {
	ours, stock, _ := pair(t)
	signed := body(t, sign(t, &jami.Value{ID: 12, Data: []byte("signed"), UserType: "text/plain"}, 2))
	enc, err := (&jami.Value{ID: 13, Data: []byte("secret"), Type: 4}).EncryptTo(&overlaytest.Keys()[2].PublicKey, overlaytest.Keys()[3])
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		method, path, body string
		differs            string // in what, and why
	}{
		{"GET", "/", "", ""},
		{"GET", "/node/info", "", ""},
		{"GET", "/node/stats", "", ""},
		{"POST", "/KEY", `{"data":"aGVsbG8=","type":3,"utype":"text/plain"}`, ""},
		{"POST", "/key/KEY", `{"data":"aGVsbG8y","id":"77","seq":5,"prio":3}`, ""},
		{"POST", "/key/KEY", `{"data":"aGVsbG8y","id":78}`, ""},
		{"POST", "/key/KEY", `{"data":"aGVsbG8y","id":"79","permanent":true}`, ""},
		{"POST", "/key/KEY", `{"data":"aGVsbG8y","id":"0"}`, ""},
		{"POST", "/key/nothingKEY", `{}`, `ours leaves empty data out: stock clients read "" as two zero bytes`},
		{"POST", "/key/KEY", signed, ""},
		{"POST", "/key/KEY", body(t, enc), ""},
		{"GET", "/KEY", "", ""},
		{"GET", "/key/KEY", "", ""},
		{"GET", "/emptyKEY", "", ""},
		{"POST", "/KEY", "nope", `ours has "err", too, with what is wrong`},
		{"POST", "/KEY", "", ""},
		{"SUBSCRIBE", "/key/KEY", `{}`, ""},
		{"SUBSCRIBE", "/key/KEY", `{"key":"tok","client_id":"c1","session_id":"abcdefgh","platform":"android","topic":"t"}`, ""},
		{"SUBSCRIBE", "/key/KEY", `{"key":"tok","client_id":"c1","session_id":"abcdefgh","platform":"android","topic":"t","refresh":true}`, ""},
		{"SUBSCRIBE", "/key/KEY", `{"key":"tok","client_id":"c1","session_id":"abcdefgh","platform":"android","topic":"t"}`, ""},
		{"UNSUBSCRIBE", "/key/KEY", `{"key":"tok","client_id":"c1"}`, ""},
		{"UNSUBSCRIBE", "/key/KEY", `{"key":"tok","client_id":"c1"}`, ""},
		{"GET", "/key/KEY/options", "", ""},
	} {
		ask := func(s *server, key string) string {
			path := strings.ReplaceAll(x.path, "KEY", key)
			status, text := s.ask(t, x.method, path, x.body)
			return shape(status, text)
		}
		// In one network a key would have the values of both.
		got, want := ask(ours, "ours"), ask(stock, "stock")
		if got != want && x.differs == "" {
			t.Errorf("%s %s %.60s:\n ours  %s\n stock %s", x.method, x.path, x.body, got, want)
		} else if got == want && x.differs != "" {
			t.Errorf("%s %s: no longer differs: %s", x.method, x.path, x.differs)
		}
	}
}

// What is put by one proxy is found and heard by the other, each form of value.
func TestValuesAcrossProxies(t *testing.T) {
	ours, stock, _ := pair(t)
	for i, x := range []struct {
		name     string
		from, to *server
	}{{"from ours to stock", ours, stock}, {"from stock to ours", stock, ours}} {
		key := fmt.Sprintf("/key/across%d", i)
		heard := x.to.listen(t, key+"/listen")
		enc, err := (&jami.Value{ID: 13, Data: []byte("secret"), Type: 4}).EncryptTo(&overlaytest.Keys()[2].PublicKey, overlaytest.Keys()[3])
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{}
		for _, v := range []*jami.Value{
			{ID: 11, Type: 3, UserType: "text/plain", Data: []byte("plain")},
			sign(t, &jami.Value{ID: 12, Data: []byte("signed"), UserType: "text/plain"}, 2),
			enc,
		} {
			text := body(t, v)
			x.from.must(t, "POST", key, text)
			want[text] = true
			if got := heard.next(t); clean(t, got) != text {
				t.Errorf("%s: heard %s, want %s", x.name, got, text)
			}
		}
		got := map[string]bool{}
		for l := range values(t, x.to.must(t, "GET", key, "")) {
			got[clean(t, l)] = true
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: found %v, want %v", x.name, got, want)
		}
	}
}

// clean is a stock server's line without the NUL that ends its owners (§5.1).
func clean(t *testing.T, l string) string {
	t.Helper()
	return strings.ReplaceAll(l, `\u0000`, "")
}

// The end of a value is told as stock tells it.
func TestExpiryAcrossProxies(t *testing.T) {
	ours, stock, _ := pair(t)
	a, b := ours.listen(t, "/key/short/listen"), stock.listen(t, "/key/short/listen")
	ours.must(t, "POST", "/short", `{"data":"aGVsbG8=","id":"5","type":5}`) // lives a minute
	for _, want := range []string{`{"data":"aGVsbG8=","id":"5","type":5}`, `{"data":"aGVsbG8=","expired":true,"id":"5","type":5}`} {
		for name, r := range map[string]*reader{"ours": a, "stock": b} {
			select {
			case got := <-r.lines:
				if got != want {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
			case <-time.After(2 * time.Minute):
				t.Fatalf("%s: no %s", name, want)
			}
		}
	}
}

// A node of the network that is no proxy finds what a client of ours put, and tells it.
func TestPython(t *testing.T) {
	ours, _, first := pair(t)
	_, port, err := net.SplitHostPort(first.addr)
	if err != nil {
		t.Fatal(err)
	}
	in, out := run(t, "/usr/bin/python3", "../stocktest/peer.py", strconv.Itoa(freePort(t)), port)
	out.Scan() // it is up
	do := func(op, data string) string {
		key := overlay.Key(jami.HashKey("snake"))
		b, err := json.Marshal(map[string]any{"op": op, "key": hexKey(key), "data": []byte(data)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(append(b, '\n')); err != nil {
			t.Fatal(err)
		}
		if !out.Scan() {
			t.Fatalf("%s: %v", op, out.Err())
		}
		return out.Text()
	}
	ours.must(t, "POST", "/snake", `{"data":"`+base64.StdEncoding.EncodeToString([]byte("by http"))+`","id":"5","utype":"text/plain"}`)
	wait(t, "python finds it", func() (bool, any) {
		got := do("get", "")
		return strings.Contains(got, `"data": "YnkgaHR0cA=="`) && strings.Contains(got, `"utype": "text/plain"`), got
	})
	heard := ours.listen(t, "/key/snake/listen")
	heard.next(t)
	do("put", "by udp")
	if got := heard.next(t); !strings.Contains(got, `"data":"YnkgdWRw"`) || !strings.Contains(got, `"utype":"text/plain"`) {
		t.Errorf("heard %s", got)
	}
}
