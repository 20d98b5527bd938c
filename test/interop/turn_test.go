//go:build interop

package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Addresses of the machine and of the network that a browser is kept in.
const (
	outside = "10.78.0.1"
	inside  = "10.78.0.2"
)

// run runs a command of the system and fails the test when that fails.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// office makes a network namespace from which rules of nft let out what they do, and
// returns its name. Needs root.
func office(t *testing.T, rules ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root")
	}
	name := fmt.Sprintf("pt%d", os.Getpid())
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) }) // its end of the cable goes with it
	// An address that comes later has Chromium give up what it loads.
	run(t, "ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	run(t, "ip", "link", "add", "v"+name, "type", "veth", "peer", "name", "eth0", "netns", name)
	run(t, "ip", "addr", "add", outside+"/24", "dev", "v"+name)
	run(t, "ip", "link", "set", "v"+name, "up")
	run(t, "ip", "-n", name, "addr", "add", inside+"/24", "dev", "eth0")
	run(t, "ip", "-n", name, "link", "set", "eth0", "up")
	run(t, "ip", "-n", name, "link", "set", "lo", "up")
	run(t, "ip", "-n", name, "route", "add", "default", "via", outside)
	if len(rules) == 0 {
		return name
	}
	nft := []string{"add table inet office", "add chain inet office out { type filter hook output priority 0; policy accept; }"}
	for _, r := range rules {
		nft = append(nft, "add rule inet office out "+r)
	}
	run(t, "ip", "netns", "exec", name, "nft", strings.Join(nft, "; "))
	return name
}

// browsersOnly has the node use no relay itself, so that all that there are are of browsers.
const browsersOnly = "PARLEY_TURN_NODE=false"

// stopped is how many packets a rule with a counter has met.
func stopped(t *testing.T, office string) int {
	t.Helper()
	m := regexp.MustCompile(`packets (\d+)`).FindStringSubmatch(run(t, "ip", "netns", "exec", office, "nft", "list", "ruleset"))
	if m == nil {
		t.Fatal("no counter")
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// relayServer is `parley run turn` beside a node.
type relayServer struct {
	n   *node
	cmd *exec.Cmd
	out *lockedBuffer
}

// Ports of the relay, from the node's base on.
const (
	relayPort    = 40
	relayTLSPort = 41
	relayAdmin   = 42
)

func (n *node) startRelay(more ...string) *relayServer {
	n.t.Helper()
	s := &relayServer{n: n, out: new(lockedBuffer)}
	s.cmd = exec.Command(n.bin, append([]string{"run", "turn", "--data", n.data, "--log.format", "json"}, more...)...)
	s.cmd.Env = append(n.env(), fmt.Sprintf("PARLEY_TURN_LISTEN=:%d", n.base+relayPort), fmt.Sprintf("PARLEY_ADMIN_LISTEN=127.0.0.1:%d", n.base+relayAdmin),
		fmt.Sprintf("PARLEY_TURN_PORTS=%d-%d", n.base+60, n.base+99))
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(s.stop)
	n.wait("the relay", 10*time.Second, func() bool { return strings.Contains(s.out.String(), "relaying") })
	return s
}

func (s *relayServer) stop() {
	if s.cmd.ProcessState != nil {
		return
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.n.t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil {
		s.n.t.Errorf("the relay: %v\n%s", err, s.out.String())
	}
	if s.n.t.Failed() {
		s.n.t.Logf("the relay said:\n%s", s.out.String())
	}
}

// running is how many allocations the relay has.
func (s *relayServer) running() (sum float64) {
	s.n.t.Helper()
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", s.n.base+relayAdmin))
	if err != nil {
		s.n.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "parley_turn_allocations{"); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
			if err != nil {
				s.n.t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// way is what the page tells of its connection.
type way struct {
	State, Relay string
	Packets      float64 `json:"packets_in"`
}

// flows reads it, and reports whether audio comes.
func (b *browser) flows(w *way) bool {
	b.t.Helper()
	if err := b.do(map[string]any{"do": "eval", "js": "window.parley.stats()"}, w); err != nil {
		b.t.Fatal(err)
	}
	return w.State == "connected" && w.Packets > 0
}

// A network that lets out TCP alone: the browser hears the room, and is heard, by way
// of our relay, and again after the connection was lost.
func TestBrowserWithoutUDP(t *testing.T) {
	name := office(t, "meta l4proto udp counter drop")
	n := startNodeWith(t, func(n *node) {
		n.more = []string{browsersOnly, fmt.Sprintf("PARLEY_TURN_URLS=turn:%s:%d?transport=tcp", outside, n.base+relayPort)}
	})
	relay := n.startRelay()
	bot := n.startBot("tone", 1300)
	b := startBrowserBy(t, 500, "ip", "netns", "exec", name)
	began := time.Now()
	b.open(fmt.Sprintf("https://%s:%d/r/main", outside, n.base+1), "Office")
	var st way
	connected := func() bool { return b.flows(&st) }
	n.wait("the browser's audio", 20*time.Second, connected)
	fmt.Printf("turn: heard %.1f s after the page was opened, relayed by %q\n", time.Since(began).Seconds(), st.Relay)
	if st.Relay != "tcp" {
		t.Errorf("the way is %q", st.Relay)
	}
	if stopped(t, name) == 0 {
		t.Error("no UDP was stopped: this proves nothing")
	}
	ear := func() {
		t.Helper()
		heard, err := b.fresh(2000)
		if err != nil {
			t.Fatal(err)
		}
		said, err := fresh(bot, 2000)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("turn: the browser hears the bot at %.1f dBFS, the bot hears the browser at %.1f dBFS\n", levelOf(heard, 1300), levelOf(said, 500))
		if l := levelOf(heard, 1300); l < -40 {
			t.Errorf("the browser hears the bot at %.1f dBFS", l)
		}
		if l := levelOf(said, 500); l < -40 {
			t.Errorf("the bot hears the browser at %.1f dBFS", l)
		}
	}
	ear()
	if relay.running() < 1 {
		t.Error("the relay has no allocation")
	}

	relay.stop()
	relay = n.startRelay()
	n.wait("the audio by the new relay", 40*time.Second, func() bool { return relay.running() > 0 && connected() })
	ear()
	if strings.Contains(relay.out.String(), "wrong") {
		t.Error("a credential was refused")
	}
}

// Where UDP goes through, no relay is used: each allocation would cost it a port.
func TestBrowserWithUDPNeedsNoRelay(t *testing.T) {
	name := office(t)
	n := startNodeWith(t, func(n *node) {
		n.more = []string{browsersOnly, fmt.Sprintf("PARLEY_TURN_URLS=turn:%s:%d?transport=tcp", outside, n.base+relayPort)}
	})
	relay := n.startRelay()
	n.startBot("tone", 1300)
	b := startBrowserBy(t, 500, "ip", "netns", "exec", name)
	b.open(fmt.Sprintf("https://%s:%d/r/main", outside, n.base+1), "Home")
	var st way
	n.wait("the browser's audio", 20*time.Second, func() bool { return b.flows(&st) })
	heard, err := b.fresh(4000) // longer than a direct way is waited for
	if err != nil {
		t.Fatal(err)
	}
	if l := levelOf(heard, 1300); l < -40 {
		t.Errorf("the browser hears the bot at %.1f dBFS", l)
	}
	if got := relay.running(); got != 0 || strings.Contains(relay.out.String(), "allocation begins") {
		t.Errorf("%v allocations", got)
	}
}

// TLS on one port, as where nothing but HTTPS is let out.
func TestBrowserWithTLSAlone(t *testing.T) {
	var port int
	name, home := "", t.TempDir()
	n := startNodeWith(t, func(n *node) {
		port = n.base + relayTLSPort
		name = office(t, "meta l4proto udp drop", fmt.Sprintf("tcp dport != { %d, %d } counter drop", n.base+1, port))
		n.more = []string{browsersOnly, fmt.Sprintf("PARLEY_TURN_URLS=turns:%s:%d?transport=tcp", outside, port)}
	})
	// A page may be opened in spite of its certificate; a relay's has to be right.
	ca, cert := certified(t, outside)
	db := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "certutil", "-d", "sql:"+db, "-N", "--empty-password")
	run(t, "certutil", "-d", "sql:"+db, "-A", "-t", "C,,", "-n", "test", "-i", ca)
	relay := n.startRelay("--turn.tls_listen", fmt.Sprintf(":%d", port), "--turn.cert", cert, "--turn.key", cert)
	n.startBot("tone", 1300)
	b := startBrowserBy(t, 500, "env", "HOME="+home, "ip", "netns", "exec", name)
	b.open(fmt.Sprintf("https://%s:%d/r/main", outside, n.base+1), "Strict office")
	n.wait("an allocation", 20*time.Second, func() bool { return relay.running() > 0 })
	var st way
	n.wait("the browser's audio", 10*time.Second, func() bool { return b.flows(&st) })
	heard, err := b.fresh(2000)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("turn: by %q the browser hears the bot at %.1f dBFS\n", st.Relay, levelOf(heard, 1300))
	if l := levelOf(heard, 1300); l < -40 || st.Relay != "tls" {
		t.Errorf("by %q the browser hears the bot at %.1f dBFS", st.Relay, l)
	}
}

// certified makes an authority and a certificate of its for an address; the second file
// has the key too.
func certified(t *testing.T, ip string) (ca, cert string) {
	t.Helper()
	dir := t.TempDir()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "relay"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(ip)}}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, blocks ...*pem.Block) string {
		var b []byte
		for _, x := range blocks {
			b = append(b, pem.EncodeToMemory(x)...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: rootDER}),
		write("cert.pem", &pem.Block{Type: "CERTIFICATE", Bytes: leafDER}, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}
