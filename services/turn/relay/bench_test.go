package relay

import (
	"encoding/binary"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	credentials "github.com/parley-jami/parley/internal/turn"
)

// What a packet of audio costs the relay, from a client's channel to a peer and back:
// CPU of this process, less that of the same exchange without a relay.
func BenchmarkRelay(b *testing.B) {
	for _, size := range []int{160, 1200} {
		b.Run(byteName(size), func(b *testing.B) {
			r := start(b, func(c *Config) { c.Bandwidth = 1 << 40 })
			peer := echo(b, "127.0.0.1:0")
			c := r.raw()
			alice := credentials.Issue(secret, "alice", time.Hour, time.Now())
			if c.ask(alice, stun.MethodAllocate, udpTransport) != 0 || c.ask(alice, stun.MethodChannelBind, peerAttr(peer.LocalAddr().String()), channelAttr(0x4000)) != 0 {
				b.Fatal("no channel")
			}
			direct, err := net.Dial("udp", peer.LocalAddr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer direct.Close()
			packet := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, 0x4000), uint16(size))
			packet = append(packet, make([]byte, size)...)
			base := exchange(b, direct, packet[4:])
			b.ResetTimer()
			began := time.Now()
			relayed := exchange(b, c.conn, packet)
			took := time.Since(began)
			b.ReportMetric((relayed-base).Seconds()*1e6/float64(2*b.N), "µs_CPU/packet")
			b.ReportMetric(float64(2*b.N*size*8)/took.Seconds()/1e6, "Mbit/s")
		})
	}
}

func byteName(n int) string {
	if n < 1000 {
		return "audio"
	}
	return "full"
}

// exchange sends b.N packets and takes as many back, some at a time on their way, and
// returns the CPU that it took.
func exchange(b *testing.B, c net.Conn, packet []byte) time.Duration {
	b.Helper()
	const window = 64
	was := cpu(b)
	buf := make([]byte, 2000)
	for sent, got := 0, 0; got < b.N; {
		for sent < b.N && sent-got < window {
			if _, err := c.Write(packet); err != nil {
				b.Fatal(err)
			}
			sent++
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatalf("after %d of %d: %v", got, b.N, err)
		}
		got++
	}
	return cpu(b) - was
}

func cpu(b testing.TB) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
