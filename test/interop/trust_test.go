//go:build interop

package interop

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// jamiDevice is a device whose key and chain are in files.
type jamiDevice struct {
	account, id string // Jami Id, long device id
	cert        string // PEM of the device alone
	key, chain  string // PEM of its key; of the account and its CA
	all         string // chain, device first, and key: what baresip takes
}

// newDevice makes a device of an account.
func newDevice(t *testing.T, account *x509.Certificate, ca *x509.Certificate, key *rsa.PrivateKey) *jamiDevice {
	t.Helper()
	own, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	c, err := jami.NewDevice(&own.PublicKey, account, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := jami.MarshalKey(own)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := jami.CertIDs(account)
	_, long := jami.CertIDs(c)
	dir := t.TempDir()
	d := &jamiDevice{account: id.String(), id: long.String()}
	for _, f := range []struct {
		path *string
		name string
		text []byte
	}{
		{&d.cert, "device.pem", jami.MarshalChain(c)},
		{&d.key, "key.pem", keyPEM},
		{&d.chain, "chain.pem", jami.MarshalChain(account, ca)},
		{&d.all, "all.pem", append(jami.MarshalChain(c, account, ca), keyPEM...)},
	} {
		*f.path = filepath.Join(dir, f.name)
		if err := os.WriteFile(*f.path, f.text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// ownDevice makes another device of the node's account, as who has its archive can.
func (n *node) ownDevice() *jamiDevice {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "archive.gz")
	n.parley("account", "export", file)
	b, err := os.ReadFile(file)
	if err != nil {
		n.t.Fatal(err)
	}
	a, err := jami.ParseArchive(b, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return newDevice(n.t, a.Account, a.CA, a.AccountKey)
}

// otherDevice makes a device of another account.
func otherDevice(t *testing.T) *jamiDevice {
	t.Helper()
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 4096); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := jami.NewCA(keys[0], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	acc, err := jami.NewAccount(&keys[1].PublicKey, ca, keys[0], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return newDevice(t, acc, ca, keys[1])
}

// client is an `openssl s_client` on the node's SIP port; ended is when its connection
// did.
type client struct {
	t     *testing.T
	in    io.WriteCloser
	out   *lockedBuffer
	ended chan time.Time
}

func (n *node) openssl(d *jamiDevice) *client {
	n.t.Helper()
	c := &client{t: n.t, out: new(lockedBuffer), ended: make(chan time.Time, 1)}
	cmd := exec.Command("openssl", "s_client", "-quiet", "-connect", fmt.Sprintf("127.0.0.1:%d", n.base+3),
		"-cert", d.cert, "-key", d.key, "-cert_chain", d.chain)
	cmd.Stdout, cmd.Stderr = c.out, c.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var err error
	if c.in, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait() // an error: the server ended it
		c.ended <- time.Now()
		close(done)
	}()
	n.t.Cleanup(func() {
		c.in.Close()
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			cmd.Process.Kill()
			<-done
		}
	})
	return c
}

// options asks for what the node can do.
func (c *client) options() {
	c.t.Helper()
	text := "OPTIONS sip:main@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:9;branch=z9hG4bK-openssl;rport\r\nFrom: <sip:o@127.0.0.1>;tag=o\r\n" +
		"To: <sip:main@127.0.0.1>\r\nCall-ID: openssl\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(c.in, text); err != nil {
		c.t.Log(err) // the server may have ended it
	}
}

// says waits for a text from the client.
func (c *client) says(text string) {
	c.t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(c.out.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("openssl does not say %q:\n%s", text, c.out.String())
		}
	}
}

// seats are who is in the room main.
func (n *node) seats() []contract.Participant {
	n.t.Helper()
	var r struct {
		Participants []contract.Participant `json:"participants"`
	}
	if err := json.Unmarshal([]byte(n.parley("room", "participants", "main", "--json")), &r); err != nil {
		n.t.Fatal(err)
	}
	return r.Participants
}

// hungUp is what baresip says of a BYE.
const hungUp = "session closed"

// A real phone and openssl show the certificate of a Jami device. The phone is that account in
// the room; when the device is revoked, or the contact blocked, the phone is out and the
// connections are closed within a second of the command, and nobody gets in with it.
func TestDevicesAreShutOut(t *testing.T) {
	n := startNode(t)
	own, other := n.ownDevice(), otherDevice(t)
	stranger := n.call(phone{name: "stranger", freq: 500, codec: "opus/48000/1", transport: "tls"}, n.base+30)
	for i, x := range []struct {
		reason  string
		device  *jamiDevice
		command []string
	}{
		{"revoked", own, []string{"account", "device", "revoke", own.id, "--certificate", own.cert}},
		{"banned", other, []string{"account", "contact", "block", other.account}},
	} {
		dev := x.device
		b := n.call(phone{name: x.reason, freq: 700, codec: "opus/48000/1", transport: "tls", cert: dev.all}, n.base+50+20*i)
		n.wait("the phone is in the room as its account", 20*time.Second, func() bool {
			return slices.ContainsFunc(n.seats(), func(p contract.Participant) bool { return p.JamiID == dev.account && p.Connected })
		})
		idle := n.openssl(dev)
		idle.options()
		idle.says("SIP/2.0 200 OK")

		began := time.Now()
		n.parley(x.command...)
		command := time.Since(began)
		var closed time.Duration
		select {
		case at := <-idle.ended:
			closed = at.Sub(began)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the connection is not closed", x.reason)
		}
		n.wait("the phone is told", 10*time.Second, func() bool { return strings.Contains(b.out.String(), hungUp) })
		told := time.Since(began)
		for _, p := range n.seats() {
			if p.JamiID != "" {
				t.Errorf("%s: %s is in the room", x.reason, p.Name)
			}
		}
		fmt.Printf("trust: %s: the command took %s; connection closed %s, phone told at most %s after it was typed\n", x.reason,
			command.Round(time.Millisecond), closed.Round(time.Millisecond), told.Round(time.Millisecond))
		if closed > time.Second {
			t.Errorf("%s: closed after %s", x.reason, closed)
		}
		if log := n.out.String(); !strings.Contains(log, "device shut out") || !strings.Contains(log, x.reason) {
			t.Errorf("%s: the log does not say so", x.reason)
		}

		again := n.openssl(dev)
		again.options()
		select {
		case <-again.ended:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: it is not refused", x.reason)
		}
		if strings.Contains(again.out.String(), "200 OK") || strings.Count(n.out.String(), "client refused") != i+1 {
			t.Errorf("%s: let in again, or it is not logged:\n%s", x.reason, again.out.String())
		}
	}
	if ps := n.seats(); len(ps) != 1 || ps[0].Name != "stranger" || ps[0].JamiID != "" {
		t.Errorf("in the room: %+v", ps)
	}
	if strings.Contains(stranger.out.String(), hungUp) {
		t.Error("a stranger was put out too")
	}
}

// Whom another account of the node blocked is put out of that account's rooms, and gets into
// none of them; the main account's are open.
func TestAnotherAccountsRooms(t *testing.T) {
	n := startNode(t)
	dev := otherDevice(t)
	n.parley("account", "create", "--alias", "Second")
	n.parley("room", "create", "second", "--account", "Second")
	in := func(room string) bool {
		var r struct {
			Participants []contract.Participant `json:"participants"`
		}
		if err := json.Unmarshal([]byte(n.parley("room", "participants", room, "--json")), &r); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(r.Participants, func(p contract.Participant) bool { return p.JamiID == dev.account && p.Connected })
	}
	b := n.call(phone{name: "guest", freq: 700, codec: "opus/48000/1", transport: "tls", cert: dev.all, room: "second"}, n.base+30)
	n.wait("the phone is in the other account's room", 20*time.Second, func() bool { return in("second") })
	n.parley("account", "contact", "block", dev.account, "--account", "Second")
	n.wait("it is put out", 5*time.Second, func() bool { return strings.Contains(b.out.String(), hungUp) && !in("second") })
	again := n.call(phone{name: "again", freq: 700, codec: "opus/48000/1", transport: "tls", cert: dev.all, room: "second"}, n.base+50)
	n.wait("it gets in no more", 20*time.Second, func() bool { return strings.Contains(again.out.String(), "403") })
	n.call(phone{name: "main", freq: 700, codec: "opus/48000/1", transport: "tls", cert: dev.all}, n.base+70)
	n.wait("it gets into the main account's", 20*time.Second, func() bool { return in("main") })
	if in("second") {
		t.Error("it is in the room of who blocked it")
	}
}
