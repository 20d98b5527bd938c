//go:build interop

package interop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/trust"
)

const (
	jamsAddr = rigSUT + ":4281"
	jamsURL  = "https://" + jamsAddr
)

// jamsServer is `parley run jams` in the rig.
type jamsServer struct {
	r    *rig
	data string
	cert string // certificate and key
	cmd  *exec.Cmd
	out  *lockedBuffer
}

// trusted makes a certificate for the server that daemons of the rig trust: `ip netns
// exec` lays /etc/netns/NAME over /etc. It has to be called before the rig starts.
func trusted(t *testing.T, peers int) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "jams"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(rigSUT)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	path := filepath.Join(t.TempDir(), "server.pem")
	if err := os.WriteFile(path, append(bytes.Clone(cert), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), 0o600); err != nil {
		t.Fatal(err)
	}
	hash, err := exec.Command("openssl", "x509", "-hash", "-noout", "-in", path).Output()
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	for i := 1; i <= peers; i++ {
		dir := fmt.Sprintf("/etc/netns/rp%d", i)
		if _, err := os.Stat(dir); err == nil {
			t.Fatalf("%s is there already", dir)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		if err := os.MkdirAll(filepath.Join(dir, "ssl", "certs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ssl", "certs", strings.TrimSpace(string(hash))+".0"), cert, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func (s *jamsServer) parley(in string, args ...string) []byte {
	s.r.t.Helper()
	cmd := s.r.sut(append([]string{parleyBinary(s.r.t)}, append(args, "--data", s.data)...)...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		s.r.t.Fatalf("parley %v: %v", args, err)
	}
	return out
}

func (s *jamsServer) start() {
	s.r.t.Helper()
	s.out = new(lockedBuffer)
	s.cmd = s.r.sut(parleyBinary(s.r.t), "run", "jams", "--data", s.data, "--jams.listen", jamsAddr,
		"--jams.cert", s.cert, "--jams.key", s.cert, "--log.format", "json")
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		s.r.t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(s.out.String(), "serving accounts"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.r.t.Fatalf("the account server does not start:\n%s", s.out.String())
		}
	}
}

// jamsAccount is what `parley jams user list` says.
type jamsAccount struct {
	Name, ID string
	Revoked  time.Time
	Devices  []struct {
		DeviceID, Alias string
		Revoked         time.Time
	}
}

func (s *jamsServer) list() (l []jamsAccount) {
	s.r.t.Helper()
	if err := json.Unmarshal(s.parley("", "jams", "user", "list", "--json"), &l); err != nil {
		s.r.t.Fatal(err)
	}
	return l
}

// managed asks the daemon for an account of the server, and waits for its state.
func (p *rigPeer) managed(user, password, state string) string {
	p.t.Helper()
	var d map[string]string
	p.call(&d, "configuration.getAccountTemplate", "RING")
	for k, v := range map[string]string{
		"Account.type": "RING", "Account.alias": user, "Account.managerUri": jamsURL, "Account.managerUsername": user, "Account.archivePassword": password,
		"Account.hostname": "10.77.0.254:4222", "Account.proxyEnabled": "false", "Account.dhtProxyListEnabled": "false",
		"TURN.enable": "false", "STUN.enable": "false", "Account.upnpEnabled": "false",
		"Account.peerDiscovery": "false", "Account.accountDiscovery": "false", "Account.accountPublish": "false",
	} {
		d[k] = v
	}
	from := p.mark()
	var acc string
	p.call(&acc, "configuration.addAccount", d)
	p.wait(from, time.Minute, "registrationStateChanged", acc, state)
	return acc
}

// Stock daemons have accounts of our server.
func TestStockDaemonHasManagedAccount(t *testing.T) {
	cert := trusted(t, 2)
	r := startRig(t, 2)
	s := &jamsServer{r: r, data: t.TempDir(), cert: cert}
	s.parley("s3cret pass\n", "jams", "user", "add", "alice", "--display-name", "Alice A")
	s.parley("other secret\n", "jams", "user", "add", "bob", "--display-name", "Bob B")
	s.start()
	t.Cleanup(func() {
		s.cmd.Process.Kill() // an error: it has ended
		if t.Failed() {
			t.Logf("the account server said:\n%s", s.out.String())
			for i := 1; i <= 2; i++ {
				b, err := os.ReadFile(filepath.Join(r.state, fmt.Sprintf("p%d", i), "jamid.log"))
				if err == nil {
					t.Logf("daemon %d said:\n%s", i, b[max(0, len(b)-6000):])
				}
			}
		}
	})
	step := func(what string, got, want any) {
		t.Helper()
		fmt.Printf("jams: stock: %s: %v\n", what, got)
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	p1, p2 := r.peer(1), r.peer(2)
	p1.managed("alice", "wrong password", "ERROR_GENERIC")
	step("accounts after a wrong password", len(s.list()), 0)

	acc := p1.managed("alice", "s3cret pass", "REGISTERED")
	var d, v map[string]string
	p1.call(&d, "configuration.getAccountDetails", acc)
	p1.call(&v, "configuration.getVolatileAccountDetails", acc)
	list := s.list()
	if len(list) != 1 || len(list[0].Devices) != 1 {
		t.Fatalf("our list: %+v", list)
	}
	step("its Jami Id", strings.TrimPrefix(strings.TrimPrefix(d["Account.username"], "ring:"), "jami:"), list[0].ID)
	step("its device", d["Account.deviceID"]+v["Account.deviceID"], list[0].Devices[0].DeviceID)
	step("its shown name", d["Account.displayName"], "Alice A")

	// The chain that the daemon has on disk is the one that we issued.
	found, err := filepath.Glob(filepath.Join(r.state, "p1", "home", ".local", "share", "jami", "*", "ring_device.crt"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no chain of the daemon: %v", err)
	}
	text, err := os.ReadFile(found[len(found)-1])
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(filepath.Join(s.data, "jams", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cas, err := trust.Certificates(root[bytes.Index(root, []byte("-----BEGIN CERTIFICATE-----")):])
	if err != nil {
		t.Fatal(err)
	}
	rules := trust.Rules{Roots: []*x509.Certificate{cas[0]}}
	chain, err := rules.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	step("the account in its chain", chain.JamiID.String(), list[0].ID)

	// Another device of the same account, on another daemon.
	second := p2.managed("alice", "s3cret pass", "REGISTERED")
	p2.call(&d, "configuration.getAccountDetails", second)
	step("the same account on another daemon", strings.TrimPrefix(strings.TrimPrefix(d["Account.username"], "ring:"), "jami:"), list[0].ID)
	step("devices now", len(s.list()[0].Devices), 2)
	var known map[string]string
	for end := time.Now().Add(30 * time.Second); len(known) < 2 && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		p2.call(&known, "configuration.getKnownRingDevices", second)
	}
	step("devices that the second daemon knows from us", len(known), 2)

	bob := p2.managed("bob", "other secret", "REGISTERED")
	from := p2.mark()
	p2.call(nil, "configuration.searchUser", bob, "alice")
	step("search of alice finds her", strings.Contains(fmt.Sprintf("%s", p2.wait(from, 20*time.Second, "userSearchEnded", bob)), list[0].ID), true)

	// A contact that one device adds is the account's.
	p1.call(nil, "configuration.addContact", acc, s.list()[1].ID)
	var contacts []map[string]string
	for end := time.Now().Add(30 * time.Second); len(contacts) == 0 && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		p1.call(&contacts, "configuration.getContacts", acc)
	}
	step("contacts of alice", len(contacts), 1)

	// The user revokes his other device from a stock daemon.
	var other string
	for _, dev := range s.list()[0].Devices {
		if dev.DeviceID != list[0].Devices[0].DeviceID {
			other = dev.DeviceID
		}
	}
	from = p1.mark()
	p1.call(nil, "configuration.revokeDevice", acc, "s3cret pass", other)
	step("revocation by the stock daemon", p1.result(p1.wait(from, 30*time.Second, "deviceRevocationEnded", acc, other)[2]), 0)
	revoked := 0
	for _, dev := range s.list()[0].Devices {
		if !dev.Revoked.IsZero() && dev.DeviceID == other {
			revoked++
		}
	}
	step("revoked devices in our list", revoked, 1)
	out, err := r.sut("curl", "-sk", jamsURL+"/crl/"+list[0].ID).Output()
	if err != nil {
		t.Fatal(err)
	}
	crl, err := trust.ParseCRL(out, chain.Account)
	if err != nil {
		t.Fatal(err)
	}
	step("entries of the account's revocation list", len(crl.RevokedCertificateEntries), 1)

	s.parley("", "jams", "user", "revoke", "bob")
	step("bob's account is revoked", !s.list()[1].Revoked.IsZero(), true)
	if b := s.out.String(); strings.Contains(b, "s3cret") {
		t.Error("a password is in the log")
	}
}
