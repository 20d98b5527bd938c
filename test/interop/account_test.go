//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// archivePassword is typed into both programs.
const archivePassword = "s3cret pw, with spaces"

// rigNode is `parley up` in the rig, with its default ports.
type rigNode struct {
	r    *rig
	data string
	cmd  *exec.Cmd
	out  *lockedBuffer
}

// startNode waits until there is an account, and until its device is announced where there is
// a DHT to announce it in: a stock daemon that calls before that finds nobody.
func (r *rig) startNode(data string, flags ...string) *rigNode {
	r.t.Helper()
	n := &rigNode{r: r, data: data, out: new(lockedBuffer)}
	n.cmd = r.sut(append([]string{parleyBinary(r.t), "up", "--data", data, "--log.format", "json", "--log.level", "debug"}, flags...)...)
	n.cmd.Stdout, n.cmd.Stderr = n.out, n.out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := n.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		n.cmd.Process.Kill() // an error: it has ended
		if r.t.Failed() {
			said := n.out.String()
			r.t.Logf("the node said:\n%s", said[max(0, len(said)-30000):])
		}
	})
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, err := n.try("account", "show")
		if err == nil && (!slices.Contains(flags, "--dht.opendht_bootstrap") || strings.Contains(n.out.String(), `"device announced"`)) {
			return n
		} else if time.Now().After(end) {
			r.t.Fatalf("the node has no account, or has not announced it: %v", err)
		}
	}
}

func (n *rigNode) stop() {
	n.r.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.r.t.Fatal(err)
	}
	if err := n.cmd.Wait(); err != nil {
		n.r.t.Errorf("the node ends with %v", err)
	}
}

func (n *rigNode) try(args ...string) ([]byte, error) { return n.r.parley(n.data, args...) }

// ask runs a command and decodes what it prints.
func (n *rigNode) ask(res any, args ...string) {
	n.r.t.Helper()
	n.r.ask(n.data, res, args...)
}

func (r *rig) parley(data string, args ...string) ([]byte, error) {
	cmd := r.sut(append(append([]string{parleyBinary(r.t)}, args...), "--data", data, "--json")...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("parley %v: %w: %s", args, err, said.String())
	}
	return out, err
}

func (r *rig) ask(data string, res any, args ...string) {
	r.t.Helper()
	out, err := r.parley(data, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	if res == nil {
		return
	}
	if err := json.Unmarshal(out, res); err != nil {
		r.t.Fatalf("parley %v: %v in %s", args, err, out)
	}
}

// device is the daemon's device id of an account.
func (p *rigPeer) device(acc string) string {
	p.t.Helper()
	var d map[string]string
	p.call(&d, "configuration.getAccountDetails", acc)
	if d["Account.deviceID"] == "" {
		p.call(&d, "configuration.getVolatileAccountDetails", acc)
	}
	return d["Account.deviceID"]
}

// contacts are the ids in the daemon's list.
func (p *rigPeer) contacts(acc string) (ids []string) {
	p.t.Helper()
	var list []map[string]string
	p.call(&list, "configuration.getContacts", acc)
	for _, c := range list {
		ids = append(ids, c["id"])
	}
	return ids
}

// export has the daemon write its archive.
func (p *rigPeer) export(acc, path, password string) {
	p.t.Helper()
	var ok any
	p.call(&ok, "configuration.exportToFile", acc, path, password)
	if fmt.Sprint(ok) != "true" && fmt.Sprint(ok) != "1" {
		p.t.Fatalf("peer %d: exportToFile: %v", p.i, ok)
	}
}

// openArchive reads an archive file and the serials that its list revokes.
func openArchive(t *testing.T, path, password string) (a *jami.Archive, revoked []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if jami.Encrypted(b) != (password != "") {
		t.Errorf("%s is encrypted: %v", filepath.Base(path), jami.Encrypted(b))
	}
	if a, err = jami.ParseArchive(b, []byte(password)); err != nil {
		t.Fatalf("%s: %v", filepath.Base(path), err)
	}
	if a.CRL == nil {
		return a, nil
	}
	l, err := trust.ParseCRL(a.CRL, a.Account)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range l.RevokedCertificateEntries {
		revoked = append(revoked, e.SerialNumber.String())
	}
	return a, revoked
}

// Accounts go from stock daemons to us and from us to stock daemons as archive files,
// with what belongs to them.
func TestArchivesAndStockDaemons(t *testing.T) {
	r := startRig(t, 2)
	p1, p2 := r.peer(1), r.peer(2)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	pw := file("pw")
	if err := os.WriteFile(pw, []byte(archivePassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	friend := strings.Repeat("ab", 20)
	step := func(what string, got, want any) {
		t.Helper()
		fmt.Printf("account: stock: %s: %v\n", what, got)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}

	// Of a stock daemon, with a contact and a revoked device.
	alice, aliceID := p1.account("alice", nil)
	p1.call(nil, "configuration.addContact", alice, friend)
	p1.export(alice, file("stock-plain.gz"), "")
	second, secondID := p2.account("alice-2", map[string]string{"Account.archivePath": file("stock-plain.gz")})
	step("its archive in another stock daemon", secondID, aliceID)
	gone := p2.device(second)
	from := p1.mark()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		var known map[string]string
		p1.call(&known, "configuration.getKnownRingDevices", alice)
		if _, ok := known[gone]; ok || time.Now().After(end) {
			break
		}
	}
	p1.call(nil, "configuration.revokeDevice", alice, "", gone)
	step("it revokes the second device", p1.result(p1.wait(from, time.Minute, "deviceRevocationEnded", alice, gone)[2]), 0)
	p2.call(nil, "configuration.removeAccount", second)
	p1.export(alice, file("stock-plain.gz"), "")
	var ok any
	p1.call(&ok, "configuration.changeAccountPassword", alice, "", archivePassword)
	p1.export(alice, file("stock-pw.gz"), archivePassword)

	for name, password := range map[string]string{"stock-plain.gz": "", "stock-pw.gz": archivePassword} {
		_, revoked := openArchive(t, file(name), password)
		step(name+": revoked devices", len(revoked), 1)
		data := shortDir(t)
		args, flags := []string{"account", "import", file(name)}, []string{}
		if password != "" {
			if _, err := r.parley(data, args...); err == nil {
				t.Error("imported without its password")
			}
			args, flags = append(args, "--password-file", pw), []string{"--identity.password_file", pw}
		}
		var made struct{ ID, Device, Archive string }
		r.ask(data, &made, args...)
		step(name+": we import", made.ID, aliceID)
		n := r.startNode(data, flags...)
		var shown struct{ ID, Device, Archive string }
		n.ask(&shown, "account", "show")
		step(name+": our node is", shown, made)
		var contacts struct{ Contacts []struct{ ID string } }
		n.ask(&contacts, "account", "contacts")
		step(name+": contacts", contacts.Contacts, []struct{ ID string }{{friend}})
		n.ask(nil, "account", "export", file("again-"+name))
		_, kept := openArchive(t, file("again-"+name), "")
		step(name+": revoked devices in our export", kept, revoked)
		n.stop()
		// The new device is one that stock accepts: back with the same account.
		back, backID := p2.account("alice-back", map[string]string{"Account.archivePath": file("again-" + name)})
		step(name+": our export of it in a stock daemon", backID, aliceID)
		step(name+": with the contact", p2.contacts(back), []string{friend})
		p2.call(nil, "configuration.removeAccount", back)
	}

	// Of ours.
	n := r.startNode(shortDir(t))
	var own struct{ ID string }
	n.ask(&own, "account", "show")
	n.ask(nil, "account", "contact", "add", friend)
	n.ask(nil, "account", "export", file("ours-0.gz"))
	other := shortDir(t)
	var lost struct{ Device string }
	r.ask(other, &lost, "account", "import", file("ours-0.gz"))
	certs, err := filepath.Glob(filepath.Join(other, "identity", "*", "ring_device.crt"))
	if err != nil || len(certs) != 1 {
		t.Fatal(certs, err)
	}
	n.ask(nil, "account", "device", "revoke", lost.Device, "--certificate", certs[0])
	n.ask(nil, "account", "export", file("ours-plain.gz"))
	n.ask(nil, "account", "export", file("ours-pw.gz"), "--password-file", pw)
	n.stop()
	for name, password := range map[string]string{"ours-plain.gz": "", "ours-pw.gz": archivePassword} {
		archive, revoked := openArchive(t, file(name), password)
		step(name+": revoked devices", len(revoked), 1)
		acc, id := p1.account("ours", map[string]string{"Account.archivePath": file(name), "Account.archivePassword": password})
		step(name+": registered in a stock daemon as", id, own.ID)
		step(name+": with the contact", p1.contacts(acc), []string{friend})
		p1.export(acc, file("back-"+name), password)
		back, kept := openArchive(t, file("back-"+name), password)
		step(name+": revoked devices in its export", kept, revoked)
		step(name+": with the same key", back.AccountKey.Equal(archive.AccountKey), true)
		var known map[string]string
		p1.call(&known, "configuration.getKnownRingDevices", acc)
		step(name+": its own device is known to it", slices.Contains(keysOf(known), p1.device(acc)), true)
		p1.call(nil, "configuration.removeAccount", acc)
	}
}

func keysOf(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// shortDir is a directory whose name is short enough for Unix sockets in it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "acc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
