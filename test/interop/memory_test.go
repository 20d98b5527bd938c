//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// secretKeys returns the private keys of the node's account, by name.
func (n *node) secretKeys() map[string]*rsa.PrivateKey {
	n.t.Helper()
	read := func(name string) []byte {
		found, err := filepath.Glob(filepath.Join(n.data, "identity", "*", name))
		if err != nil || len(found) != 1 {
			n.t.Fatal(name, found, err)
		}
		b, err := os.ReadFile(found[0])
		if err != nil {
			n.t.Fatal(err)
		}
		return b
	}
	dev, err := jami.ParseKey(read("ring_device.key"))
	if err != nil {
		n.t.Fatal(err)
	}
	a, err := jami.ParseArchive(read("archive.gz"), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return map[string]*rsa.PrivateKey{"device": dev, "account": a.AccountKey, "authority": a.CAKey}
}

// traces are forms in which a key may lie in memory: windows of its secret numbers as
// bytes in either order and as hex, and of its file.
func traces(t *testing.T, k *rsa.PrivateKey) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for name, x := range map[string]*big.Int{"p": k.Primes[0], "q": k.Primes[1], "d": k.D} {
		b := x.Bytes()
		mid := b[len(b)/2 : len(b)/2+32]
		out[name] = mid
		turned := slices.Clone(mid)
		slices.Reverse(turned)
		out[name+", words of the machine"] = turned
		out[name+", hex"] = []byte(hex.EncodeToString(mid))
	}
	pem, err := jami.MarshalKey(k)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(pem), "\n")
	out["PEM"] = []byte(lines[len(lines)/2])
	out["PEM in base64"] = []byte(base64.StdEncoding.EncodeToString(pem)[3000:3040])
	return out
}

// find returns which of the traces are in a stream.
func find(r io.Reader, what map[string][]byte) (found []string, size int64, err error) {
	const overlap = 128
	buf := make([]byte, 256<<10)
	nothing := make([]byte, len(buf)) // which most of a core dump is
	keep := 0
	for {
		n, err := io.ReadFull(r, buf[keep:])
		size += int64(n)
		search := what
		if bytes.Equal(buf[:keep+n], nothing[:keep+n]) {
			search = nil
		}
		for name, b := range search {
			if bytes.Contains(buf[:keep+n], b) && !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return found, size, nil
		}
		if err != nil {
			return found, size, err
		}
		keep = copy(buf, buf[len(buf)-overlap:])
	}
}

// inMemory searches all that a process has mapped and can be read.
func inMemory(t *testing.T, pid int, what map[string][]byte) (found []string, size int64) {
	t.Helper()
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(mode, "rw") {
			continue
		}
		got, n, err := find(io.NewSectionReader(mem, int64(from), int64(to-from)), what)
		if err != nil && n == 0 { // of a device, or gone meanwhile
			continue
		}
		found, size = append(found, got...), size+n
	}
	return found, size
}

// TestPrivateKeysStayInIdentity: after everything was done that needs them, the memory and
// the core dumps of the other processes have no trace of the account's private keys.
func TestPrivateKeysStayInIdentity(t *testing.T) {
	n := startNode(t)
	what := map[string][]byte{}
	for key, k := range n.secretKeys() {
		for form, b := range traces(t, k) {
			what[key+": "+form] = b
		}
	}
	if len(what) < 3*11 {
		t.Fatalf("only %d traces", len(what))
	}
	dir := t.TempDir()
	n.parley("room", "create", "signed") // its conversation is
	n.wait("the conversation is there", 10*time.Second, func() bool { return strings.Contains(n.parley("room", "show", "signed", "--json"), `"conversation"`) })
	n.parley("account", "export", filepath.Join(dir, "a.gz"))
	n.parley("account", "contact", "add", strings.Repeat("ab", 20))
	n.parley("account", "create", "--alias", "another")
	st := n.status()
	pids := map[string]int{"up": n.cmd.Process.Pid}
	for _, p := range st.Processes {
		pids[p.Name] = p.PID
	}
	if len(pids) != 8 {
		t.Fatalf("processes %v", pids)
	}
	for name, pid := range pids {
		found, size := inMemory(t, pid, what)
		switch {
		case name == "identity": // proof that the search finds what is there
			if !slices.ContainsFunc(found, func(s string) bool { return strings.HasPrefix(s, "device: p") }) {
				t.Errorf("identity has no trace of its own device's key: the search is blind (%d bytes)", size)
			}
			t.Logf("identity: %d MiB, %d traces", size>>20, len(found))
			continue
		case size < 1<<20:
			t.Errorf("%s: only %d bytes of memory were read", name, size)
		case len(found) > 0:
			t.Errorf("%s has in its memory: %s", name, strings.Join(found, "; "))
		}
		core := filepath.Join(dir, name)
		if out, err := exec.Command("gcore", "-o", core, fmt.Sprint(pid)).CombinedOutput(); err != nil {
			t.Errorf("core dump of %s: %v %s", name, err, out)
			continue
		}
		f, err := os.Open(fmt.Sprintf("%s.%d", core, pid))
		if err != nil {
			t.Fatal(err)
		}
		found, dumped, err := find(f, what)
		f.Close()
		if err != nil || dumped < 1<<20 {
			t.Errorf("core dump of %s: %d bytes, %v", name, dumped, err)
		}
		if len(found) > 0 {
			t.Errorf("the core dump of %s has: %s", name, strings.Join(found, "; "))
		}
		t.Logf("%s: %d MiB of memory, %d MiB of core dump", name, size>>20, dumped>>20)
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}

	// identity itself leaves no core dump, and nobody but root may look into it.
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pids["identity"]))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") && !strings.Contains(line, " 0 ") {
			t.Errorf("identity may dump its core: %s", line)
		}
	}
	if out, err := exec.Command("setpriv", "--reuid=65534", "--clear-groups", "cat", fmt.Sprintf("/proc/%d/environ", pids["identity"])).CombinedOutput(); err == nil {
		t.Errorf("another user reads identity's environment: %d bytes", len(out))
	}
}

// TestStorageKey: with a key from the environment nothing of the account lies in the clear
// on the disk, and no process but identity has that key; without it the node says what is
// missing and changes nothing.
func TestStorageKey(t *testing.T) {
	const name, key = "PARLEY_IDENTITY_STORAGE_KEY", "correct horse battery"
	n := startNode(t) // in the clear
	n.stop()
	clear := func() (names []string) {
		t.Helper()
		for _, path := range []string{"ring_device.key", "archive.gz"} {
			found, err := filepath.Glob(filepath.Join(n.data, "identity", "*", path))
			if err != nil || len(found) != 1 {
				t.Fatal(found, err)
			}
			b, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := jami.ParseArchive(b, nil); err == nil || bytes.Contains(b, []byte("BEGIN PRIVATE KEY")) {
				names = append(names, path)
			}
		}
		return names
	}
	if got := clear(); len(got) != 2 {
		t.Fatalf("in the clear before: %v", got)
	}
	t.Setenv(name, key)
	n.start()
	if got := clear(); len(got) > 0 {
		t.Errorf("in the clear: %v", got)
	}
	for _, p := range n.status().Processes {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		if has := bytes.Contains(env, []byte(key)); has != (p.Name == "identity") {
			t.Errorf("%s has the storage key: %v", p.Name, has)
		}
	}
	id := n.status().Account.ID
	n.stop()
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
	n.launch()
	n.wait("it says what is missing", 30*time.Second, func() bool { return strings.Contains(n.tail(), name) })
	n.stop()
	t.Setenv(name, key)
	n.start()
	if got := n.status().Account.ID; got != id {
		t.Errorf("account %s, it was %s", got, id)
	}
}
