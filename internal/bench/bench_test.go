package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// relay is a node that gives every listener speaker 0's own packets a fixed time
// after they came. It drops every tenth frame where told.
type relay struct {
	t     *testing.T
	conn  *net.UDPConn
	drop  bool
	delay time.Duration
	from  netip.Addr // of speaker 0, when he is elsewhere
	// everybody has the speakers get it, too.
	everybody bool

	mu        sync.Mutex
	listeners map[string]netip.AddrPort
	left      int
}

var contact = regexp.MustCompile(`c=IN IP4 (\S+)\r\n(?s:.*)m=audio (\d+) `)

func (r *relay) Join(_ context.Context, w Wish) (string, error) {
	m := contact.FindStringSubmatch(w.Offer)
	if m == nil {
		return "", fmt.Errorf("no address in %q", w.Offer)
	}
	port, err := strconv.ParseUint(m[2], 10, 16)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.Muted || r.everybody {
		r.listeners[w.ID] = netip.AddrPortFrom(netip.MustParseAddr(m[1]), uint16(port))
	}
	return fmt.Sprintf("v=0\r\nm=audio %d RTP/AVP 96\r\n", r.conn.LocalAddr().(*net.UDPAddr).Port), nil
}

func (r *relay) Leave(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.listeners, id)
	r.left++
	return nil
}

func (r *relay) Processes(context.Context) ([]Process, error) {
	return []Process{{Name: "media", Worker: "m1", CPU: float64(time.Now().UnixNano()) / 1e9 / 100, RSS: 1000}}, nil
}

// run forwards until the socket closes.
func (r *relay) run() {
	type late struct {
		at  time.Time
		pkt []byte
	}
	queue := make(chan late, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for l := range queue {
			<-time.After(time.Until(l.at))
			r.mu.Lock()
			for _, a := range r.listeners {
				if _, err := r.conn.WriteToUDPAddrPort(l.pkt, a); err != nil {
					break // closed
				}
			}
			r.mu.Unlock()
		}
	}()
	buf := make([]byte, 1500)
	speaker := address(loopback, 0)
	if r.from.IsValid() {
		speaker = r.from
	}
	for n := uint16(0); ; {
		k, from, err := r.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		if from.Addr().Unmap() != speaker {
			continue
		}
		n++
		if r.drop && n%10 == 0 {
			continue
		}
		pkt := append([]byte(nil), buf[:k]...)
		binary.BigEndian.PutUint16(pkt[2:], n)
		queue <- late{time.Now().Add(r.delay), pkt}
	}
	close(queue)
	<-done
}

func runRelay(t *testing.T, drop bool) *Report {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, conn: conn, drop: drop, delay: 30 * time.Millisecond, listeners: map[string]netip.AddrPort{}}
	var wg sync.WaitGroup
	wg.Go(r.run)
	rep, err := Run(context.Background(), Config{Listeners: 5, Speakers: 2, Seconds: 6, Transport: RTP, warm: 200 * time.Millisecond}, r)
	conn.Close()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if r.left != 7 || len(r.listeners) != 0 {
		t.Errorf("%d of 7 left", r.left)
	}
	return rep
}

// measured runs a relay until its report is right: what else the machine does makes
// frames late, and never early.
func measured(t *testing.T, drop bool, wrong func(*Report) string) {
	t.Helper()
	for tries := 1; ; tries++ {
		rep := runRelay(t, drop)
		why := wrong(rep)
		if why == "" {
			return
		}
		t.Logf("%+v: %s", rep, why)
		if tries == 6 {
			t.Fatalf("%s, each time", why)
		}
	}
}

func TestARelayIsMeasured(t *testing.T) {
	t.Parallel()
	measured(t, false, func(rep *Report) string {
		// One encoder on the way, where two are subtracted.
		want := 30 - LookAhead.Seconds()*1000
		if rep.DelayMs.Found < 8 || rep.DelayMs.P50 < want-3 || rep.DelayMs.P50 > want+15 {
			return fmt.Sprintf("delay %+v, want p50 %.1f", rep.DelayMs, want)
		}
		if c := rep.CPUPerS["media"]; c < 0.009 || c > 0.011 {
			t.Errorf("%v CPU seconds a second, 0.01 were used", c)
		}
		if rep.OnTime < 0.9 {
			return fmt.Sprintf("%.4f on time", rep.OnTime)
		}
		return ""
	})
}

func TestLossCountsAsLate(t *testing.T) {
	t.Parallel()
	measured(t, true, func(rep *Report) string {
		if rep.OnTime > 0.93 {
			t.Errorf("%.4f on time with a tenth lost", rep.OnTime)
		}
		if rep.OnTime < 0.75 {
			return fmt.Sprintf("%.4f on time with a tenth lost", rep.OnTime)
		}
		return ""
	})
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{{}, {Listeners: 1}, {Seconds: 1, Transport: RTP}, {Listeners: -1, Silent: 9, Seconds: 1, Transport: RTP}, {Listeners: 1, Speakers: 1, Seconds: 1}, {Listeners: 1 << 20, Speakers: 1, Seconds: 1, Transport: RTP}} {
		if _, err := Run(context.Background(), c, nil); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

func TestAddressesAreInvertible(t *testing.T) {
	for i := range MaxLegs + MaxSpeakers {
		if a := address(loopback, i); indexOf(a.As4()) != i || !a.IsLoopback() {
			t.Fatalf("%d is %v, which is %d", i, a, indexOf(a.As4()))
		}
	}
}

func FuzzAccept(f *testing.F) {
	f.Add("v=0\r\nm=audio 4000 RTP/SAVP 96\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|2^31\r\n")
	f.Add("m=audio 4000 RTP/SAVP 96\r\nc=IN IP4 10.0.0.1\r\na=crypto:1 AEAD_AES_128_GCM inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\r\n")
	f.Add("m=audio 4000 UDP/TLS/RTP/SAVPF 96\r\na=ice-ufrag:x\r\na=ice-pwd:y\r\na=fingerprint:sha-256 00:11\r\n")
	f.Add("m=audio x\na=crypto:\na=crypto:1 2\n")
	f.Fuzz(func(t *testing.T, s string) {
		for name, tr := range transports {
			l, err := newLeg(1, address(loopback, 1), "x", true, tr)
			if err != nil {
				t.Fatal(err)
			}
			w := l.newWay()
			if l.accept(w, s) != nil {
				continue
			}
			keys := w.in != nil && w.out != nil
			if !w.to.IsValid() || keys != (tr.suite != nil && !tr.dtls) || tr.dtls && (w.ice.farPwd == "" || w.ice.farPrint == "") {
				t.Fatalf("%s: half an answer was taken", name)
			}
		}
	})
}
