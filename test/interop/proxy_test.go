//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/dht/proxyjson"
)

// TestStockBehindOurProxy: a stock daemon that uses our node as its DHT proxy registers,
// and one that takes part in the overlay, with our node as its only bootstrap, asks it to
// be a contact and is accepted; each sees that the other is there and calls it, also after
// the process with the proxy was killed.
func TestStockBehindOurProxy(t *testing.T) {
	r := startRig(t, 2)
	n := r.startNode(shortDir(t), "--dht.overlay", "opendht", "--dht.proxy_listen", ":8085")
	p1, p2 := r.peer(1), r.peer(2)
	began := time.Now()
	alice, aliceID := p1.account("alice", map[string]string{"Account.hostname": rigSUT + ":4224", "Account.autoAnswer": "true"})
	bob, bobID := p2.account("bob", map[string]string{
		"Account.hostname": "", "Account.autoAnswer": "true", "Account.proxyEnabled": "true", "Account.proxyServer": "http://" + rigSUT + ":8085"})
	t.Logf("both have made their accounts and registered after %v", time.Since(began))
	// It says that it is registered before all that it puts has come.
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		s := r.proxyStats()
		if s.Permanent > 0 && s.Listens > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the second daemon is not a client of our proxy: %+v", s)
		}
	}

	// Over the overlay, to a client of the proxy.
	from := p2.mark()
	began = time.Now()
	p1.call(nil, "configuration.sendTrustRequest", alice, bobID, []int{})
	args := p2.wait(from, 2*time.Minute, "incomingTrustRequest", bob)
	if !has(args, aliceID) {
		t.Errorf("the client of the proxy was asked with %s, not by %s", args, aliceID)
	}
	t.Logf("a request reaches the client of the proxy after %v", time.Since(began))

	// And back: the acceptance, and that it is there.
	back, began := p1.mark(), time.Now()
	var accepted bool
	p2.call(&accepted, "configuration.acceptTrustRequest", bob, aliceID)
	if !accepted {
		t.Error("not accepted")
	}
	p1.wait(back, 2*time.Minute, "contactAdded", alice, bobID)
	t.Logf("its acceptance is back after %v", time.Since(began))
	for _, x := range []struct {
		p        *rigPeer
		acc, who string
	}{{p1, alice, bobID}, {p2, bob, aliceID}} {
		x.p.call(nil, "presence.subscribeBuddy", x.acc, x.who, true)
		for end := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
			var subs []map[string]string
			x.p.call(&subs, "presence.getSubscriptions", x.acc)
			if online(subs, x.who) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("peer %d does not see %s: %v", x.p.i, x.who, subs)
			}
		}
	}
	r.settle(p1, p2)
	t.Logf("a call to the client of the proxy takes %v, one of it %v", p1.dial(alice, bobID), p2.dial(bob, aliceID))

	var st struct {
		Processes []struct {
			Name string
			PID  int
		}
	}
	n.ask(&st, "status")
	began = time.Now()
	for _, p := range st.Processes {
		if p.Name == "dht" {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		if s, err := r.askProxy(); err == nil && s.Listens >= 3 && s.Node.IPv4.Good > 0 {
			t.Logf("%v after the process was killed its client listens again: %+v", time.Since(began), s)
			break
		} else if time.Now().After(end) {
			t.Fatalf("the client does not come back: %+v, %v", s, err)
		}
	}
	t.Logf("a call to the client of the proxy takes %v", p1.dial(alice, bobID))
	n.stop()
}

// settle waits until both daemons have set up every SIP channel that one of them asked the
// other for. Stock 13.7 locks up for good when a call comes on a channel that it asked for
// and is still setting up (dht.md); each of two new contacts asks
// for one when it sees the other.
func (r *rig) settle(peers ...*rigPeer) {
	r.t.Helper()
	same, began := 0, time.Now()
	for end := began.Add(2 * time.Minute); same < 4; time.Sleep(500 * time.Millisecond) { // a second connection may still be on its way
		asked, least, most := 0, math.MaxInt, 0
		var said []string
		for _, p := range peers {
			log, err := os.ReadFile(filepath.Join(r.state, fmt.Sprintf("p%d", p.i), "jamid.log"))
			if err != nil {
				r.t.Fatal(err)
			}
			asked += bytes.Count(log, []byte("Send request on TLS socket for channel sip "))
			opened := bytes.Count(log, []byte("New SIP channel opened with "))
			least, most = min(least, opened), max(most, opened)
			for l := range strings.Lines(string(log)) {
				if strings.Contains(l, "connectionmanager.cpp") || strings.Contains(l, "jamiaccount.cpp") {
					said = append(said, fmt.Sprintf("%d: %.250s", p.i, l))
				}
			}
		}
		if same++; asked == 0 || least != asked || most != asked {
			same = 0
		}
		if asked == 0 && time.Since(began) > time.Minute { // their first connection failed: a call makes one
			r.t.Logf("no SIP channel was asked for; the daemons said of connections:\n%s", strings.Join(said, "\n"))
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("of %d SIP channels that were asked for, one daemon has set up %d, the other %d:\n%s", asked, least, most, strings.Join(said, "\n"))
		}
	}
}

func online(subs []map[string]string, who string) bool {
	for _, s := range subs {
		if s["Buddy"] == who && s["Status"] == "Online" {
			return true
		}
	}
	return false
}

// proxyStats asks our proxy.
func (r *rig) proxyStats() proxyjson.NodeStats {
	r.t.Helper()
	s, err := r.askProxy()
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) askProxy() (s proxyjson.NodeStats, err error) {
	out, err := r.sut("curl", "-sS", "--max-time", "5", "http://"+rigSUT+":8085/node/stats").CombinedOutput()
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, out)
	}
	return s, json.Unmarshal(out, &s)
}
