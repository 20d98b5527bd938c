package proxyclient

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/overlay/overlaytest"
)

// TestTLS: a proxy whose certificate nobody trusts is not used; with its authority it is.
func TestTLS(t *testing.T) {
	w := newNetwork()
	s := httptest.NewUnstartedServer(&proxy{network: w, name: "tls", good: 1})
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of those that hang up
	s.EnableHTTP2 = true                           // which is not used
	s.StartTLS()
	defer w.close()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		ca string
		ok bool
	}{{"", false}, {ca, true}} {
		n, err := New(Options{Key: overlaytest.Keys()[0], Servers: []string{s.URL}, CA: x.ca, Log: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		st, err := n.Put(ctx(t, 5*time.Second), overlay.Value{Key: theKey, Data: []byte("x")}, false)
		if err != nil || (st.Peers == 1) != x.ok {
			t.Errorf("authority %q: %+v, %v", x.ca, st, err)
		}
		if vs, err := n.Get(ctx(t, 5*time.Second), theKey); (err == nil && len(vs) == 1) != x.ok {
			t.Errorf("authority %q: %v, %v", x.ca, vs, err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	w := newNetwork()
	s := httptest.NewUnstartedServer(&proxy{network: w, name: "six", good: 1})
	s.Listener.Close()
	s.Listener = l
	s.Start()
	defer w.close()
	defer s.Close()
	n := start(t, 0, s.URL)
	waitUp(t, n, s.URL)
	if st, err := n.Put(ctx(t, 5*time.Second), overlay.Value{Key: theKey, Data: []byte("six")}, false); err != nil || st.Peers != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestPortRange: one port of the range is there; it is found.
func TestPortRange(t *testing.T) {
	var s *httptest.Server
	var port int
	for { // the port before has nobody who takes connections and says nothing
		_, s = newNetwork().serve(t, "proxy", 1)
		port = s.Listener.Addr().(*net.TCPAddr).Port
		before, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port-1))
		if err != nil {
			continue
		}
		t.Cleanup(func() { before.Close() })
		go func() {
			for {
				c, err := before.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		break
	}
	n := start(t, 0, fmt.Sprintf("http://127.0.0.1:[%d-%d]", port-1, port))
	waitUp(t, n, s.URL)
}

func TestBadSettings(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		o    Options
		word string
	}{
		"no proxy":          {Options{}, "dht.proxy"},
		"too many":          {Options{Servers: make([]string, maxServers+1)}, "dht.proxy"},
		"no URL":            {Options{Servers: []string{"http://x:[9-8]"}}, "dht.proxy"},
		"no authority file": {Options{Servers: []string{"x"}, CA: empty + "x"}, "dht.proxy_ca"},
		"no authority":      {Options{Servers: []string{"x"}, CA: empty}, "dht.proxy_ca"},
	} {
		x.o.Key, x.o.Log = overlaytest.Keys()[0], zap.NewNop()
		if _, err := New(x.o); err == nil || !strings.Contains(err.Error(), x.word) {
			t.Errorf("%s: %v, want one that names %s", name, err, x.word)
		}
	}
}
