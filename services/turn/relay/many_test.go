package relay

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	credentials "github.com/parley-jami/parley/internal/turn"
)

// The clients are another process: a process has not sockets enough for both ends.
const envClients = "PARLEY_TEST_TURN_CLIENTS" // COUNT ADDRESS

// Many allocations at once: what they cost, and that they all work. By hand:
// PARLEY_TURN_MANY=10000 go test -run ManyAllocations -v
func TestManyAllocations(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("PARLEY_TURN_MANY"))
	if err != nil {
		n = 300
	}
	r := start(t, func(c *Config) {
		c.Quotas = Quotas{User: n, Address: n, All: n, Lifetime: time.Hour}
		c.Ports = Ports{10000, uint16(10000 + n + 500)} // below what systems give to outgoing connections
		c.Strangers = Strangers{1e6, 1e6, 1e6, 1e6, time.Second}
	})
	before, used := memory(t), cpu(t)
	began := time.Now()
	cmd := exec.Command(os.Args[0], "-test.run=^TestManyClients$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", envClients, n, r.addr))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	said, err := lines.ReadString('\n')
	if err != nil || said != "allocated\n" {
		t.Fatalf("the clients: %q, %v", said, err)
	}
	took, spent := time.Since(began), cpu(t)-used
	if got := r.srv.Allocations(); got != n {
		t.Fatalf("%d run", got)
	}
	t.Logf("%d allocations in %s, %.0f µs of CPU and %.1f KiB each", n, took.Round(time.Millisecond), spent.Seconds()*1e6/float64(n), float64(memory(t)-before)/1024/float64(n))
	if _, err := io.WriteString(in, "refresh\n"); err != nil {
		t.Fatal(err)
	}
	if said, err = lines.ReadString('\n'); err != nil || said != "refreshed\n" {
		t.Fatalf("the clients: %q, %v", said, err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	r.stop()
	t.Logf("all ended in %s", time.Since(began).Round(time.Millisecond))
	if got := r.logs.FilterMessage("allocation ends").Len(); got != n {
		t.Errorf("%d ended in the log", got)
	}
}

func TestManyClients(t *testing.T) {
	n, addr, ok := strings.Cut(os.Getenv(envClients), " ")
	if !ok {
		t.Skip("the other end of TestManyAllocations")
	}
	count, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, addr: addr}
	alice := credentials.Issue(secret, "alice", time.Hour, time.Now())
	clients := make([]*raw, count)
	for i := range clients {
		clients[i] = r.raw()
		if code := clients[i].ask(alice, stun.MethodAllocate, udpTransport); code != 0 {
			t.Fatalf("allocation %d: %d", i, code)
		}
	}
	fmt.Println("allocated")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for i := range clients {
		if code := clients[i].ask(alice, stun.MethodRefresh); code != 0 {
			t.Fatalf("refresh of %d: %d", i, code)
		}
	}
	fmt.Println("refreshed")
}

// memory is the resident memory of this process in bytes.
func memory(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
