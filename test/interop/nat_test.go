//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// The Internet of the test, on the rig's bridge, and what is there. Of documentation (RFC 5737),
// its addresses are nobody's, and public to who asks.
const (
	natNet     = "198.51.100."
	natHub     = natNet + "254" // DHT and relay
	natNode    = natNet + "200"
	natRelay   = natHub + ":3478"
	natDHT     = natHub + ":4222"
	natBrowser = 500.0 // Hz
	natBot     = 1300.0
)

// natKinds are those of RFC 4787, and a network that lets nothing through but to the relay. What comes
// unasked is dropped before the kernel remembers it, as routers do: else it would keep a port from being
// mapped to itself.
var natKinds = []struct {
	name   string
	chains []string // I is the address inside, O the one outside
}{
	{"full cone", []string{"pre { type nat hook prerouting priority -100; iifname eth0 dnat to I; }", "post { type nat hook postrouting priority 100; oifname eth0 snat to O; }"}},
	{"port-restricted", []string{natPost, natIn}},
	{"symmetric", []string{"post { type nat hook postrouting priority 100; oifname eth0 masquerade fully-random; }", natIn}},
	{"relay only", []string{natPost, natIn, "out { type filter hook forward priority 0; " + natOut + "; }"}},
}

const (
	natPost = "post { type nat hook postrouting priority 100; oifname eth0 masquerade; }"
	natIn   = "in { type filter hook input priority 0; iifname eth0 ct state new drop; }"
	natOut  = "oifname eth0 ip daddr != " + natHub + " counter drop"
)

const restricted = 1 // of natKinds

// inNS runs a command in a network namespace.
func inNS(t *testing.T, ns string, args ...string) string {
	t.Helper()
	return run(t, append([]string{"ip", "netns", "exec", ns}, args...)...)
}

// behind puts the namespace of a peer of the rig, or of what is tested, behind a NAT in a namespace
// that is there.
func behind(t *testing.T, ns, router string, host int, chains []string) {
	t.Helper()
	in, out := fmt.Sprintf("192.168.%d.", host), fmt.Sprintf("%s%d", natNet, host)
	for _, c := range [][]string{
		{"ip", "-n", "rphub", "link", "set", "v" + ns, "netns", router},
		{"ip", "-n", router, "link", "set", "v" + ns, "up"},
		{"ip", "-n", router, "addr", "add", in + "1/24", "dev", "v" + ns},
		{"ip", "-n", router, "link", "set", "lo", "up"},
		{"ip", "-n", "rphub", "link", "add", "v" + router, "type", "veth", "peer", "name", "eth0", "netns", router},
		{"ip", "-n", "rphub", "link", "set", "v" + router, "master", "br0", "up"},
		{"ip", "-n", router, "addr", "add", out + "/24", "dev", "eth0"},
		{"ip", "-n", router, "link", "set", "eth0", "up"},
		{"ip", "-n", ns, "addr", "flush", "dev", "eth0"},
		{"ip", "-n", ns, "addr", "add", in + "2/24", "dev", "eth0"},
		{"ip", "-n", ns, "route", "replace", "default", "via", in + "1"},
	} {
		run(t, c...)
	}
	inNS(t, router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	inNS(t, ns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	table := "table ip nat {\n"
	for _, c := range chains {
		table += "chain " + strings.NewReplacer(" I;", " "+in+"2;", " O;", " "+out+";").Replace(c) + "\n"
	}
	inNS(t, router, "nft", table+"}")
}

// natRig puts each peer of a rig behind another NAT.
func natRig(r *rig) {
	t := r.t
	run(t, "ip", "-n", "rphub", "addr", "flush", "dev", "br0")
	run(t, "ip", "-n", "rphub", "addr", "add", natHub+"/24", "dev", "br0")
	run(t, "ip", "-n", "rpsut", "addr", "flush", "dev", "eth0")
	run(t, "ip", "-n", "rpsut", "addr", "add", natNode+"/24", "dev", "eth0")
	run(t, "ip", "-n", "rpsut", "route", "replace", "default", "via", natHub)
	for i := range len(natKinds) + 1 { // the last one is for the node
		router := fmt.Sprintf("rn%d", i+1)
		run(t, "ip", "netns", "add", router)
		t.Cleanup(func() { run(t, "ip", "netns", "del", router) })
		if i < len(natKinds) {
			behind(t, fmt.Sprintf("rp%d", i+1), router, i+1, natKinds[i].chains)
		}
	}
}

// natCell is how one peer is connected.
type natCell struct {
	local, remote string // types of the pair of candidates
	pair          string // its addresses
	signalled     string // where its signalling comes from
	hears, heard  time.Duration
}

func (c *natCell) tell(i int, what string) {
	fmt.Printf("nat: %-15s %-47s %5s to %-5s (%s), signalled by %s; is heard after %.2f s, hears after %.2f s\n", natKinds[i].name, what, c.local, c.remote, c.pair, c.signalled, c.heard.Seconds(), c.hears.Seconds())
}

// TestNATs: stock daemons behind each kind of NAT call the node, and browsers there join by the page,
// with the node on the Internet, and with the node behind a NAT of which no port is mapped but that of
// the page. All are heard, and hear; by way of a relay where nothing else brings them together.
func TestNATs(t *testing.T) {
	r, inside := startRigInside(t, len(natKinds), natRig)
	if !inside {
		return
	}
	began := time.Now()
	natRelayServer(t)
	n := startNodeWith(t, func(n *node) {
		n.more = []string{"PARLEY_DHT_OVERLAY=opendht", "PARLEY_DHT_OPENDHT_BOOTSTRAP=" + natDHT, "PARLEY_MEDIA_STUN=" + natRelay,
			"PARLEY_TURN_URLS=turn:" + natRelay + ",turn:" + natRelay + "?transport=tcp", natSecret, "PARLEY_LOG_LEVEL=debug"}
	})
	announced := func() {
		t.Helper()
		n.wait("its device is announced", 30*time.Second, func() bool { return strings.Contains(n.out.String(), "device announced") })
		n.wait("its relays", 10*time.Second, func() bool { return strings.Count(n.out.String(), "relay ready") == 2 })
	}
	announced()
	peers, accs := make([]*rigPeer, len(natKinds)), make([]string, len(natKinds))
	for i := range natKinds {
		peers[i] = r.peer(i + 1)
		accs[i], _ = peers[i].account(fmt.Sprintf("peer%d", i+1), map[string]string{"Account.hostname": natDHT})
	}
	cells := make([][4]natCell, len(natKinds))
	bot := n.startBot("tone", natBot)
	for i := range natKinds {
		cells[i][0] = n.stockCell(r, peers[i], accs[i], bot)
		cells[i][0].tell(i, "stock")
		cells[i][1] = n.browserCell(i, bot)
		cells[i][1].tell(i, "browser")
	}
	bot.room.Close()
	n.stop()
	page := fmt.Sprintf("pre { type nat hook prerouting priority -100; iifname eth0 tcp dport %d dnat to I; }", n.base+1)
	behind(t, "rpsut", fmt.Sprintf("rn%d", len(natKinds)+1), 200, append(slices.Clone(natKinds[restricted].chains), page))
	n.start()
	announced()
	bot = n.startBot("tone2", natBot)
	for i := range natKinds {
		cells[i][2] = n.stockCell(r, peers[i], accs[i], bot)
		cells[i][2].tell(i, "stock; the node behind a port-restricted one")
		cells[i][3] = n.browserCell(i, bot)
		cells[i][3].tell(i, "browser; the node behind a port-restricted one")
	}
	fmt.Printf("nat: all took %.0f s\n", time.Since(began).Seconds())
	relayed := func(i, k int, want bool) {
		t.Helper()
		if c := cells[i][k]; (c.local == "relay" || c.remote == "relay") != want {
			t.Errorf("%s, column %d: %s to %s", natKinds[i].name, k+1, c.local, c.remote)
		}
	}
	for i := range natKinds {
		relayed(i, 0, i == 3)
		relayed(i, 1, i == 3)
		relayed(i, 2, i >= 2)
		relayed(i, 3, true) // to browsers the node is a lite agent, which opens no NAT
	}
}

const natSecret = "PARLEY_TURN_SECRET=a secret of these tests"

// natRelayServer runs `parley run turn` beside the DHT's node.
func natRelayServer(t *testing.T) {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", "rphub", parleyBinary(t), "run", "turn", "--data", shortDir(t), "--turn.listen", natRelay, "--admin.listen", "", "--log.format", "json")
	cmd.Env = append(cmd.Environ(), natSecret)
	startRelay(t, cmd)
}

// stockCell has a stock daemon call the node's room, and measures.
func (n *node) stockCell(r *rig, p *rigPeer, acc string, bot *bot) (c natCell) {
	n.t.Helper()
	hz := 400 + 170*float64(p.i)
	r.speaks(p, hz, 60)
	began := time.Now()
	call := p.talksWithin(10*time.Second, acc, n.status().Account.ID)
	for try := 1; call == ""; try++ {
		fmt.Printf("nat: peer %d was not connected within %.0f s; it registers anew and calls again\n", p.i, time.Since(began).Seconds())
		if try == 3 {
			n.t.Fatalf("peer %d is not connected in %d calls", p.i, try)
		}
		from := p.mark()
		p.call(nil, "configuration.sendRegister", acc, false)
		p.wait(from, 20*time.Second, "registrationStateChanged", acc, "UNREGISTERED")
		p.call(nil, "configuration.sendRegister", acc, true)
		p.wait(from, time.Minute, "registrationStateChanged", acc, "REGISTERED")
		began = time.Now()
		call = p.talksWithin(10*time.Second, acc, n.status().Account.ID)
	}
	heard := speaker{filepath.Join(r.state, fmt.Sprintf("p%d", p.i), "heard.raw")}
	c.hears, c.heard = n.tones(fmt.Sprintf("peer %d", p.i), heard, bot, hz, began)
	c.fill(n, fmt.Sprintf("peer%d", p.i))
	p.call(nil, "call.hangUp", acc, call)
	n.wait("it has left", 10*time.Second, func() bool { return !n.connected(fmt.Sprintf("peer%d", p.i), nil) })
	return c
}

// talksWithin calls and waits until they talk. It returns the call, or nothing when that takes too
// long: requests and answers that devices put into the DHT are lost now and then where its nodes cannot
// all reach each other, which is no matter of this test.
func (p *rigPeer) talksWithin(limit time.Duration, acc, to string) (call string) {
	p.t.Helper()
	from := p.mark()
	p.call(&call, "call.placeCallWithMedia", acc, to, []map[string]string{
		{"MEDIA_TYPE": "MEDIA_TYPE_AUDIO", "ENABLED": "true", "MUTED": "false", "SOURCE": "", "LABEL": "audio_0"}})
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if slices.ContainsFunc(p.events(from), func(e rigEvent) bool {
			return e.name == "callStateChanged" && has(e.args, call) && has(e.args, "CURRENT")
		}) {
			return call
		}
	}
	p.call(nil, "call.hangUp", acc, call)
	return ""
}

// browserCell has a browser behind a NAT join the node's room by the page, and measures.
func (n *node) browserCell(i int, bot *bot) (c natCell) {
	n.t.Helper()
	router := fmt.Sprintf("rn%d", i+1)
	if i == 3 { // the page, and of the relay TCP; the DHT stays for the daemon, which would take a while to find it again
		inNS(n.t, router, "nft", fmt.Sprintf("insert rule ip nat out oifname eth0 ip daddr %s tcp dport %d accept; insert rule ip nat out oifname eth0 udp dport != 4222 drop", natNode, n.base+1))
		defer inNS(n.t, router, "nft", "flush chain ip nat out; add rule ip nat out "+natOut)
	}
	b := startBrowserBy(n.t, natBrowser, "ip", "netns", "exec", fmt.Sprintf("rp%d", i+1))
	defer b.close()
	began := time.Now()
	name := fmt.Sprintf("Browser %d", i+1)
	b.open(fmt.Sprintf("https://%s:%d/r/main", natNode, n.base+1), name)
	c.hears, c.heard = n.tones("the browser", b, bot, natBrowser, began)
	c.fill(n, name)
	var w way
	if b.flows(&w); w.Relay != "" {
		c.remote = "relay" // to the node it is a peer as any
	}
	return c
}

// tones waits until a peer hears the bot, and the bot the peer.
func (n *node) tones(who string, peer any, bot *bot, hz float64, began time.Time) (hears, heard time.Duration) {
	n.t.Helper()
	for end := began.Add(40 * time.Second); hears == 0 || heard == 0; time.Sleep(10 * time.Millisecond) {
		if hears == 0 && lastLevel(n.t, peer, natBot) > -45 {
			hears = time.Since(began)
		}
		if heard == 0 && lastLevel(n.t, bot, hz) > -45 {
			heard = time.Since(began)
		}
		if time.Now().After(end) {
			n.t.Fatalf("%s: hears the room after %v, is heard after %v (0: not within 40 s)\n%s", who, hears, heard, n.parley("room", "show", "main", "--connections"))
		}
	}
	return hears, heard
}

// lastLevel is the level of a tone in the last 60 ms that somebody got.
func lastLevel(t *testing.T, who any, hz float64) float64 {
	t.Helper()
	const window = 60 * rate / 1000
	var s []int16
	var err error
	switch w := who.(type) {
	case recording:
		var at int
		if at, err = w.length(); err == nil {
			s, err = w.from(max(0, at-window))
		}
	case *browser:
		s, err = w.last(60)
	}
	if err != nil {
		t.Fatal(err)
	}
	return levelOf(s, hz)
}

// fill notes how a participant is connected.
func (c *natCell) fill(n *node, name string) {
	n.t.Helper()
	var x contract.Connection
	if !n.connected(name, &x) || x.Path == nil || x.Signalled == nil {
		n.t.Fatalf("%s: %+v", name, x)
	}
	c.local, c.remote, c.pair, c.signalled = x.Path.LocalType, x.Path.RemoteType, x.Path.Local+" to "+x.Path.Remote, x.Signalled.Local+" to "+x.Signalled.Remote
}

// connected tells whether somebody of a name is in the room, and how, where into is not nil.
func (n *node) connected(name string, into *contract.Connection) bool {
	n.t.Helper()
	var shown struct {
		Connections []contract.Connection `json:"connections"`
	}
	if err := json.Unmarshal([]byte(n.parley("room", "show", "main", "--connections", "--json")), &shown); err != nil {
		n.t.Fatal(err)
	}
	for _, x := range shown.Connections {
		if x.Name == name {
			if into != nil {
				*into = x
			}
			return true
		}
	}
	return false
}
