package leg

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v3"
)

// fakeRelay is an allocation that is a socket of this machine.
type fakeRelay struct {
	conn *net.UDPConn
	lost chan struct{}

	mu     sync.Mutex
	let    map[netip.Addr]bool
	sent   map[netip.AddrPort]int
	closed bool
}

func newFakeRelay(t *testing.T) *fakeRelay {
	r := &fakeRelay{conn: listen(t), lost: make(chan struct{}), let: map[netip.Addr]bool{}, sent: map[netip.AddrPort]int{}}
	t.Cleanup(func() { r.conn.Close() })
	return r
}

func (r *fakeRelay) Addr() netip.AddrPort { return addrOf(r.conn) }

func (r *fakeRelay) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := r.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return 0, from, err
		}
		r.mu.Lock()
		ok := r.let[from.Addr()]
		r.mu.Unlock()
		if ok {
			return n, from, nil
		}
	}
}

func (r *fakeRelay) Send(b []byte, to netip.AddrPort) bool {
	r.mu.Lock()
	ok := r.let[to.Addr()]
	r.sent[to]++
	r.mu.Unlock()
	if !ok {
		return false
	}
	_, err := r.conn.WriteToUDPAddrPort(b, to)
	return err == nil
}

func (r *fakeRelay) Permit(to netip.AddrPort, done func()) {
	r.mu.Lock()
	r.let[to.Addr()] = true
	r.mu.Unlock()
	go done()
}

func (r *fakeRelay) Lost() <-chan struct{} { return r.lost }

func (r *fakeRelay) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.conn.Close()
}

func (r *fakeRelay) sentTo(at netip.AddrPort) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent[at]
}

func (r *fakeRelay) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// relayed gives the node a relay.
func (n *node) relayed(t *testing.T) (pair [2]*fakeRelay, full <-chan struct{}) {
	t.Helper()
	pair = [2]*fakeRelay{newFakeRelay(t), newFakeRelay(t)}
	full, err := n.Relay(pair[0], pair[1])
	if err != nil {
		t.Fatal(err)
	}
	return pair, full
}

// opens has a peer open a leg, without a check.
func (p *jamiPeer) opens(n *node, id string) string {
	p.t.Helper()
	o, err := n.Open(Request{ID: id, Room: "main", Epoch: 1, Jami: true, Offer: p.offer(true, p.keys), Remote: netip.MustParseAddr("127.0.0.1"), CanSpeak: true})
	if err != nil {
		p.t.Fatal(err)
	}
	p.takes(o.SDP)
	return o.SDP
}

// Who reaches the relay alone is heard by way of it, whichever side nominates; and hears
// without it as soon as a direct path was nominated.
func TestJamiByRelay(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers bool // the node's checks, which nominate
	}{{"the peer nominates", false}, {"the node nominates", true}} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			pair, _ := n.relayed(t)
			p := newJamiPeer(t)
			p.by = "relay"
			p.mu.Lock()
			p.answers = c.answers
			p.mu.Unlock()
			p.isDeaf(func(from netip.AddrPort) bool { return from != pair[0].Addr() && from != pair[1].Addr() })
			text := p.opens(n, "a")
			if p.to != [2]netip.AddrPort{pair[0].Addr(), pair[1].Addr()} {
				t.Fatalf("candidates of relays %v in\n%s", p.to, text)
			}
			l := leg(t, n, "a")
			if c.answers {
				p.check(0, false) // opens its NAT
				p.check(1, false)
				eventually(t, "the node nominates", func() bool { st := state(l); return st.Relayed && st.RelayedRTCP && l.probing.Load().over() })
			} else {
				p.nominates()
			}
			other := jamiJoins(t, n, "b")
			eventually(t, "both hear", func() bool { p.speaks(1); other.speaks(1); return p.heard.Load() > 20 && other.heard.Load() > 20 })
			eventually(t, "reports by the relay", func() bool { p.speaks(1); other.speaks(1); return p.reports.Load() > 0 })
			if w := l.Path(); w.LocalType != "relay" || w.Local != pair[0].Addr() || w.Remote != addrOf(p.conns[0]) {
				t.Errorf("path %+v", w)
			}
			if w := leg(t, n, "b").Path(); w.LocalType != "host" {
				t.Errorf("the other's path %+v", w)
			}
			files := func() int { list, _ := filepath.Glob(filepath.Join(n.dir, "legs", "*")); return len(list) }
			eventually(t, "the leg is left out of what the next process takes over", func() bool { return files() == 1 })

			p.isDeaf(nil)
			for i, port := range []*port{l.port, l.rtcp} {
				p.to[i] = port.sock.Local()
			}
			p.nominates()
			if st := state(l); st.Relayed || st.RelayedRTCP {
				t.Error("still by the relay")
			}
			eventually(t, "the leg outlives the process again", func() bool { return files() == 2 })
			was := p.heard.Load()
			eventually(t, "it hears without the relay", func() bool { p.speaks(1); other.speaks(1); return p.heard.Load() > was+20 })
			sent := pair[0].sentTo(addrOf(p.conns[0]))
			eventually(t, "it hears more", func() bool { p.speaks(1); other.speaks(1); return p.heard.Load() > was+40 })
			if c.answers && pair[0].sentTo(addrOf(p.conns[0])) != sent { // else our checks go on for a while
				t.Error("something still goes by the relay")
			}
			p.to = [2]netip.AddrPort{pair[0].Addr(), pair[1].Addr()}
			p.nominates()
			if st := state(l); st.Relayed || st.RelayedRTCP {
				t.Error("a relay took the place of a direct path")
			}
		})
	}
}

// isDeaf has nothing come from where deaf says; nil: everything comes.
func (p *jamiPeer) isDeaf(deaf func(netip.AddrPort) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = deaf
}

// over reports whether both components have an answer.
func (pr *probe) over() bool {
	if pr == nil {
		return true
	}
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.done[0] && pr.done[1]
}

// A path that is not by a relay is taken before one that is.
func TestJamiPrefersNoRelay(t *testing.T) {
	n := newNode(t)
	pair, _ := n.relayed(t)
	p := newJamiPeer(t)
	p.mu.Lock()
	p.answers = true
	p.mu.Unlock()
	p.opens(n, "a")
	l := leg(t, n, "a")
	eventually(t, "both components are nominated", func() bool { return l.probing.Load().over() })
	time.Sleep(relayAfter + 50*time.Millisecond) // by when the relay would have been used
	if st := state(l); st.Relayed || st.RelayedRTCP || !st.Remote.IsValid() {
		t.Errorf("by the relay: %v %v", st.Relayed, st.RelayedRTCP)
	}
	for i, r := range pair {
		if n := r.sentTo(addrOf(p.conns[i])); n != 0 {
			t.Errorf("%d packets by the relay", n)
		}
	}
}

// A relay ends when the last leg that named it has ended and there is another one; at once when
// it is lost.
func TestRelaysEnd(t *testing.T) {
	n := newNode(t)
	first, full := n.relayed(t)
	open := func(id string) string {
		p := newJamiPeer(t)
		return p.opens(n, id)
	}
	var ids []string
	for len(ids) < relayLegs {
		id := string(rune('a' + len(ids)))
		ids = append(ids, id)
		if !strings.Contains(open(id), " typ relay") {
			t.Fatalf("leg %s has no relay", id)
		}
	}
	select {
	case <-full:
	case <-time.After(5 * time.Second):
		t.Fatal("no other one is wanted")
	}
	second, _ := n.relayed(t)
	if first[0].isClosed() {
		t.Error("closed under its legs")
	}
	for _, id := range ids {
		if err := n.CloseLeg(id, 1, "test"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the first one is closed", func() bool { return first[0].isClosed() && first[1].isClosed() })

	if !strings.Contains(open("x"), second[0].Addr().String()[len("127.0.0.1:"):]+" typ relay") {
		t.Error("not by the second one")
	}
	close(second[1].lost)
	eventually(t, "the lost one is closed", func() bool { return second[0].isClosed() && second[1].isClosed() })
	if strings.Contains(open("y"), " typ relay") {
		t.Error("a lost relay is named")
	}
	for range maxRelays {
		n.relayed(t)
	}
	n.Host.Close()
	if _, err := n.Relay(newFakeRelay(t), newFakeRelay(t)); !errors.Is(err, ErrRelays) {
		t.Error(err)
	}
}

// What the router or a STUN server told is server-reflexive.
func TestLearnedCandidates(t *testing.T) {
	n := newNode(t)
	n.Reached([]netip.Addr{netip.MustParseAddr("203.0.113.7")})
	if n.addrs.isLearned(netip.MustParseAddr("127.0.0.1")) || !n.addrs.isLearned(netip.MustParseAddr("203.0.113.7")) {
		t.Error("what was learned is not told apart")
	}
	n.addrs.public = []netip.Addr{netip.MustParseAddr("203.0.113.7")}
	if n.addrs.isLearned(netip.MustParseAddr("203.0.113.7")) {
		t.Error("what the operator named was learned")
	}
}

// An address whose NAT let nothing of ours in before is checked at once when it checks us.
func TestJamiIsCheckedAgain(t *testing.T) {
	n := newNode(t)
	p := newJamiPeer(t)
	p.isDeaf(func(netip.AddrPort) bool { return true })
	p.opens(n, "a")
	l := leg(t, n, "a")
	pr := l.probing.Load()
	time.Sleep(700 * time.Millisecond) // by now half a second is between two checks of ours
	p.isDeaf(nil)
	p.mu.Lock()
	p.answers = true
	p.mu.Unlock()
	began := time.Now()
	p.check(0, false)
	p.check(1, false)
	eventually(t, "both components are nominated", pr.over)
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("after %v", took)
	}
}

// A browser that reaches the relay alone is heard by way of it, DTLS and all.
func TestBrowserByRelay(t *testing.T) {
	n := newNode(t)
	pair, _ := n.relayed(t)
	other := jamiJoins(t, n, "b")
	b := newBrowser(t, webrtc.RTPTransceiverDirectionSendrecv, false)
	o, err := n.Open(Request{ID: "a", Room: "main", Epoch: 1, WebRTC: true, Offer: b.offer(t, nil), Remote: netip.MustParseAddr("127.0.0.1"), CanSpeak: true})
	if err != nil {
		t.Fatal(err)
	}
	var hidden strings.Builder
	for line := range strings.Lines(o.SDP) {
		if !strings.Contains(line, " typ host") {
			hidden.WriteString(line)
		}
	}
	if !strings.Contains(hidden.String(), " 127.0.0.1 "+strings.TrimPrefix(pair[0].Addr().String(), "127.0.0.1:")+" typ relay") {
		t.Fatalf("no relay in\n%s", o.SDP)
	}
	b.answer(t, hidden.String())
	b.speak(t)
	eventually(t, "both hear", func() bool { other.speaks(1); return b.heard.Load() > 20 && other.heard.Load() > 20 })
	if p := leg(t, n, "a").Path(); p.LocalType != "relay" || p.DTLS == "" {
		t.Errorf("path %+v", p)
	}
	// A node that has a public address of its own needs none.
	n.addrs.public = []netip.Addr{netip.MustParseAddr("203.0.113.7")}
	if loopback := netip.MustParseAddr("127.0.0.1"); n.addrs.hidden(loopback, false) {
		t.Error("hidden behind an address that the operator named")
	}
}
