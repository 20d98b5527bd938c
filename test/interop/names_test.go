//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	namesAddr = rigSUT + ":4280"
	namesURL  = "http://" + namesAddr
)

// Results in the daemon's signals.
const (
	lookupFound    = 0
	lookupInvalid  = 1
	lookupNotFound = 2
	lookupError    = 3

	registered      = 0
	registerInvalid = 2 // what 13.7.0 says of a name that it does not send
	registerTaken   = 3
)

// nameServer is `parley run names` in the rig.
type nameServer struct {
	r    *rig
	data string
	cmd  *exec.Cmd
	out  *lockedBuffer
}

func (s *nameServer) start() {
	s.r.t.Helper()
	s.out = new(lockedBuffer)
	s.cmd = s.r.sut(parleyBinary(s.r.t), "run", "names", "--data", s.data, "--names.listen", namesAddr, "--log.format", "json")
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		s.r.t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(s.out.String(), "serving names"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.r.t.Fatalf("the name server does not start:\n%s", s.out.String())
		}
	}
}

func (s *nameServer) stop(sig syscall.Signal) {
	s.r.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.r.t.Fatal(err)
	}
	if err := s.cmd.Wait(); sig == syscall.SIGTERM && err != nil {
		s.r.t.Errorf("the name server ends with %v:\n%s", err, s.out.String())
	}
}

func (p *rigPeer) register(acc, name string) int {
	p.t.Helper()
	from := p.mark()
	p.call(nil, "configuration.registerName", acc, "", name)
	return p.result(p.wait(from, 20*time.Second, "nameRegistrationEnded", acc)[1])
}

// found is what a look-up came to.
type found struct {
	result     int
	addr, name string
}

func (p *rigPeer) lookUp(method, acc, what string) (f found) {
	p.t.Helper()
	from := p.mark()
	p.call(nil, "configuration."+method, acc, "", what)
	args := p.wait(from, 20*time.Second, "registeredNameFound", acc)
	f.result = p.result(args[1])
	for i, s := range []*string{&f.addr, &f.name} {
		if err := json.Unmarshal(args[2+i], s); err != nil {
			p.t.Fatal(err)
		}
	}
	return f
}

func (p *rigPeer) result(raw json.RawMessage) (n int) {
	p.t.Helper()
	if err := json.Unmarshal(raw, &n); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// Stock daemons use our name server; what they make of it is in their own signals.
func TestStockDaemonUsesOurNameServer(t *testing.T) {
	r := startRig(t, 2)
	s := &nameServer{r: r, data: t.TempDir()}
	s.start()
	t.Cleanup(func() {
		s.cmd.Process.Kill() // an error: it has ended
		if t.Failed() {
			t.Logf("the name server said:\n%s", s.out.String())
		}
	})
	ours := map[string]string{"RingNS.uri": namesURL}
	p1, p2 := r.peer(1), r.peer(2)
	alice, aliceID := p1.account("alice", ours)
	bob, bobID := p2.account("bob", ours)
	step := func(what string, got, want any) {
		t.Helper()
		fmt.Printf("names: stock: %s: %v\n", what, got)
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}

	step("look-up of a free name", p1.lookUp("lookupName", alice, "Alice_1").result, lookupNotFound)
	step("look-up of an account without a name", p1.lookUp("lookupAddress", alice, bobID).result, lookupNotFound)
	step("register Alice_1", p1.register(alice, "Alice_1"), registered)
	step("another account registers ALICE_1", p2.register(bob, "ALICE_1"), registerTaken)
	for _, bad := range []string{"a", "with space", "büro", strings.Repeat("x", 33)} {
		step("register "+bad, p2.register(bob, bad), registerInvalid)
		step("look-up of "+bad, p2.lookUp("lookupName", bob, bad).result, lookupInvalid)
	}
	step("another daemon looks up aLICE_1", p2.lookUp("lookupName", bob, "aLICE_1"), found{lookupFound, aliceID, "aLICE_1"})
	step("another daemon looks up the address", p2.lookUp("lookupAddress", bob, aliceID), found{lookupFound, aliceID, "alice_1"})
	step("register -b (a leading dash)", p2.register(bob, "-bob"), registered)
	step("the same again", p2.register(bob, "-bob"), registered)
	step("a second name for the same account", p2.register(bob, "bob-again"), registerTaken)

	s.stop(syscall.SIGTERM)
	step("look-up while the server is away", p1.lookUp("lookupName", alice, "-bob").result, lookupError)
	s.start()
	step("look-up after a restart", p1.lookUp("lookupName", alice, "-bob"), found{lookupFound, bobID, "-bob"})
	carol, carolID := p1.account("carol", ours)
	step("register carol", p1.register(carol, "carol"), registered)
	s.stop(syscall.SIGKILL)
	s.start()
	step("look-up after kill -9", p2.lookUp("lookupName", bob, "carol"), found{lookupFound, carolID, "carol"})
	step("the address after kill -9", p2.lookUp("lookupAddress", bob, carolID), found{lookupFound, carolID, "carol"})

	for _, what := range []string{"Carol", carolID} {
		out, err := r.sut(parleyBinary(t), "names", "lookup", what, "--server", namesURL, "--json").Output()
		if err != nil {
			t.Fatalf("parley names lookup %s: %v", what, err)
		}
		var got struct {
			Name, ID string
			Verified bool
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		step("our look-up of "+what, got, struct {
			Name, ID string
			Verified bool
		}{"carol", carolID, true})
	}
	st, err := os.Stat(s.data + "/names/names.db")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("names: the file of three names has %d KiB\n", st.Size()>>10)
}
