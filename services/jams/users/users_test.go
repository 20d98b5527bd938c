package users

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jimlambrt/gldap"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/certs"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.yaml")
	if err := os.WriteFile(path, []byte("# who is here\nusers: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, Entry{Name: "alice", Password: HashPassword("s3cret"), DisplayName: "Alice"}); err != nil {
		t.Fatal(err)
	}
	if err := Add(path, Entry{Name: "alice", Password: HashPassword("x")}); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	f, err := OpenFile(path, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if u, err := f.Authenticate(ctx, "alice", "s3cret"); err != nil || u.DisplayName != "Alice" {
		t.Errorf("%+v, %v", u, err)
	}
	for _, no := range [][2]string{{"alice", "wrong"}, {"alice", ""}, {"bob", "s3cret"}} {
		if _, err := f.Authenticate(ctx, no[0], no[1]); !errors.Is(err, ErrCredentials) {
			t.Errorf("%v: %v", no, err)
		}
	}
	look := func() { f.checked = time.Time{} }

	// The file is read again; one that does not parse changes nothing.
	if err := SetPassword(path, "alice", HashPassword("another")); err != nil {
		t.Fatal(err)
	}
	look()
	if _, err := f.Authenticate(ctx, "alice", "another"); err != nil {
		t.Error(err)
	}
	good, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(good), "# who is here") {
		t.Errorf("%s, %v", good, err)
	}
	if err := os.WriteFile(path, []byte("users: [{nam"), 0o600); err != nil {
		t.Fatal(err)
	}
	look()
	if !f.Active("alice") {
		t.Error("a damaged file ends users")
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(good), "displayName: Alice", "disabled: true", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	look()
	if _, err := f.Authenticate(ctx, "alice", "another"); !errors.Is(err, ErrCredentials) || f.Active("alice") {
		t.Errorf("disabled: %v", err)
	}
	if err := SetPassword(path, "bob", HashPassword("x")); !errors.Is(err, ErrNoUser) {
		t.Error(err)
	}
}

// Whether there is a user can't be told from the time that a refusal takes.
func TestUnknownUserTakesAsLong(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	path := filepath.Join(t.TempDir(), "users.yaml")
	if err := Add(path, Entry{Name: "alice", Password: HashPassword("s3cret")}); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	took := func(name string) time.Duration {
		best := time.Hour
		for range 5 {
			began := time.Now()
			f.Authenticate(context.Background(), name, "wrong")
			best = min(best, time.Since(began))
		}
		return best
	}
	if a, b := took("alice"), took("nobody"); a > 3*b || b > 3*a {
		t.Errorf("%v with, %v without a user", a, b)
	}
}

const people = "ou=people,dc=example,dc=org"

// directory is an LDAP server that knows alice; it returns its URL and who certifies it.
func directory(t *testing.T) (string, *x509.CertPool) {
	t.Helper()
	dir := t.TempDir()
	conf, err := certs.Own(dir, []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "self.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	mux, err := gldap.NewMux()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(mux.Bind(func(w *gldap.ResponseWriter, r *gldap.Request) {
		resp := r.NewBindResponse(gldap.WithResponseCode(gldap.ResultInvalidCredentials))
		defer func() { w.Write(resp) }()
		m, err := r.GetSimpleBindMessage()
		if err == nil && (m.Password == "" || m.UserName == "uid=alice,"+people && m.Password == "s3cret") { // RFC 4513 §5.1.2
			resp.SetResultCode(gldap.ResultSuccess)
		}
		if err == nil && m.UserName == "uid=moved,"+people {
			resp.SetResultCode(gldap.ResultReferral)
		}
	}), mux.Search(func(w *gldap.ResponseWriter, r *gldap.Request) {
		w.Write(r.NewSearchResponseEntry("uid=alice,"+people, gldap.WithAttributes(map[string][]string{"cn": {"Alice A"}, "mail": {"alice@example.org"}})))
		w.Write(r.NewSearchDoneResponse(gldap.WithResponseCode(gldap.ResultSuccess)))
	}))
	if err != nil {
		t.Fatal(err)
	}
	srv, err := gldap.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Router(mux); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(addr, gldap.WithTLSConfig(conf)) }()
	t.Cleanup(func() {
		if err := srv.Stop(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	for end := time.Now().Add(5 * time.Second); !srv.Ready() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	return "ldaps://" + addr, roots
}

func TestDirectory(t *testing.T) {
	url, roots := directory(t)
	o := LDAPOptions{URL: url, UserDN: "uid={user}," + people, TLS: &tls.Config{RootCAs: roots}}
	l, err := NewLDAP(o, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if u, err := l.Authenticate(t.Context(), "alice", "s3cret"); err != nil || u != (User{"alice", "Alice A", "alice@example.org"}) {
		t.Errorf("%+v, %v", u, err)
	}
	for _, no := range [][2]string{{"alice", "wrong"}, {"alice", ""}, {"bob", "s3cret"}, {"alice,ou=x", "s3cret"}} {
		if _, err := l.Authenticate(t.Context(), no[0], no[1]); !errors.Is(err, ErrCredentials) {
			t.Errorf("%v: %v", no, err)
		}
	}
	// A directory that names another is not one to give passwords to.
	if _, err := l.Authenticate(t.Context(), "moved", "s3cret"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	o.TLS = nil // whose certificate is of nobody
	if l, err = NewLDAP(o, zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Authenticate(t.Context(), "alice", "s3cret"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	for _, bad := range []LDAPOptions{{URL: "http://x", UserDN: o.UserDN}, {URL: o.URL, UserDN: "uid=alice"}, {URL: o.URL, UserDN: "{user}"}, {}} {
		if _, err := NewLDAP(bad, zap.NewNop()); err == nil {
			t.Errorf("%+v", bad)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	const h = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA"
	f.Add([]byte("users:\n- name: alice\n  password: " + h + "\n"))
	f.Add([]byte(`{"users":[{"name":"bob","password":"` + h + `","disabled":true}]}`))
	f.Add([]byte("users: [{name: ../x, password: x}]"))
	f.Add([]byte("users:\n- name: a\n  password: $argon2id$v=19$m=99999999,t=1,p=1$AAAA$AAAA\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		by, err := parseFile(b)
		if err != nil && strings.Contains(err.Error(), "$argon2id$") {
			t.Errorf("a hash is in the error: %v", err)
		}
		for name, e := range by {
			if name == "" || len(e.hash.salt) < 8 || e.hash.memory > maxHashMemory {
				t.Errorf("%q: %+v", name, e)
			}
		}
	})
}
