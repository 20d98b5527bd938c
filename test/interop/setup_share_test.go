//go:build interop

package interop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// TestOwnShareOfSetUp: how long a stock daemon waits from dialling to hearing the room, at
// first contact and when it is connected already, and how much of that is the node's own: from
// the last packet that came to the next that it sends, summed until its first sound.
func TestOwnShareOfSetUp(t *testing.T) {
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.opendht_bootstrap", "10.77.0.254:4222")
	var ours contract.Account
	n.ask(&ours, "account", "show")
	speaker, caller := r.peer(2), r.peer(1)
	accB, _ := speaker.account("bob", nil)
	accA, _ := caller.account("ann", nil)
	speaker.talkTo(accB, ours.ID, "")
	r.speaks(speaker, 880, 120)
	time.Sleep(2 * time.Second) // what the speaker's call has the node do is over
	for _, contact := range []string{"first contact", "connected before"} {
		c := r.capture()
		began := time.Now()
		heardAt := make(chan time.Time, 1)
		go func() { heardAt <- r.firstHeard(caller, 880, began.Add(30*time.Second)) }()
		call := caller.talkTo(accA, ours.ID, "")
		talks := time.Since(began)
		heard := <-heardAt
		if heard.IsZero() {
			t.Fatalf("%s: not heard within 30 s", contact)
		}
		share := shareOf(t, c.stop(t), macOf(t, "rpsut"), macOf(t, "rp1"))
		t.Logf("setup: %s: in the call after %v, hears the room after %v; the node's own share: %v in %d answers, the longest %v; asked for after %v, first sound %v later",
			contact, talks.Round(time.Millisecond), heard.Sub(began).Round(10*time.Millisecond), share.sum.Round(time.Millisecond), share.answers, share.longest, share.first.Sub(began).Round(time.Millisecond), share.sound.Sub(share.first).Round(time.Millisecond))
		for _, l := range share.slow {
			t.Log("setup: slow: " + l)
		}
		caller.call(nil, "call.hangUp", accA, call)
		for end := time.Now().Add(10 * time.Second); len(n.room("main").Participants) > 1; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("still in the room")
			}
		}
		time.Sleep(time.Second) // the daemon's recording is silent again
	}
	n.stop()
}

// firstHeard returns when a peer's speaker began to play a tone, zero: not before the end.
func (r *rig) firstHeard(p *rigPeer, hz float64, end time.Time) time.Time {
	s := speaker{filepath.Join(r.state, fmt.Sprintf("p%d", p.i), "heard.raw")}
	for ; time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		at, err := s.length()
		if err != nil {
			return time.Time{}
		}
		if last, err := s.from(max(0, at-rate/25)); err == nil && levelOf(last, hz) > -45 {
			return time.Now()
		}
	}
	return time.Time{}
}

// capture is what goes through the node's interface.
type capture struct {
	path string
	stop func(t *testing.T) []packet
}

func (r *rig) capture() capture {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "node.pcap")
	cmd := r.sut("tcpdump", "--immediate-mode", "-i", "eth0", "-s", "96", "-U", "-w", path, "ip or ip6")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	said := new(lockedBuffer)
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(said.String(), "listening on"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("tcpdump: %s", said)
		}
	}
	return capture{path, func(t *testing.T) []packet {
		t.Helper()
		if err := errors.Join(cmd.Process.Signal(syscall.SIGINT), cmd.Wait()); err != nil {
			t.Fatalf("tcpdump: %v: %s", err, said)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		ps, err := readPcap(raw)
		if err != nil {
			t.Fatal(err)
		}
		return ps
	}}
}

// macOf is the address of a namespace's interface as frames have it.
func macOf(t *testing.T, ns string) string {
	t.Helper()
	mac, err := net.ParseMAC(strings.TrimSpace(run(t, "ip", "netns", "exec", ns, "cat", "/sys/class/net/eth0/address")))
	if err != nil {
		t.Fatal(err)
	}
	return string(mac)
}

// packet is one that bears something: no bare acknowledgement of TCP.
type packet struct {
	at       time.Time
	from, to string // of the frame
	tcp      bool
	src, dst uint16 // ports
	size     int    // of what it bears
	first    byte
}

// readPcap reads what tcpdump wrote of Ethernet and IP.
func readPcap(b []byte) (out []packet, err error) {
	if len(b) < 24 || binary.LittleEndian.Uint32(b) != 0xa1b2c3d4 {
		return nil, errors.New("not a capture in microseconds of this machine")
	}
	for b = b[24:]; len(b) >= 16; {
		at := time.Unix(int64(binary.LittleEndian.Uint32(b)), 1000*int64(binary.LittleEndian.Uint32(b[4:])))
		n := int(binary.LittleEndian.Uint32(b[8:]))
		if len(b) < 16+n || n < 14 {
			break
		}
		f := b[16 : 16+n]
		b = b[16+n:]
		p := packet{at: at, from: string(f[6:12]), to: string(f[:6])}
		var l4 []byte
		var proto byte
		switch ip := f[14:]; {
		case f[12] == 8 && f[13] == 0 && len(ip) >= 20 && ip[6]&0x1f == 0 && ip[7] == 0: // no later fragment
			head := min(4*int(ip[0]&15), len(ip))
			l4, proto, p.size = ip[head:], ip[9], int(binary.BigEndian.Uint16(ip[2:]))-head
		case f[12] == 0x86 && f[13] == 0xdd && len(ip) >= 40:
			l4, proto, p.size = ip[40:], ip[6], int(binary.BigEndian.Uint16(ip[4:]))
		}
		p.tcp = proto == 6
		if len(l4) < 8 || !p.tcp && proto != 17 {
			continue
		}
		p.src, p.dst = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		head := 8
		if p.tcp {
			if len(l4) < 20 {
				continue
			}
			head = 4 * int(l4[12]>>4)
		}
		if p.size -= head; p.size <= 0 {
			continue
		}
		if len(l4) > head {
			p.first = l4[head]
		}
		out = append(out, p)
	}
	return out, nil
}

// share is the node's own of a set-up.
type share struct {
	sum, longest time.Duration
	answers      int
	first, sound time.Time // the first large packet of the peer or the DHT, and our first sound
	slow         []string
}

// shareOf sums, from the first that came from a caller, or from the DHT and is as large as a
// request is, to the first sound that goes to the caller, each time between what came and what
// the node sent next. Of the DHT only what bears a value, on one side or the other, is: small
// questions and answers go on all the time.
func shareOf(t *testing.T, ps []packet, node, caller string) (s share) {
	t.Helper()
	var last *packet
	chatter := false // last was
	const dht = 4224
	for i := range ps {
		p := &ps[i]
		out := p.from == node
		far, near := p.from, p.dst
		if out {
			far, near = p.to, p.src
		}
		ofDHT := !p.tcp && near == dht
		if far != caller && !ofDHT {
			continue
		}
		small := ofDHT && p.size < 700
		if s.first.IsZero() {
			if out || small {
				continue
			}
			s.first = p.at
		}
		if !out {
			last, chatter = p, small
			continue
		}
		if last != nil && !(chatter && small) {
			took := p.at.Sub(last.at)
			s.answers++
			s.sum += took
			s.longest = max(s.longest, took)
			if took > 10*time.Millisecond {
				s.slow = append(s.slow, fmt.Sprintf("%v after %v: %v bytes (tcp %t) from port %v, then %d to %v (tcp %t)", took, last.at.Sub(s.first), last.size, last.tcp, last.src, p.size, p.dst, p.tcp))
			}
		}
		last = nil
		if !ofDHT && !p.tcp && p.first>>6 == 2 {
			s.sound = p.at
			return s
		}
	}
	t.Fatalf("no sound went to the caller in %d packets", len(ps))
	return s
}
