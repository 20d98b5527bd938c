package reach

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers each request by what answer returns; nil is no answer.
func server(t *testing.T, answer func(*stun.Message) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			m := &stun.Message{Raw: append([]byte{}, b[:n]...)}
			if err := m.Decode(); err != nil {
				t.Errorf("a malformed request: %v", err)
			}
			if a := answer(m); a != nil {
				c.WriteTo(a, from)
			}
		}
	}()
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	return c.LocalAddr().String()
}

func sees(ip string) func(*stun.Message) []byte {
	return func(m *stun.Message) []byte {
		return stun.MustBuild(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess, &stun.XORMappedAddress{IP: net.ParseIP(ip), Port: 9}, stun.Fingerprint).Raw
	}
}

func silent(*stun.Message) []byte { return nil }

func TestAsk(t *testing.T) {
	late := atomic.Int32{}
	for _, c := range []struct {
		name    string
		servers []string
		want    string
		err     string
	}{
		{"one", []string{server(t, sees("203.0.113.7"))}, "203.0.113.7", ""},
		{"a silent one first", []string{server(t, silent), server(t, sees("203.0.113.7"))}, "203.0.113.7", ""},
		{"loss", []string{server(t, func(m *stun.Message) []byte {
			if late.Add(1) < 3 {
				return nil
			}
			return sees("203.0.113.8")(m)
		})}, "203.0.113.8", ""},
		{"old form", []string{server(t, func(m *stun.Message) []byte {
			return stun.MustBuild(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess, &stun.MappedAddress{IP: net.ParseIP("203.0.113.9"), Port: 9}).Raw
		})}, "203.0.113.9", ""},
		{"private", []string{server(t, sees("192.168.1.2"))}, "", "not a public one"},
		{"carrier's NAT", []string{server(t, sees("100.64.3.4"))}, "", "not a public one"},
		{"an error", []string{server(t, func(m *stun.Message) []byte {
			return stun.MustBuild(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingError, stun.CodeTryAlternate).Raw
		})}, "", "error"},
		{"nothing in it", []string{server(t, func(m *stun.Message) []byte {
			return stun.MustBuild(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess).Raw
		})}, "", "attribute not found"},
		{"another transaction", []string{server(t, func(*stun.Message) []byte { return sees("203.0.113.7")(stun.MustBuild(stun.TransactionID)) })}, "", "no answer"},
		{"garbage", []string{server(t, func(*stun.Message) []byte { return []byte("\x00\x01garbage") })}, "", "no answer"},
		{"no such host", []string{"no-such-host.invalid"}, "", "no-such-host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := Ask(t.Context(), "udp4", netip.Addr{}, c.servers)
			switch {
			case c.want != "" && (err != nil || got.String() != c.want):
				t.Errorf("%s, %v", got, err)
			case c.err != "" && (!errors.Is(err, ErrNone) || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), c.servers[0])):
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}

func TestWatcher(t *testing.T) {
	var answer atomic.Pointer[func(*stun.Message) []byte]
	set := func(f func(*stun.Message) []byte) { answer.Store(&f) }
	private := sees("10.0.0.1")
	set(private)
	at := server(t, func(m *stun.Message) []byte { return (*answer.Load())(m) })
	core, logs := observer.New(zap.InfoLevel)
	told := make(chan []netip.Addr, 10)
	w := &Watcher{Bound: netip.MustParseAddr("127.0.0.1"), Servers: []string{at}, Log: zap.New(core), Tell: func(l []netip.Addr) { told <- l }, retry: 10 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	for logs.FilterMessageSnippet("no STUN server answers").Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	set(sees("203.0.113.7"))
	if got := <-told; len(got) != 1 || got[0].String() != "203.0.113.7" {
		t.Error(got)
	}
	for logs.FilterMessage("STUN servers answer again").Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	if n := logs.FilterMessageSnippet("no STUN server answers").Len(); n != 1 {
		t.Errorf("%d warnings", n)
	}
	cancel()
	<-done
}

// FuzzMapped gives answers that a server, or somebody in its name, may send.
func FuzzMapped(f *testing.F) {
	ok := stun.MustBuild(stun.TransactionID, stun.BindingSuccess, &stun.XORMappedAddress{IP: net.IPv4(192, 0, 2, 1), Port: 9})
	f.Add(ok.Raw)
	old := stun.MustBuild(stun.TransactionID, stun.BindingSuccess, &stun.MappedAddress{IP: net.ParseIP("2001:db8::1"), Port: 9})
	f.Add(old.Raw)
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingError, stun.CodeBadRequest).Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(stun.Message)
		if stun.Decode(b, m) != nil {
			return
		}
		if a, err := mapped(stun.Event{Message: m}); err == nil && !Public(a) {
			t.Fatalf("%v is not public", a)
		}
	})
}
