//go:build interop

package interop

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// late is a network of which the kernel has no model: what would go by UDP between programs of this namespace,
// and between them and others, goes by a TUN device to here, is held, and goes back.
type late struct {
	most time.Duration
	tun  *os.File
	undo []string

	mu   sync.Mutex
	held map[string]time.Time // by flow: when its last one goes on
	n    int
	wg   sync.WaitGroup
}

// startLate holds every datagram for 0 to most, in the order of its flow. own is the namespace's address at an
// interface, far the network behind that. It returns how to end it, which tells how many it held.
func startLate(t *testing.T, most time.Duration, dev, own, far string) (end func() int) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("/dev/net/tun: %v", err)
	}
	req, err := unix.NewIfreq("late")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatalf("TUN device: %v", err)
	}
	l := &late{most: most, tun: os.NewFile(uintptr(fd), "late"), held: map[string]time.Time{}}
	for _, set := range []string{"all/rp_filter=0", "default/rp_filter=0", "late/rp_filter=0", dev + "/rp_filter=0", "late/accept_local=1", "late/route_localnet=1", "all/forwarding=1", "all/send_redirects=0"} {
		name, value, _ := strings.Cut(set, "=")
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	ip := func(line string) { run(t, append([]string{"ip"}, strings.Fields(line)...)...) }
	ip("link set late up mtu 65535")
	for _, r := range []string{"127.0.0.0/8 dev late src 127.0.0.1", own + "/32 dev late src " + own, far + " dev late src " + own} {
		ip("route add " + r + " table 99")
	}
	// What is addressed to this machine is looked up first of all, unless that is told to come later.
	ip("rule add pref 200 lookup local")
	ip("rule del pref 0")
	for i, to := range []string{"iif lo ipproto udp to 127.0.0.0/8", "iif lo ipproto udp to " + far, "iif " + dev + " ipproto udp to " + own} {
		rule := fmt.Sprintf("pref %d %s lookup 99", 50+i, to)
		ip("rule add " + rule)
		l.undo = append(l.undo, "rule del "+rule)
	}
	l.undo = append(l.undo, "rule add pref 0 lookup local", "rule del pref 200")
	l.wg.Go(l.read)
	return func() int {
		for _, line := range l.undo {
			ip(line)
		}
		if err := l.tun.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Error(err)
		}
		l.wg.Wait()
		if err := l.tun.Close(); err != nil {
			t.Error(err)
		}
		return l.n
	}
}

// read holds what comes until the device's deadline.
func (l *late) read() {
	buf := make([]byte, 1<<16)
	for {
		k, err := l.tun.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil || k < 28 || buf[0]>>4 != 4 {
			continue // IPv6 speaks of routers here
		}
		pkt := append([]byte(nil), buf[:k]...)
		flow := string(pkt[12:24]) // addresses and, without options, ports
		now := time.Now()
		at := now.Add(rand.N(l.most))
		l.mu.Lock()
		if last := l.held[flow].Add(100 * time.Microsecond); last.After(at) {
			at = last
		}
		l.held[flow] = at
		l.n++
		l.mu.Unlock()
		l.wg.Add(1)
		time.AfterFunc(at.Sub(now), func() {
			defer l.wg.Done()
			_, _ = l.tun.Write(pkt) // one that is lost, as others are
		})
	}
}
