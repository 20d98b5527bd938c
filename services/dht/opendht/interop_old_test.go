//go:build interop

package opendht

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// TestInteropOldListener: a listener that names no version is told the same by a stock
// node and by one of ours.
func TestInteropOldListener(t *testing.T) {
	s := dhtnode(t, "", "-i")
	o := start(t, 0, nil)
	for name, to := range map[string]netip.AddrPort{
		"stock": netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", s.port)),
		"ours":  netip.MustParseAddrPort(o.Node().Addresses[0]),
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			self, key := jami.HashKey("me"), jami.HashKey("old")
			send := func(m wire.Message) {
				t.Helper()
				m.ID = self
				if _, err := conn.WriteToUDPAddrPort(m.Append(nil), to); err != nil {
					t.Fatal(err)
				}
			}
			// next waits for a packet of a kind and number; it answers the pings before it.
			next := func(kind wire.Kind, tid uint32) wire.Message {
				t.Helper()
				if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}
				for {
					b := make([]byte, wire.MaxPacket)
					n, err := conn.Read(b)
					if err != nil {
						t.Fatalf("no %s %d: %v", kind, tid, err)
					}
					var m wire.Message
					if err := wire.Decode(b[:n], &m); err != nil {
						t.Fatal(err)
					}
					switch {
					case m.Kind == kind && m.TID == tid:
						return m
					case m.Kind == wire.Ping:
						send(wire.Message{Kind: wire.Reply, TID: m.TID})
					case m.Kind == wire.Update:
						t.Fatal("told by an update")
					}
				}
			}
			send(wire.Message{Kind: wire.Find, TID: 2, Target: key})
			token := next(wire.Reply, 2).Token
			send(wire.Message{Kind: wire.Listen, TID: 4, Target: key, Token: token, SID: 77, Has: wire.HasToken | wire.HasSID})
			next(wire.Reply, 4)
			put := func(id uint64, age int64) {
				t.Helper()
				v, err := (&jami.Value{ID: id, Type: 5, Data: []byte("x")}).Pack()
				if err != nil {
					t.Fatal(err)
				}
				send(wire.Message{Kind: wire.Put, TID: 6, Target: key, Token: token, Created: time.Now().Unix() - age,
					Has: wire.HasToken | wire.HasValues | wire.HasCreated, Values: wire.NewArray(1, v)})
			}
			for _, x := range []struct {
				id  uint64
				age int64
			}{{5, 20}, {6, 57}} {
				put(x.id, x.age)
				if m := next(wire.Reply, 77); m.Values.Len() != 1 || m.Sizes || len(m.Token) == 0 {
					t.Errorf("told %+v", m)
				}
			}
			put(5, 10)
			m := next(wire.Legacy, 77)
			if id, _ := m.Refreshed.NextUint(); id != 5 {
				t.Errorf("refreshed %d", id)
			}
			m = next(wire.Legacy, 77)
			if id, _ := m.Expired.NextUint(); id != 6 {
				t.Errorf("expired %d", id)
			}
		})
	}
}
