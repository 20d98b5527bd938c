package bustest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/parley-jami/parley/bus/embed"
)

// Stock are nats-server processes of another operator, as one would set them up: in operator mode, with a full
// resolver and JetStream.
type Stock struct {
	URLs []string
	// Key and SystemCreds are paths of what a node is given: a signing key of the operator, and a user of the system
	// account with the rights of embed.SystemRights.
	Key, SystemCreds string

	t        testing.TB
	dir      string
	operator nkeys.KeyPair
	signer   nkeys.KeyPair
	system   nkeys.KeyPair
	procs    []*exec.Cmd
}

// stockBinary is built once, from the module that the bus embeds. Nothing of it is left on the disk: it is run by a file
// that stays open.
var stockBinary = sync.OnceValues(func() (*os.File, error) {
	dir, err := os.MkdirTemp("", "nats-server-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a directory for temporary files
	path := filepath.Join(dir, "nats-server")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build nats-server: %w: %s", err, out)
	}
	return os.Open(path)
})

// StartStock runs n servers, a cluster if there are several, until the test ends.
func StartStock(t testing.TB, n int) *Stock {
	t.Helper()
	s := &Stock{t: t, dir: t.TempDir()}
	s.operator, s.signer, s.system = s.pair(nkeys.PrefixByteOperator), s.pair(nkeys.PrefixByteOperator), s.pair(nkeys.PrefixByteAccount)
	oc := jwt.NewOperatorClaims(s.pub(s.operator))
	oc.Name, oc.SystemAccount = "theirs", s.pub(s.system)
	oc.SigningKeys.Add(s.pub(s.signer))
	op, err := oc.Encode(s.operator)
	s.must(err)
	sc := jwt.NewAccountClaims(s.pub(s.system))
	sc.Name = "SYS"
	sys, err := sc.Encode(s.operator)
	s.must(err)
	s.write("op.jwt", op)
	s.Key = s.OperatorKey(s.signer)
	s.SystemCreds = s.User(s.system, func(uc *jwt.UserClaims) {
		uc.Pub.Allow, uc.Sub.Allow = embed.SystemRights.Publish, embed.SystemRights.Subscribe
	})
	var ports, routes []string
	for range n {
		ports = append(ports, fmt.Sprintf("127.0.0.1:%d", FreePort(t)))
		routes = append(routes, fmt.Sprintf("127.0.0.1:%d", FreePort(t)))
	}
	for i, at := range ports {
		conf := fmt.Sprintf("server_name: n%d\nlisten: %q\noperator: %q\nsystem_account: %s\nresolver { type: full, dir: %q, interval: \"2s\" }\nresolver_preload { %[4]s: %[6]s }\n"+
			"jetstream { store_dir: %q, max_mem: 256M, max_file: 4G }\n", i, at, filepath.Join(s.dir, "op.jwt"), s.pub(s.system), filepath.Join(s.dir, fmt.Sprint("jwt", i)), sys, filepath.Join(s.dir, fmt.Sprint("js", i)))
		if n > 1 {
			conf += fmt.Sprintf("cluster { name: theirs, listen: %q, routes: [\"nats://%s\"] }\n", routes[i], strings.Join(slices.Delete(slices.Clone(routes), i, i+1), `", "nats://`))
		}
		s.write(fmt.Sprintf("n%d.conf", i), conf)
		s.URLs = append(s.URLs, "nats://"+at)
		s.procs = append(s.procs, nil)
	}
	for i := range n {
		s.Run(i)
	}
	t.Cleanup(func() {
		for i := range n {
			s.Kill(i)
		}
	})
	return s
}

// StartPlain runs a server without a configuration, and returns its URL.
func StartPlain(t testing.TB) string {
	t.Helper()
	s := &Stock{t: t, dir: t.TempDir(), procs: make([]*exec.Cmd, 1)}
	at := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	s.URLs = []string{"nats://" + at}
	s.write("n0.conf", fmt.Sprintf("listen: %q\n", at))
	s.Run(0)
	t.Cleanup(func() { s.Kill(0) })
	return s.URLs[0]
}

// Run starts server i, with what it kept.
func (s *Stock) Run(i int) {
	s.t.Helper()
	bin, err := stockBinary()
	s.must(err)
	s.procs[i] = exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), bin.Fd()), "-c", filepath.Join(s.dir, fmt.Sprintf("n%d.conf", i)), "-l", filepath.Join(s.dir, fmt.Sprintf("n%d.log", i)))
	s.must(s.procs[i].Start())
	at := strings.TrimPrefix(s.URLs[i], "nats://")
	for limit := time.Now().Add(3 * patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", at)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(limit) {
			log, _ := os.ReadFile(filepath.Join(s.dir, fmt.Sprintf("n%d.log", i)))
			s.t.Fatalf("nats-server does not listen on %s: %v\n%s", at, err, log)
		}
	}
}

// Kill ends server i at once.
func (s *Stock) Kill(i int) {
	if p := s.procs[i]; p != nil {
		s.procs[i] = nil
		p.Process.Kill() //nolint:errcheck // it has ended, then
		p.Wait()         //nolint:errcheck // killed
	}
}

// Configure starts server i again, with its configuration changed.
func (s *Stock) Configure(i int, change func(string) string) {
	s.t.Helper()
	name := fmt.Sprintf("n%d.conf", i)
	raw, err := os.ReadFile(filepath.Join(s.dir, name))
	s.must(err)
	s.write(name, change(string(raw)))
	s.Kill(i)
	s.Run(i)
}

// OperatorKey writes a key of an operator to a file and returns its path.
func (s *Stock) OperatorKey(kp nkeys.KeyPair) string {
	seed, err := kp.Seed()
	s.must(err)
	return s.write(s.pub(kp)+".nk", string(seed)+"\n")
}

// Account makes an account of another tenant and returns the credentials of a user in it.
func (s *Stock) Account(fill func(*jwt.AccountClaims)) string {
	s.t.Helper()
	kp := s.pair(nkeys.PrefixByteAccount)
	s.Put(fill, jwt.NewAccountClaims(s.pub(kp)))
	return s.User(kp, func(*jwt.UserClaims) {})
}

// Put makes an account's claims, as fill changes them, those that hold, as the operator's own tools do.
func (s *Stock) Put(fill func(*jwt.AccountClaims), ac *jwt.AccountClaims) {
	s.t.Helper()
	fill(ac)
	tok, err := ac.Encode(s.signer)
	s.must(err)
	nc, err := nats.Connect(s.URLs[0], nats.UserCredentials(s.User(s.system, func(*jwt.UserClaims) {})))
	s.must(err)
	defer nc.Close()
	m, err := nc.Request("$SYS.REQ.CLAIMS.UPDATE", []byte(tok), patience)
	s.must(err)
	if !strings.Contains(string(m.Data), `"code":200`) {
		s.t.Fatalf("%s", m.Data)
	}
}

// System returns the credentials of a user of the system account.
func (s *Stock) System(fill func(*jwt.UserClaims)) string { return s.User(s.system, fill) }

// User returns the path of credentials of a new user in account.
func (s *Stock) User(account nkeys.KeyPair, fill func(*jwt.UserClaims)) string {
	s.t.Helper()
	user := s.pair(nkeys.PrefixByteUser)
	uc := jwt.NewUserClaims(s.pub(user))
	fill(uc)
	tok, err := uc.Encode(account)
	s.must(err)
	seed, err := user.Seed()
	s.must(err)
	text, err := jwt.FormatUserConfig(tok, seed)
	s.must(err)
	return s.write(s.pub(user)+".creds", string(text))
}

func (s *Stock) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	s.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

func (s *Stock) pair(prefix nkeys.PrefixByte) nkeys.KeyPair {
	s.t.Helper()
	kp, err := nkeys.CreatePair(prefix)
	s.must(err)
	return kp
}

func (s *Stock) pub(kp nkeys.KeyPair) string {
	s.t.Helper()
	pub, err := kp.PublicKey()
	s.must(err)
	return pub
}

func (s *Stock) must(err error) {
	if err != nil {
		s.t.Helper()
		s.t.Fatal(err)
	}
}
