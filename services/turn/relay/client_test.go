package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	credentials "github.com/parley-jami/parley/internal/turn"
	"github.com/parley-jami/parley/internal/turnclient"
)

// nodeClient is a node's client for servers.
func nodeClient(t *testing.T, known ...credentials.Known) *turnclient.Client {
	t.Helper()
	return turnclient.New(turnclient.Config{List: &credentials.List{Known: known, Life: time.Minute}, Name: "test", Look: 100 * time.Millisecond, Log: zap.NewNop(),
		Metrics: turnclient.NewMetrics(prometheus.NewRegistry())})
}

// A node's relay of datagrams lets in whom it is asked to, and nobody else.
func TestNodeRelaysDatagrams(t *testing.T) {
	r := start(t, nil)
	for _, by := range []string{"udp", "tcp"} {
		t.Run(by, func(t *testing.T) {
			c := nodeClient(t, credentials.Known{URLs: []string{"stun:" + r.addr, fmt.Sprintf("turn:%s?transport=%s", r.addr, by)}, Secret: string(secret)})
			u, err := c.UDP(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			peer := echo(t, "127.0.0.1:0")
			to := addrPort(peer.LocalAddr())
			if u.Send([]byte("before"), to) {
				t.Error("sent to an address that was not let in")
			}
			let := make(chan struct{}, 3)
			for range 3 { // two of them wait for the first one's answer
				u.Permit(to, func() { let <- struct{}{} })
			}
			for range 3 {
				<-let
			}
			if !u.Send([]byte("hello"), to) {
				t.Error("not sent")
			}
			b := make([]byte, 2000)
			for {
				n, from, err := u.ReadFrom(b)
				if err != nil {
					t.Fatal(err)
				}
				if from != to {
					t.Fatalf("from %s", from)
				}
				if string(b[:n]) == "hello" {
					break
				}
			}
			u.Permit(netip.MustParseAddrPort("10.1.2.3:9"), func() { t.Error("a private address is let in") })
			u.Permit(netip.MustParseAddrPort("[::1]:9"), func() { t.Error("an address of another family is let in") })
			u.Close()
			<-u.Lost()
			if !errors.Is(u.Err(), net.ErrClosed) {
				t.Error(u.Err())
			}
			u.Permit(to, func() { t.Error("a closed relay lets in") })
		})
	}
}

// A node's relay of connections gives what peers open; each is the peer's own.
func TestNodeRelaysConnections(t *testing.T) {
	r := start(t, nil)
	c := nodeClient(t, credentials.Known{URLs: []string{"turn:" + r.addr}, Secret: string(secret)})
	relay, err := c.TCP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan net.Conn)
	served := make(chan struct{})
	go func() {
		defer close(served)
		relay.Serve(func(c net.Conn) { got <- c })
	}()
	if err := relay.Permit([]netip.Addr{netip.MustParseAddr("10.1.2.3")}); err == nil {
		t.Error("a private address is let in")
	}
	if err := relay.Permit([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}); err != nil {
		t.Fatal(err)
	}
	for range 16 { // more than are waited for at once
		out, err := net.Dial("tcp", relay.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		in := <-got
		defer in.Close()
		if in.RemoteAddr().String() != out.LocalAddr().String() {
			t.Errorf("from %s, which is %s", in.RemoteAddr(), out.LocalAddr())
		}
		want := bytes.Repeat([]byte("there and back "), 5000)
		go func() {
			_, _ = io.Copy(in, io.LimitReader(in, int64(len(want))))
		}()
		go func() { _, _ = out.Write(want) }()
		back := make([]byte, len(want))
		if _, err := io.ReadFull(out, back); err != nil || !bytes.Equal(back, want) {
			t.Fatal("something else came back", err)
		}
	}
	relay.Close()
	<-served
}

// What the server lost is told, and a server that gives nothing is passed over.
func TestNodeLosesItsRelay(t *testing.T) {
	if testing.Short() {
		t.Skip("an answer is waited for, 10 s, that does not come")
	}
	r := start(t, nil)
	dead := credentials.Known{URLs: []string{"turn:127.0.0.1:1?transport=tcp"}, Secret: "x"}
	wrong := credentials.Known{URLs: []string{"turn:" + r.addr}, Username: "nobody", Password: "wrong"}
	if _, err := nodeClient(t, dead, wrong).TCP(t.Context()); !errors.Is(err, turnclient.ErrNone) {
		t.Error(err)
	}
	c := nodeClient(t, wrong, dead, credentials.Known{URLs: []string{"turn:" + r.addr}, Secret: string(secret)})
	u, err := c.UDP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	k, err := c.TCP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	r.stop()
	again := start(t, func(cfg *Config) {
		for _, l := range cfg.TCP {
			l.Close()
		}
		for _, u := range cfg.UDP {
			u.Close()
		}
		at := netip.MustParseAddrPort(r.addr)
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		cfg.TCP, cfg.UDP = []net.Listener{l}, []*net.UDPConn{u}
	})
	for _, a := range []interface {
		Lost() <-chan struct{}
		Err() error
	}{u, k} {
		select {
		case <-a.Lost():
			t.Log(a.Err())
		case <-time.After(20 * time.Second): // pion's server does not answer who has no allocation
			t.Fatal("the loss is not told")
		}
		if a.Err() == nil || errors.Is(a.Err(), net.ErrClosed) {
			t.Error(a.Err())
		}
	}
	fresh, err := c.UDP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fresh.Close()
	again.stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.TCP(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
