package dht

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

// shelf is a DHT proxy that keeps the last value of each key.
type shelf struct {
	mu   sync.Mutex
	last map[string][]byte
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	s.mu.Lock()
	defer s.mu.Unlock()
	key, listen := strings.CutSuffix(r.URL.Path, "/listen")
	switch {
	case r.URL.Path == "/node/info":
		io.WriteString(w, `{"node_id":"7f354de1ac43199a9a3b50e65454576d60275842","ipv4":{"good":3},"ipv6":{"good":4}}`)
		return
	case r.Method == http.MethodPost:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		s.last[key] = body
	}
	w.Write(append(s.last[key], '\n'))
	if listen {
		w.(http.Flusher).Flush()
		s.mu.Unlock()
		<-r.Context().Done()
		s.mu.Lock()
	}
}

// TestOverlayProxy: two nodes without UDP find each other at a proxy; when that is gone,
// they say which setting is meant.
func TestOverlayProxy(t *testing.T) {
	srv := httptest.NewServer(&shelf{last: map[string][]byte{}})
	defer srv.Close()
	var conns []*bus.Conn
	for _, p := range people() {
		b := bustest.Start(t)
		identity(t, b, p)
		c, _, _ := nodeOn(t, b, p, "proxy", srv.URL)
		wait(t, "proxy", func() (bool, any) {
			n := describe(t, c)
			return n.Overlay == "proxy" && n.Peers == 7 && len(n.Addresses) == 1 && n.Addresses[0] == srv.URL, n
		})
		conns = append(conns, c)
	}
	a, b := people()[0], conns[1]
	st, err := bus.Call(t.Context(), b, contract.DHTStatsGet, &contract.None{})
	if err != nil || len(st.Overlays) != 1 || st.Overlays[0].Via == nil || st.Overlays[0].Via.Peers != 7 || len(st.Overlays[0].Via.Proxies) != 1 ||
		st.Overlays[0].Via.Proxies[0] != (contract.DHTProxy{URL: srv.URL, InUse: true, Answers: true}) || len(st.Warnings) != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := bus.Call(t.Context(), b, contract.DHTPingCmd, &contract.DHTPing{Addr: "127.0.0.1"}); !errors.Is(err, contract.ErrBadRequest) || !strings.Contains(err.Error(), "by a proxy") {
		t.Error(err)
	}
	put(t, conns[0], certificate(t, a.short, a.certs...))
	wait(t, "a online at b", func() (bool, any) {
		p, err := bus.Call(t.Context(), b, contract.DHTPresenceGet, &contract.DHTPresence{ID: a.id.String()})
		return err == nil && p.Online, err
	})
	srv.CloseClientConnections()
	srv.Close()
	_, err = bus.Call(t.Context(), b, contract.DHTGetCmd, &contract.DHTKey{Key: "room"})
	if !errors.Is(err, contract.ErrTimeout) || !strings.Contains(err.Error(), "dht.proxy") {
		t.Errorf("got %v", err)
	}
}
