package device

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/devicetest"
	"github.com/parley-jami/parley/services/connect/device/mux"
	"github.com/parley-jami/parley/services/connect/device/request"
	"github.com/parley-jami/parley/services/connect/device/secure"
)

// byUDP is a world in which TCP gets nowhere.
func byUDP(t testing.TB) (o *overlay, alice, bob *node) {
	t.Helper()
	o, alice, bob = world(t)
	o.noTCP = true
	return o, alice, bob
}

func TestDialByUDP(t *testing.T) {
	o, alice, bob := byUDP(t)
	began := time.Now()
	a, b := mustDial(t, alice, bob)
	t.Logf("a channel after %v", time.Since(began))
	talk(t, a, b, "INVITE")
	talk(t, b, a, "200")
	talk(t, a, b, strings.Repeat("x", channel.MaxMessage))
	for _, p := range []channel.Peer{a.Peer(), b.Peer()} {
		if p.Over != "udp" || p.TLS != "DTLS 1.2" || p.Suite != "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" {
			t.Errorf("%+v", p)
		}
	}
	if p := b.Peer(); p.Account != alice.dev.Chain.JamiID || p.Device != alice.dev.Chain.DeviceShort || p.DeviceLong != alice.dev.Chain.DeviceID.String() {
		t.Errorf("bob sees %+v", p)
	}
	if _, ok := a.LocalAddr().(*net.UDPAddr); !ok || a.LocalAddr().String() != b.RemoteAddr().String() || b.LocalAddr().String() != bob.udp {
		t.Errorf("%v, %v, %v", a.LocalAddr(), b.RemoteAddr(), b.LocalAddr())
	}
	if ob := <-bob.observed; ob.Outcome != Connected || ob.Over != "udp" {
		t.Errorf("%+v", ob)
	}
	c, d := mustDial(t, bob, alice) // on the same connection
	talk(t, c, d, "back")
	if _, err := dialTo(t, alice, bob, "git://x/y"); !errors.Is(err, mux.ErrDeclined) {
		t.Errorf("a channel that nobody takes: %v", err)
	}
	if o.sent != 2 || alice.Links() != 1 || bob.Links() != 1 {
		t.Errorf("%d messages, %d and %d connections", o.sent, alice.Links(), bob.Links())
	}
}

// TestTCPIsTaken: where both get through it is TCP, and nothing stays of UDP.
func TestTCPIsTaken(t *testing.T) {
	_, alice, bob := world(t)
	a, b := mustDial(t, alice, bob)
	time.Sleep(2 * udpAfter) // would there come another one, it were there
	if a.Peer().Over != "tcp" || b.Peer().Over != "tcp" || alice.Links() != 1 || bob.Links() != 1 {
		t.Errorf("%+v, %+v; %d and %d connections", a.Peer(), b.Peer(), alice.Links(), bob.Links())
	}
	talk(t, a, b, "INVITE")
}

// TestTCPLate: TCP that gets through later than UDP makes no second connection.
func TestTCPLate(t *testing.T) {
	o, alice, bob := world(t)
	for i := range 5 {
		o.meet = func(_, _ *node, b []byte) []byte {
			time.Sleep(time.Duration(i) * udpAfter / 4) // the answer, after which the race begins on one side
			return b
		}
		a, b := mustDial(t, alice, bob)
		talk(t, a, b, "INVITE")
		if alice.Links() != 1 || bob.Links() != 1 {
			t.Errorf("%d and %d connections", alice.Links(), bob.Links())
		}
		if a.Peer().Over != b.Peer().Over {
			t.Errorf("%+v, %+v", a.Peer(), b.Peer())
		}
		l := alice.live(linkKey{alice.dev.Chain.JamiID, bob.dev.Chain.DeviceID}).sock
		l.Close()
		for bob.Links() != 0 || alice.Links() != 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// TestWhoHasNoUDP: neither a peer without it, nor one that is asked by such a one, sends more than stock does.
func TestWhoHasNoUDP(t *testing.T) {
	o := &overlay{nodes: map[jami.ID]*node{}, tcpOnly: true}
	stock := o.node(t, devicetest.NewAccount(t).Device(t))
	o.tcpOnly = false
	parley := o.node(t, devicetest.NewAccount(t).Device(t))
	var mu sync.Mutex
	var udp []bool
	o.meet = func(_, _ *node, b []byte) []byte {
		if m, err := request.Parse(b); err == nil {
			mu.Lock()
			udp = append(udp, m.UDP != nil)
			mu.Unlock()
		}
		return b
	}
	for i, x := range [][2]*node{{stock, parley}, {parley, stock}} {
		a, b := mustDial(t, x[0], x[1])
		talk(t, a, b, "INVITE")
		if a.Peer().Over != "tcp" {
			t.Errorf("%+v", a.Peer())
		}
		want := [][]bool{{false, false}, {true, false}}[i]
		mu.Lock()
		if len(udp) != 2 || udp[0] != want[0] || udp[1] != want[1] {
			t.Errorf("request and answer offer %v, want %v", udp, want)
		}
		udp = nil
		mu.Unlock()
		x[0].live(linkKey{x[0].dev.Chain.JamiID, x[1].dev.Chain.DeviceID}).sock.Close()
		for stock.Links()+parley.Links() > 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// TestBothAskAtOnceByUDP: two connections come of it, and both can be used.
func TestBothAskAtOnceByUDP(t *testing.T) {
	o, alice, bob := byUDP(t)
	var both sync.WaitGroup
	both.Add(2)
	o.meet = func(_, _ *node, b []byte) []byte {
		if m, err := request.Parse(b); err == nil && !m.Answer {
			both.Done()
			both.Wait()
		}
		return b
	}
	var wg sync.WaitGroup
	var ends [2][2]channel.Channel
	for i, x := range [][2]*node{{alice, bob}, {bob, alice}} {
		wg.Go(func() { ends[i][0], ends[i][1] = mustDial(t, x[0], x[1]) })
	}
	wg.Wait()
	talk(t, ends[0][0], ends[0][1], "one")
	talk(t, ends[1][0], ends[1][1], "two")
}

func TestRevokedWhileConnectedByUDP(t *testing.T) {
	_, alice, bob := byUDP(t)
	a, b := mustDial(t, alice, bob)
	began := time.Now()
	bob.judge.bar(alice.dev.Chain.DeviceShort, &trust.Error{Reason: trust.Revoked})
	for name, c := range map[string]channel.Channel{"the revoked": a, "the node": b} {
		if _, err := c.ReadMessage(); err == nil {
			t.Errorf("%s goes on", name)
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("closed after %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := alice.Dial(ctx, alice.dev.Chain.JamiID, bob.dev.Chain, "sip", ""); err == nil {
		t.Error("connected again")
	}
}

// TestAnotherDeviceByUDP: who takes the place of the device that was asked gets no session.
func TestAnotherDeviceByUDP(t *testing.T) {
	_, alice, bob := byUDP(t)
	other := bob.dev.Account.Device(t)
	a := bob.asAccount()
	a.Own = secure.Own{Chain: other.Chain, Key: other.Key}
	bob.Add(a)
	if _, err := dialTo(t, alice, bob, "sip"); !errors.Is(err, secure.ErrOtherDevice) {
		t.Error(err)
	}
}

func TestCloseEndsAllByUDP(t *testing.T) {
	_, alice, bob := byUDP(t)
	a, b := mustDial(t, alice, bob)
	alice.Close()
	for _, c := range []channel.Channel{a, b} {
		if _, err := c.ReadMessage(); err == nil {
			t.Error("goes on")
		}
	}
}

func TestNoPathAtAll(t *testing.T) {
	o, alice, bob := byUDP(t)
	o.meet = func(_, _ *node, b []byte) []byte {
		m, err := request.Parse(b)
		if err != nil {
			return b
		}
		m.UDP = &request.Description{Ufrag: "ufragufr", Pwd: "pwdpwdpwdpwdpwdpwdpwdpwd"}
		b, _ = m.Pack()
		return b
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := alice.Dial(ctx, alice.dev.Chain.JamiID, bob.dev.Chain, "sip", ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestRace: which of two attempts is taken, and what becomes of the other.
func TestRace(t *testing.T) {
	after := func(d time.Duration, x int, err error) func(context.Context) (int, error) {
		return func(ctx context.Context) (int, error) {
			select {
			case <-time.After(d):
				return x, err
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}
	failed, failed2 := errors.New("no TCP"), errors.New("no UDP")
	for name, c := range map[string]struct {
		tcp, udp func(context.Context) (int, error)
		want     int
		err      error
		within   time.Duration
	}{
		"TCP alone":                    {after(0, 1, nil), nil, 1, nil, udpAfter},
		"TCP in time":                  {after(udpAfter/2, 1, nil), after(0, 2, nil), 1, nil, udpAfter},
		"UDP is faster then":           {after(time.Minute, 1, nil), after(0, 2, nil), 2, nil, 2 * udpAfter},
		"TCP fails, UDP begins sooner": {after(0, 0, failed), after(0, 2, nil), 2, nil, udpAfter},
		"UDP fails, TCP is waited for": {after(2*udpAfter, 1, nil), after(0, 0, failed2), 1, nil, 4 * udpAfter},
		"the device is another one":    {after(0, 0, final{failed}), after(time.Minute, 2, nil), 0, failed, udpAfter},
		"both fail":                    {after(0, 0, failed), after(0, 0, failed2), 0, failed, udpAfter},
		"both fail, the second error":  {after(0, 0, failed), after(0, 0, failed2), 0, failed2, udpAfter},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			got, err := race(t.Context(), c.tcp, c.udp, func(int) { t.Error("there were two") })
			if got != c.want || !errors.Is(err, c.err) || time.Since(began) > c.within {
				t.Errorf("%d, %v after %v", got, err, time.Since(began))
			}
		})
	}
	thrown := make(chan int, 1)
	stubborn := func(context.Context) (int, error) { time.Sleep(udpAfter / 2); return 2, nil }
	if got, err := race(t.Context(), after(udpAfter+10*time.Millisecond, 1, nil), stubborn, func(x int) { thrown <- x }); got != 1 || err != nil || <-thrown != 2 {
		t.Error(got, err)
	}
}

// TestStrayDatagramsAtThePort: they cost the node nothing, and connections come about.
func TestStrayDatagramsAtThePort(t *testing.T) {
	_, alice, bob := byUDP(t)
	d, err := net.Dial("udp", bob.udp)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for range 1000 {
		if _, err := d.Write([]byte("nonsense that is longer than twenty bytes")); err != nil {
			t.Fatal(err)
		}
	}
	a, b := mustDial(t, alice, bob)
	talk(t, a, b, "INVITE")
}

// TestThroughput logs what connections carry on this machine, both ends in this process. It runs by hand:
// PARLEY_THROUGHPUT=1.
func TestThroughput(t *testing.T) {
	if os.Getenv("PARLEY_THROUGHPUT") == "" {
		t.Skip("a measurement; set PARLEY_THROUGHPUT")
	}
	for _, over := range []string{"tcp", "udp"} {
		o, alice, bob := world(t)
		o.noTCP = over == "udp"
		a, b := mustDial(t, alice, bob)
		const all, each = 128 << 20, 32 << 10
		began, cpu := time.Now(), cpuTime(t)
		go func() {
			for range all / each {
				if _, err := a.Write(make([]byte, each)); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		for n := 0; n < all; {
			m, err := b.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			n += len(m)
		}
		took := time.Since(began)
		t.Logf("%s: %.0f Mbit/s, %.1f ms of CPU a MiB for both ends", a.Peer().Over, all*8/took.Seconds()/1e6, (cpuTime(t)-cpu).Seconds()*1000/(all>>20))
	}
}
