package opendht

import (
	"net"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

func TestStale(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, x := range []struct {
		came time.Time
		want bool
	}{{now, false}, {now.Add(-600 * time.Millisecond), false}, {now.Add(-700 * time.Millisecond), true},
		{time.Time{}, false}, {now.Add(time.Hour), false}, {now.Add(-time.Hour), false}} { // the last two: the clock was set
		if stale(x.came, now) != x.want {
			t.Errorf("%s before: %v", now.Sub(x.came), !x.want)
		}
	}
}

// TestStalePacketsAreDropped: what waited in the socket while the node did something else
// is not answered, and what comes then is.
func TestStalePacketsAreDropped(t *testing.T) {
	n := start(t, 0, nil)
	to, err := net.ResolveUDPAddr("udp4", n.Node().Addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", nil, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ping := func(tid uint32) {
		t.Helper()
		m := wire.Message{Kind: wire.Ping, TID: tid, ID: jami.HashKey("me"), Client: true}
		if _, err := c.Write(m.Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	n.mu.Lock()
	for tid := range uint32(5) {
		ping(tid)
	}
	time.Sleep(staleAfter + 100*time.Millisecond) // the kernel's clock cannot be moved
	n.mu.Unlock()
	ping(9)
	b := make([]byte, wire.MaxPacket)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	size, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Message
	if err := wire.Decode(b[:size], &m); err != nil || m.TID != 9 {
		t.Errorf("answered to %d, %v", m.TID, err)
	}
	if s := n.Stats(); s.Stale != 5 {
		t.Errorf("%d dropped", s.Stale)
	}
}

// BenchmarkReceive compares what a packet costs when each takes a system call, with the
// time of its arrival and without, and when one call takes up to 32 of them
// (recvmmsg(2)). Packets wait in the socket before the clock runs.
func BenchmarkReceive(b *testing.B) {
	const burst = 512
	for name, with := range map[string]func(b *testing.B, c *net.UDPConn) (drain func()){
		"One": func(b *testing.B, c *net.UDPConn) func() {
			buf := make([]byte, 65507)
			return func() {
				for range burst {
					if _, _, err := c.ReadFromUDPAddrPort(buf); err != nil {
						b.Fatal(err)
					}
				}
			}
		},
		"OneWithTime": func(b *testing.B, c *net.UDPConn) func() {
			buf, oob := make([]byte, 65507), make([]byte, oobSize)
			return func() {
				for range burst {
					_, n, _, _, err := c.ReadMsgUDPAddrPort(buf, oob)
					if err != nil || arrival(oob[:n]).IsZero() {
						b.Fatal(err)
					}
				}
			}
		},
		"Batch": func(b *testing.B, c *net.UDPConn) func() {
			p := ipv4.NewPacketConn(c)
			ms := make([]ipv4.Message, 32)
			for i := range ms {
				ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 65507)}, make([]byte, oobSize)
			}
			return func() {
				for left := burst; left > 0; {
					n, err := p.ReadBatch(ms, 0)
					if err != nil {
						b.Fatal(err)
					}
					for _, m := range ms[:n] {
						_ = m.Addr.(*net.UDPAddr).AddrPort()
					}
					left -= n
				}
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			in, err := listenOne("udp4", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer in.Close()
			out, err := net.DialUDP("udp4", nil, in.LocalAddr().(*net.UDPAddr))
			if err != nil {
				b.Fatal(err)
			}
			defer out.Close()
			packet := make([]byte, 120)
			drain := with(b, in)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				for range burst {
					if _, err := out.Write(packet); err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				drain()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*burst), "ns/packet")
		})
	}
}
