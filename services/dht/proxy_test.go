package dht

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/config"
)

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// web asks the proxy.
func web(t *testing.T, addr, method, path, body string) (int, string) {
	t.Helper()
	var resp *http.Response
	wait(t, "the proxy answers", func() (bool, any) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err = http.DefaultClient.Do(req)
		return err == nil, err
	})
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Clients of the proxy and users of the bus meet in one overlay; what a client puts does
// not come in the place of a value of the node.
func TestProxy(t *testing.T) {
	for _, overlay := range []string{"libp2p", "opendht", "both"} {
		t.Run(overlay, func(t *testing.T) {
			srv := bustest.Start(t)
			identity(t, srv, people()[0])
			addr := freeAddr(t)
			c, env, _ := nodeWith(t, srv, people()[0], overlay, func(d *config.DHT) { d.ProxyListen = addr })
			describe(t, c)
			opened(t, c)

			if status, text := web(t, addr, "POST", "/key/k", `{"data":"YnkgaHR0cA==","id":"7","type":3}`); status != 200 {
				t.Fatalf("%d %s", status, text)
			}
			wait(t, "the bus finds what a client put", func() (bool, any) {
				got, err := bus.Call(t.Context(), c, contract.DHTGetCmd, &contract.DHTKey{Key: "k"})
				return err == nil && len(got.Values) > 0, err
			})
			for _, permanent := range []bool{false, true} {
				v, err := bus.Call(t.Context(), c, contract.DHTPutCmd, &contract.DHTPut{Value: contract.DHTValue{Key: "k", ID: 8, Type: 3, Data: []byte("by the node")}, Permanent: permanent})
				if err != nil {
					t.Fatal(err)
				}
				if status, text := web(t, addr, "POST", "/key/k", fmt.Sprintf(`{"data":"","id":"%d"}`, v.ID)); status != 502 || !strings.Contains(text, "choose another id") {
					t.Errorf("in the place of the node's: %d %s", status, text)
				}
			}
			if _, text := web(t, addr, "GET", "/key/k", ""); !strings.Contains(text, `"data":"YnkgaHR0cA=="`) || !strings.Contains(text, `"data":"YnkgdGhlIG5vZGU="`) {
				t.Errorf("found %s", text)
			}
			wait(t, "the account's device is announced", func() (bool, any) {
				_, text := web(t, addr, "GET", "/key/"+people()[0].id.String(), "")
				return strings.Contains(text, `"sig"`), text
			})
			id := ""
			_, text := web(t, addr, "GET", "/key/"+people()[0].id.String(), "")
			for l := range strings.Lines(text) {
				var v struct{ ID string }
				if err := json.Unmarshal([]byte(l), &v); err != nil {
					t.Fatalf("%v: %s", err, l)
				}
				id = v.ID
			}
			if status, text := web(t, addr, "POST", "/key/"+people()[0].id.String(), `{"data":"","id":"`+id+`"}`); status != 502 {
				t.Errorf("in the place of the announcement: %d %s", status, text)
			}
			all, err := env.Registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			names := map[string]bool{}
			for _, f := range all {
				names[f.GetName()] = true
			}
			for _, n := range []string{"parley_dht_proxy_requests_total", "parley_dht_proxy_listens", "parley_dht_proxy_subscriptions", "parley_dht_pushes_sent_total", "parley_dht_pushes_failed_total", "parley_dht_pushes_retried_total"} {
				if !names[n] {
					t.Errorf("no metric %s", n)
				}
			}
		})
	}
}

// A client that subscribed is woken up, also by what comes after a restart.
func TestProxyPushes(t *testing.T) {
	pushed := make(chan string, 10)
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		pushed <- string(b)
	}))
	defer service.Close()
	srv := bustest.Start(t)
	identity(t, srv, people()[0])
	addr := freeAddr(t)
	set := func(d *config.DHT) { d.ProxyListen, d.PushPrivate = addr, true }
	c, env, stop := nodeWith(t, srv, people()[0], "opendht", set)
	describe(t, c)
	subscribe := fmt.Sprintf(`{"key":"%s/up","client_id":"c1","session_id":"abcdefgh","platform":"unifiedpush"}`, service.URL)
	if status, text := web(t, addr, "SUBSCRIBE", "/key/k", subscribe); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	put := func(id uint64) {
		t.Helper()
		if _, err := bus.Call(t.Context(), c, contract.DHTPutCmd, &contract.DHTPut{Value: contract.DHTValue{Key: "k", ID: id, Type: 3, Data: []byte("secret")}}); err != nil {
			t.Fatal(err)
		}
		if got := <-pushed; !strings.Contains(got, `"to":"c1"`) || !strings.Contains(got, `"s":"abcdefgh"`) || strings.Contains(got, "c2VjcmV0") {
			t.Errorf("pushed %s", got)
		}
	}
	put(1)
	stop()
	file := filepath.Join(env.Config.Data, "dht", "proxy.json")
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), service.URL) {
		t.Fatalf("%s, %v", b, err)
	}
	c, _, _ = nodeWith(t, srv, people()[0], "opendht", set)
	describe(t, c)
	put(2)
}

// Without the push service being allowed to be here, nothing is subscribed.
func TestProxyGuards(t *testing.T) {
	srv := bustest.Start(t)
	identity(t, srv, people()[0])
	addr := freeAddr(t)
	c, _, _ := nodeWith(t, srv, people()[0], "libp2p", func(d *config.DHT) { d.ProxyListen = addr })
	describe(t, c)
	for _, url := range []string{"http://127.0.0.1:1/", "https://127.0.0.1:1/", "https://169.254.169.254/"} {
		if status, text := web(t, addr, "SUBSCRIBE", "/key/k", `{"key":"`+url+`","client_id":"c1","platform":"unifiedpush"}`); status != 400 || !strings.Contains(text, "endpoint refused") {
			t.Errorf("%s: %d %s", url, status, text)
		}
	}
}
