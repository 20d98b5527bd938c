//go:build interop

package users

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/parley-jami/parley/internal/certs"
)

// slapd is an OpenLDAP server with a directory of its own.
type slapd struct {
	ldap, ldaps string // addresses
	roots       *x509.CertPool
	cmd         *exec.Cmd
}

const ldif = `
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: uid=alice,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: alice
cn: Alice A
sn: A
displayName: Alice of the directory
mail: alice@example.org
userPassword: s3cret

dn: uid=bob,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
userPassword: s3cret

dn: uid=nopassword,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: nopassword
cn: None
sn: N

dn: uid=moved,ou=people,dc=example,dc=org
objectClass: referral
objectClass: extensibleObject
uid: moved
ref: ldap://192.0.2.1/uid=moved,ou=people,dc=example,dc=org
`

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startSlapd starts one; more are lines of its configuration.
func startSlapd(t *testing.T, withTLS bool, more string) *slapd {
	t.Helper()
	dir := t.TempDir()
	if _, err := certs.Own(dir, []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	pem := filepath.Join(dir, "self.pem")
	text, err := os.ReadFile(pem)
	if err != nil {
		t.Fatal(err)
	}
	s := &slapd{ldap: freePort(t), ldaps: freePort(t), roots: x509.NewCertPool()}
	s.roots.AppendCertsFromPEM(text)
	conf := "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\ninclude /etc/ldap/schema/inetorgperson.schema\n" +
		"pidfile " + dir + "/slapd.pid\nargsfile " + dir + "/slapd.args\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n"
	urls := "ldap://" + s.ldap
	if withTLS {
		conf += "TLSCertificateFile " + pem + "\nTLSCertificateKeyFile " + pem + "\n"
		urls += " ldaps://" + s.ldaps
	}
	// People read their own entry and nobody else's.
	conf += more + "\ndatabase mdb\nsuffix dc=example,dc=org\nrootdn cn=admin,dc=example,dc=org\ndirectory " + dir + "/db\n" +
		"access to attrs=userPassword by anonymous auth by * none\naccess to * by self read by * none\n"
	file := filepath.Join(dir, "slapd.conf")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "db"), 0o700), os.WriteFile(file, []byte(conf), 0o600)); err != nil {
		t.Fatal(err)
	}
	add := exec.Command("/usr/sbin/slapadd", "-f", file)
	add.Stdin = strings.NewReader(ldif)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	out := new(bytes.Buffer)
	s.cmd = exec.Command("/usr/sbin/slapd", "-f", file, "-h", urls, "-d", "0")
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.cmd.Process.Kill() // an error: it has ended
		s.cmd.Wait()         // killed: an error
		if t.Failed() {
			t.Logf("slapd said:\n%s", out)
		}
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.ldap); err == nil {
			c.Close()
			return s
		}
		if time.Now().After(end) {
			t.Fatal("slapd does not start")
		}
	}
}

// source asks the server at this URL; its log is in the buffer.
func (s *slapd) source(t *testing.T, url string, edit func(*LDAPOptions)) (*LDAP, *bytes.Buffer) {
	t.Helper()
	o := LDAPOptions{URL: url, UserDN: "uid={user}," + people, TLS: &tls.Config{RootCAs: s.roots}}
	if edit != nil {
		edit(&o)
	}
	log := new(bytes.Buffer)
	l, err := NewLDAP(o, zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "m"}), zapcore.AddSync(log), zapcore.DebugLevel)))
	if err != nil {
		t.Fatal(err)
	}
	return l, log
}

var alice = User{"alice", "Alice of the directory", "alice@example.org"}

// A password gets to OpenLDAP encrypted or not at all, unless the operator says so.
func TestSlapdTransports(t *testing.T) {
	safe := startSlapd(t, true, "")
	strict := startSlapd(t, true, "security simple_bind=128")
	open := startSlapd(t, false, "")
	plain := func(o *LDAPOptions) { o.Plain = true }
	stranger := func(o *LDAPOptions) { o.TLS = &tls.Config{RootCAs: x509.NewCertPool()} }
	otherHost := func(o *LDAPOptions) { o.TLS.ServerName = "directory.example.org" }
	for _, tt := range []struct {
		what  string
		s     *slapd
		tls   bool // ldaps
		edit  func(*LDAPOptions)
		want  error
		clear bool // the password is seen on the way
	}{
		{"StartTLS", safe, false, nil, nil, false},
		{"StartTLS where it is demanded", strict, false, nil, nil, false},
		{"ldaps", safe, true, nil, nil, false},
		{"StartTLS, not certified", safe, false, stranger, ErrUnavailable, false},
		{"ldaps, not certified", safe, true, stranger, ErrUnavailable, false},
		{"StartTLS, certified for another host", safe, false, otherHost, ErrUnavailable, false},
		{"a server without TLS", open, false, nil, ErrUnavailable, false},
		{"a server without TLS, allowed", open, false, plain, nil, true},
		{"plain where TLS is demanded", strict, false, plain, ErrUnavailable, true},
	} {
		addr, scheme := tt.s.ldap, "ldap://"
		if tt.tls {
			addr, scheme = tt.s.ldaps, "ldaps://"
		}
		p := startProxy(t, addr, 0)
		l, log := tt.s.source(t, scheme+p.addr, tt.edit)
		u, err := l.Authenticate(t.Context(), "alice", "s3cret")
		if !errors.Is(err, tt.want) || err == nil && u != alice {
			t.Errorf("%s: %+v, %v\n%s", tt.what, u, err, log)
		}
		if p.saw("s3cret") != tt.clear {
			t.Errorf("%s: the password travels in clear: %t", tt.what, !tt.clear)
		}
		if strings.Contains(log.String(), "s3cret") {
			t.Errorf("%s: the password is in the log", tt.what)
		}
	}
}

func TestSlapdRefuses(t *testing.T) {
	s := startSlapd(t, true, "")
	l, log := s.source(t, "ldaps://"+s.ldaps, nil)
	refused := func(name, password string) {
		t.Helper()
		if u, err := l.Authenticate(t.Context(), name, password); !errors.Is(err, ErrCredentials) {
			t.Errorf("%q: %+v, %v", name, u, err)
		}
	}
	refused("alice", "wrong")
	refused("alice", "")
	refused("alice", "s3cret\x00")
	refused("alice", strings.Repeat("x", 256))
	refused("nobody", "s3cret")
	refused("nopassword", "s3cret")
	refused("nopassword", "")
	// What could be somebody else's DN, or a filter, if it were not escaped.
	for _, name := range []string{"alice,ou=people,dc=example,dc=org", "alice,ou=people,dc=example,dc=org\x00", "bob+uid=alice", "*", "ali*", "alice)(uid=*", `al\69ce`, `\61lice`,
		"alice\x00", " alice", "alice ", "ALICE", "#616c696365", "", "{user}", "alice\n", "älice", "uid=alice", ".", "../alice"} {
		refused(name, "s3cret")
	}
	if log.Len() > 0 {
		t.Errorf("a refusal is no news: %s", log)
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if u, err := l.Authenticate(t.Context(), []string{"alice", "bob"}[i%2], "s3cret"); err != nil || u.Name != []string{"alice", "bob"}[i%2] {
				t.Errorf("%+v, %v", u, err)
			}
		})
	}
	wg.Wait()
}

// Entries that are elsewhere: OpenLDAP refuses to bind as them, and nobody there is
// asked.
func TestSlapdRefersElsewhere(t *testing.T) {
	s := startSlapd(t, true, "referral ldap://192.0.2.1/")
	l, log := s.source(t, "ldap://"+s.ldap, func(o *LDAPOptions) { o.UserDN = "uid={user},dc=elsewhere,dc=org" })
	here, _ := s.source(t, "ldap://"+s.ldap, nil)
	for user, l := range map[string]*LDAP{"alice": l, "moved": here} {
		began := time.Now()
		if _, err := l.Authenticate(t.Context(), user, "s3cret"); !errors.Is(err, ErrCredentials) {
			t.Errorf("%s: %v\n%s", user, err, log)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: it was followed", took)
		}
	}
}

// Servers that are gone, that stop in the middle, and that are slow.
func TestSlapdTrouble(t *testing.T) {
	s := startSlapd(t, true, "")
	const limit = time.Second
	short := func(o *LDAPOptions) { o.Timeout = limit }
	fails := func(what, url string, ctx context.Context) {
		t.Helper()
		l, log := s.source(t, url, short)
		began := time.Now()
		if _, err := l.Authenticate(ctx, "alice", "s3cret"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v\n%s", what, err, log)
		}
		if took := time.Since(began); took > 3*limit {
			t.Errorf("%s: it took %s", what, took)
		}
	}
	fails("nobody listens", "ldap://"+freePort(t), t.Context())
	for _, scheme := range []string{"ldap", "ldaps"} {
		addr := s.ldap
		if scheme == "ldaps" {
			addr = s.ldaps
		}
		// It falls silent before its first answer, in the handshake, before the answer to
		// the password, in the middle of the entry.
		whole := startProxy(t, addr, 0)
		l, _ := s.source(t, scheme+"://"+whole.addr, nil)
		if _, err := l.Authenticate(t.Context(), "alice", "s3cret"); err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			n := 1 + whole.answered()*i/6
			fails(fmt.Sprintf("%s, nothing after %d of %d bytes", scheme, n, whole.answered()), scheme+"://"+startProxy(t, addr, n).addr, t.Context())
		}
	}
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(s.cmd.Process.Pid, nil, syscall.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
	fails("it hangs", "ldap://"+s.ldap, t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), limit/4)
	defer cancel()
	fails("the request ends before", "ldaps://"+s.ldaps, ctx)
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l, _ := s.source(t, "ldap://"+s.ldap, nil)
	if u, err := l.Authenticate(t.Context(), "alice", "s3cret"); err != nil || u != alice {
		t.Errorf("it is back: %+v, %v", u, err)
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.cmd.Wait() // killed: an error
	fails("it has died", "ldap://"+s.ldap, t.Context())
}

// proxy passes on what comes and remembers what went to the server.
type proxy struct {
	addr string
	back atomic.Int64 // bytes of answers
	mu   sync.Mutex
	sent bytes.Buffer
}

func (p *proxy) answered() int { return int(p.back.Load()) }

func (p *proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent.Write(b)
}

func (p *proxy) saw(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Contains(p.sent.Bytes(), []byte(text))
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// startProxy stands before a server. After stall bytes of the server's answers it
// passes no more on; 0 is never.
func startProxy(t *testing.T, to string, stall int) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			wg.Go(func() {
				defer s.Close()
				io.Copy(io.MultiWriter(p, s), c) // what is answered was seen; an error: one side has ended
			})
			wg.Go(func() {
				if stall > 0 {
					io.CopyN(c, s, int64(stall))
					io.Copy(io.Discard, s)
				} else {
					io.Copy(c, io.TeeReader(s, counter{&p.back}))
				}
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return p
}
