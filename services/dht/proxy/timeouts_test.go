package proxy

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// A listener outlives the times of requests, over HTTP/1.1 and HTTP/2, and its going is
// seen.
func TestListenersHaveNoEnd(t *testing.T) {
	const short = 100 * time.Millisecond
	key := overlay.Key(jami.HashKey("foo"))
	for _, h2 := range []bool{false, true} {
		over := &fake{}
		s := serve(t, Options{Overlay: over})
		door := httptest.NewUnstartedServer(nil)
		door.Config = httpapi.NewServer(s, s.Log, short, short)
		door.EnableHTTP2 = h2
		if h2 {
			door.StartTLS()
		} else {
			door.Start()
		}
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := get(ctx, door, "/key/foo/listen")
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: 1, true: 2}[h2]; resp.ProtoMajor != want {
			t.Errorf("HTTP/%d", resp.ProtoMajor)
		}
		in := bufio.NewReader(resp.Body)
		wait(t, "it listens", func() (bool, any) { return s.watchers(key) == 1, nil })
		for i := range 3 {
			time.Sleep(2 * short) // the times are the kernel's and the server's own
			over.change(key, overlay.Change{Value: overlay.Value{Key: key, ID: uint64(i + 1), Data: []byte("a")}})
			if _, err := in.ReadString('\n'); err != nil {
				t.Fatalf("HTTP/2 %v: %v", h2, err)
			}
		}
		cancel()
		resp.Body.Close()
		wait(t, "it has gone", func() (bool, any) { w := s.watchers(key); return w == 0, w })
		door.Close()
	}
}

// A reader that takes nothing off the network is cut off.
func TestReaderOffTheNetwork(t *testing.T) {
	over := &fake{}
	s := serve(t, Options{Overlay: over})
	s.writeTime = 300 * time.Millisecond
	door := httptest.NewServer(s)
	defer door.Close()
	c, err := net.Dial("tcp", door.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET /key/foo/listen HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	key := overlay.Key(jami.HashKey("foo"))
	wait(t, "it listens", func() (bool, any) { return s.watchers(key) == 1, nil })
	data := make([]byte, 60<<10)
	id := uint64(0)
	wait(t, "it is cut off", func() (bool, any) {
		id++
		over.change(key, overlay.Change{Value: overlay.Value{Key: key, ID: id%200 + 1, Type: uint16(id), Data: data}})
		w := s.watchers(key)
		return w == 0, w
	})
}

func get(ctx context.Context, door *httptest.Server, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", door.URL+path, nil)
	if err != nil {
		return nil, err
	}
	return door.Client().Do(req)
}
