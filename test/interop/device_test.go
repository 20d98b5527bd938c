//go:build interop

package interop

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// accountDir is the daemon's directory of an account.
func (p *rigPeer) accountDir(r *rig, acc string) string {
	return filepath.Join(r.state, fmt.Sprintf("p%d", p.i), "home", ".local", "share", "jami", acc)
}

// state is the registration state of an account.
func (p *rigPeer) state(acc string) string {
	p.t.Helper()
	var d map[string]string
	p.call(&d, "configuration.getVolatileAccountDetails", acc)
	return d["Account.registrationStatus"]
}

// until waits for the registration state of an account.
func (p *rigPeer) until(acc string, limit time.Duration, is func(state string) bool) (last string) {
	p.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		if last = p.state(acc); is(last) || time.Now().After(end) {
			return last
		}
	}
}

// adopt puts our device in the place of the daemon's: key, chain, archive and receipt.
func adopt(t *testing.T, theirs, ours string) {
	t.Helper()
	read := func(path string) (m map[string]any) {
		b, err := os.ReadFile(path)
		if err == nil {
			err = yaml.Unmarshal(b, &m)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	config := read(filepath.Join(theirs, "config.yml"))
	mine := read(filepath.Join(ours, "config.yml"))
	for _, key := range []string{"ringAccountReceipt", "ringAccountReceiptSignature", "Account.deviceName"} {
		if mine[key] == nil || config[key] == nil {
			t.Fatalf("no %s: ours %v, theirs %v", key, slices.Collect(maps.Keys(mine)), slices.Collect(maps.Keys(config)))
		}
	}
	// Text is replaced in theirs: yaml.v3 would write the rest in its own way.
	out, err := exec.Command("python3", "-c", `
import sys, yaml
theirs, ours = (yaml.safe_load(open(p, "rb")) for p in sys.argv[1:3])
for k in ("ringAccountReceipt", "ringAccountReceiptSignature", "Account.deviceName"):
    theirs[k] = ours[k]
sig = theirs["ringAccountReceiptSignature"]
theirs["ringAccountReceiptSignature"] = sig if isinstance(sig, bytes) else sig.encode("latin-1")
yaml.safe_dump(theirs, open(sys.argv[1], "w"))
`, filepath.Join(theirs, "config.yml"), filepath.Join(ours, "config.yml")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, name := range []string{"archive.gz", "ring_device.key", "ring_device.crt", "contacts", "knownDevices", "incomingTrustRequests"} {
		b, err := os.ReadFile(filepath.Join(ours, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(theirs, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A device that we made from a stock archive is one that stock programs accept: a stock
// daemon runs as it, and another stock device of the account takes it for its own until it
// revokes it.
func TestOurDeviceInStockDaemons(t *testing.T) {
	r := startRig(t, 2)
	p1, p2 := r.peer(1), r.peer(2)
	step := func(what string, got, want any) {
		t.Helper()
		fmt.Printf("device: stock: %s: %v\n", what, got)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	archive := filepath.Join(t.TempDir(), "a.gz")
	alice, aliceID := p1.account("alice", nil)
	p1.export(alice, archive, "")
	second, _ := p2.account("alice-2", map[string]string{"Account.archivePath": archive})
	data := shortDir(t)
	var made struct{ ID, Device string }
	r.ask(data, &made, "account", "import", archive)
	step("we make a device of", made.ID, aliceID)
	found, err := filepath.Glob(filepath.Join(data, "identity", "*", "ring_device.key"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	r.run("stop", "1")
	adopt(t, p1.accountDir(r, alice), filepath.Dir(found[0]))
	r.run("start", "1")
	p1 = r.peer(1)
	step("a stock daemon with our device", p1.until(alice, time.Minute, func(s string) bool { return s == "REGISTERED" }), "REGISTERED")
	step("is that device", p1.device(alice), made.Device)
	knows := func() bool {
		var known map[string]string
		p2.call(&known, "configuration.getKnownRingDevices", second)
		_, ok := known[made.Device]
		return ok
	}
	for end := time.Now().Add(90 * time.Second); !knows() && time.Now().Before(end); time.Sleep(time.Second) {
	}
	step("another stock device knows it as its account's", knows(), true)

	from := p2.mark()
	p2.call(nil, "configuration.revokeDevice", second, "", made.Device)
	step("that one revokes it", p2.result(p2.wait(from, time.Minute, "deviceRevocationEnded", second, made.Device)[2]), 0)
	p2.export(second, archive+".2", "")
	_, revoked := openArchive(t, archive+".2", "")
	step("its archive names", len(revoked), 1)
	step("and knows it no longer", knows(), false)
	// Its archive makes a device of ours that knows of the revocation.
	var again struct{ ID string }
	r.ask(shortDir(t), &again, "account", "import", archive+".2")
	step("we make another device of", again.ID, aliceID)
}
