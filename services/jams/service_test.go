package jams

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	"golang.org/x/crypto/argon2"

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/jami"
	client "github.com/parley-jami/parley/internal/jams"
	"github.com/parley-jami/parley/internal/names/namestest"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/jams/api"
	"github.com/parley-jami/parley/services/jams/store"
	"github.com/parley-jami/parley/services/jams/users"
)

// envData makes the test binary be an account server that is killed.
const envData = "PARLEYTEST_JAMS_DATA"

const testBits = 2048 // of keys: making larger ones takes seconds

func TestMain(m *testing.M) {
	if dir := os.Getenv(envData); dir != "" {
		log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(os.Stdout), zapcore.InfoLevel))
		s := &Service{env: env(dir, log), bits: testBits}
		fmt.Println("error", s.Run(context.Background()))
		os.Exit(1)
	}
	// A key that is being made is not waited for.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/parley-jami/parley/services/jams/api.(*Accounts).MakeKeys"))
}

func env(data string, log *zap.Logger) *host.Env {
	return &host.Env{Name: "jams", Version: "0.0.0-test", Config: &config.Config{Data: data, JAMS: config.JAMS{Listen: "127.0.0.1:0"}}, Log: log, Registry: prometheus.NewRegistry()}
}

// addUsers writes users whose password is "secret", with hashes that cost little.
func addUsers(t testing.TB, data string, names ...string) {
	t.Helper()
	salt := []byte("somesalt")
	b64 := base64.RawStdEncoding.EncodeToString
	addWith(t, data, "$argon2id$v=19$m=8,t=1,p=1$"+b64(salt)+"$"+b64(argon2.IDKey([]byte("secret"), salt, 1, 8, 1, 32)), names...)
}

func addWith(t testing.TB, data, h string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(data, "jams"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := users.Add(filepath.Join(data, "jams", fileUsers), users.Entry{Name: n, Password: h, DisplayName: strings.ToUpper(n), Email: n + "@example.org"}); err != nil {
			t.Fatal(err)
		}
	}
}

// lines is where a server says its address.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func address(log string) string {
	_, rest, _ := strings.Cut(log, `"address":"`)
	addr, _, _ := strings.Cut(rest, `"`)
	return addr
}

type server struct {
	*Service
	url   string
	log   *lines
	roots *x509.CertPool
	end   func() error
}

func start(t testing.TB, data string) *server {
	t.Helper()
	return startWith(t, data, testBits)
}

func startWith(t testing.TB, data string, bits int) *server {
	t.Helper()
	return launch(t, data, bits, nil)
}

func launch(t testing.TB, data string, bits int, words []byte) *server {
	t.Helper()
	return launchAt(t, data, "127.0.0.1:0", bits, words)
}

func launchAt(t testing.TB, data, addr string, bits int, words []byte) *server {
	t.Helper()
	s := &server{log: new(lines), roots: x509.NewCertPool()}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "m"}), zapcore.AddSync(s.log), zapcore.DebugLevel)
	e := env(data, zap.New(core))
	e.Config.JAMS.Listen = addr
	s.Service = &Service{env: e, bits: bits, words: words}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.end = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := s.end(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for end := time.Now().Add(time.Minute); !e.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not ready: %s", s.log)
		}
	}
	s.url = "https://" + address(s.log.String())
	s.roots = rootsOf(t, data)
	return s
}

func rootsOf(t testing.TB, data string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data, "jams", "tls", "self.pem"))
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(text)
	return p
}

func ask(t testing.TB, url string, roots *x509.CertPool) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Server: url, Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func asDevice(t testing.TB, c *client.Client, key crypto.Signer, e *client.Enrolment) *client.Session {
	t.Helper()
	d, err := c.AsDevice(key, e.Chain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// stolen says that it is a key and signs with another one.
type stolen struct {
	pub crypto.PublicKey
	crypto.Signer
}

func (s stolen) Public() crypto.PublicKey { return s.pub }

// What an account goes through: enrolled, used by two devices, one revoked, ended.
func TestAccount(t *testing.T) {
	data := t.TempDir()
	addUsers(t, data, "alice", "bob")
	s := start(t, data)
	c, ctx := ask(t, s.url, s.roots), t.Context()
	keys := namestest.Accounts(t, 4)
	enrol := func(user string, k *rsa.PrivateKey, name string) *client.Enrolment {
		t.Helper()
		e, err := c.Enrol(ctx, user, "secret", name, k)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	as := func(k *rsa.PrivateKey, e *client.Enrolment) *client.Session {
		return asDevice(t, c, k, e)
	}
	e1, e2 := enrol("Alice", keys[0], "laptop\x00\n"), enrol("alice", keys[1], "phone")
	if e1.Chain.JamiID != e2.Chain.JamiID || e1.Settings["Account.displayName"] != "ALICE" {
		t.Errorf("%+v, %+v", e1, e2)
	}
	if again := enrol("alice", keys[0], "laptop"); !bytes.Equal(again.PEM, e1.PEM) || again.Receipt.Text != e1.Receipt.Text {
		t.Error("the same device gets something else")
	}
	b := enrol("bob", keys[2], "desk")
	if _, err := c.Enrol(ctx, "bob", "secret", "stolen", keys[0]); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("another user's device: %v", err)
	}
	d1, d2 := as(keys[0], e1), as(keys[1], e2)
	other := client.Contacts{b.Chain.JamiID: {Added: 5, ConversationID: "c"}}
	if all, err := d1.Merge(ctx, other); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := d2.Contacts(ctx); err != nil || all[b.Chain.JamiID].Added != 5 {
		t.Errorf("%v, %v", all, err)
	}
	if list, err := d2.Devices(ctx); err != nil || len(list) != 2 || list[0].Alias != "laptop" && list[1].Alias != "laptop" {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := d1.Search(ctx, "BoB"); err != nil || len(list) != 1 || list[0].JamiID != b.Chain.JamiID.String() {
		t.Errorf("%v, %v", list, err)
	}

	// A device can't revoke; a user can, and not another's.
	if err := d1.Revoke(ctx, e2.Chain.DeviceID); !errors.Is(err, client.ErrForbidden) {
		t.Error(err)
	}
	if err := c.AsUser("bob", "secret").Revoke(ctx, e2.Chain.DeviceID); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
	alice := c.AsUser("alice", "secret")
	for range 2 {
		if err := alice.Revoke(ctx, e2.Chain.DeviceID); err != nil {
			t.Error(err)
		}
	}
	if _, err := d2.Devices(ctx); !errors.Is(err, client.ErrRevoked) {
		t.Errorf("a revoked device: %v", err)
	}
	if list, err := d1.Devices(ctx); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := c.Enrol(ctx, "alice", "secret", "phone", keys[1]); !errors.Is(err, client.ErrRevoked) {
		t.Errorf("a revoked device enrols: %v", err)
	}
	refused := func(e *client.Enrolment, path string, issuer *x509.Certificate) {
		t.Helper()
		var known trust.Revocations
		if _, err := known.Add(get(t, s, path), issuer); err != nil {
			t.Fatal(err)
		}
		rules := trust.Rules{Revoked: &known}
		if _, err := rules.Parse(e.PEM); !errors.Is(err, &trust.Error{Reason: trust.Revoked}) {
			t.Error(err)
		}
	}
	refused(e2, "/crl/"+e2.Chain.JamiID.String(), e2.Chain.Account)

	// The operator ends bob's account.
	op := client.NewOperator(client.OperatorSocket(s.dir))
	defer op.Close()
	if err := op.RevokeAccount(ctx, "bob"); err != nil {
		t.Fatal(err)
	}
	refused(b, "/crl/ca", b.Chain.Authorities[0])
	if _, err := as(keys[2], b).Devices(ctx); !errors.Is(err, client.ErrRevoked) {
		t.Error(err)
	}
	if err := c.AsUser("bob", "secret").Login(ctx); !errors.Is(err, client.ErrRevoked) {
		t.Error(err)
	}
	if _, err := c.Enrol(ctx, "bob", "secret", "x", keys[3]); !errors.Is(err, client.ErrRevoked) {
		t.Error(err)
	}

	// All of it is there after a restart; the client logs in again by itself.
	if err := s.end(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if strings.Contains(s.log.String(), "secret") || strings.Contains(s.log.String(), "PRIVATE") {
		t.Error("a secret is in the log")
	}
	s2 := start(t, data)
	c2 := ask(t, s2.url, s2.roots)
	d1 = asDevice(t, c2, keys[0], e1)
	if all, err := d1.Contacts(ctx); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if err := asDevice(t, c2, keys[1], e2).Login(ctx); !errors.Is(err, client.ErrRevoked) {
		t.Error(err)
	}
}

func get(t testing.TB, s *server, path string) []byte {
	t.Helper()
	status, body := raw(t, s, "GET", path, nil, nil)
	if status != 200 {
		t.Fatalf("%s: %d %s", path, status, body)
	}
	return body
}

func raw(t testing.TB, s *server, method, path string, header map[string]string, body []byte) (int, []byte) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequest(method, s.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, got
}

func TestHostile(t *testing.T) {
	data := t.TempDir()
	addUsers(t, data, "alice")
	s := start(t, data)
	c := ask(t, s.url, s.roots)
	e, err := c.Enrol(t.Context(), "alice", "secret", "laptop", namestest.Accounts(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	basic := func(user, password string) map[string]string {
		r, _ := http.NewRequest("GET", "/", nil)
		r.SetBasicAuth(user, password)
		return map[string]string{"Authorization": r.Header.Get("Authorization")}
	}
	good := basic("alice", "secret")
	// The client's certificate without its key is no login.
	thief := asDevice(t, c, stolen{e.Chain.Device.PublicKey, namestest.Accounts(t, 2)[1]}, e)
	if err := thief.Login(t.Context()); err == nil {
		t.Error("a certificate without its key logs in")
	}
	for _, tt := range []struct {
		what, method, path string
		header             map[string]string
		body               string
		want               int
	}{
		{"no login", "POST", "/api/auth/device", nil, "{}", 401},
		{"wrong password", "POST", "/api/auth/device", basic("alice", "wrong"), "{}", 401},
		{"no such user", "POST", "/api/auth/device", basic("nobody", "secret"), "{}", 401},
		{"empty password", "POST", "/api/auth/device", basic("alice", ""), "{}", 401},
		{"long password", "POST", "/api/login", basic("alice", strings.Repeat("x", 2000)), "{}", 401},
		{"a path as a user", "POST", "/api/login", basic("../../etc/passwd", "secret"), "{}", 401},
		{"no JSON", "POST", "/api/auth/device", good, "x", 400},
		{"no CSR", "POST", "/api/auth/device", good, "{}", 400},
		{"junk as CSR", "POST", "/api/auth/device", good, `{"csr":"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"}`, 400},
		{"huge", "POST", "/api/auth/device", good, strings.Repeat("x", client.MaxBody+1), 400},
		{"login without anything", "POST", "/api/login", nil, "{}", 401},
		{"no token", "GET", "/api/auth/devices", nil, "", 401},
		{"wrong token", "GET", "/api/auth/devices", map[string]string{"Authorization": "Bearer xyz"}, "", 401},
		{"long token", "GET", "/api/auth/devices", map[string]string{"Authorization": "Bearer " + strings.Repeat("x", 4000)}, "", 401},
		{"basic instead of a token", "GET", "/api/auth/devices", good, "", 401},
		{"revoke without a token", "DELETE", "/api/auth/device/" + e.Chain.DeviceID.String(), nil, "", 401},
		{"path escape", "GET", "/crl/..%2f..%2fetc%2fpasswd", nil, "", 400},
		{"no list", "GET", "/crl/" + e.Chain.JamiID.String(), nil, "", 404},
		{"other method", "PUT", "/api/login", nil, "", 405},
		{"elsewhere", "GET", "/users", nil, "", 404},
	} {
		if status, body := raw(t, s, tt.method, tt.path, tt.header, []byte(tt.body)); status != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.what, status, body, tt.want)
		}
	}
	// Unknown user and wrong password can't be told apart.
	_, a := raw(t, s, "POST", "/api/login", basic("alice", "wrong"), []byte("{}"))
	_, b := raw(t, s, "POST", "/api/login", basic("nobody", "wrong"), []byte("{}"))
	if !bytes.Equal(a, b) {
		t.Errorf("%s, %s", a, b)
	}
}

// Who guesses is slowed down, even from the server's own host, for each user.
func TestGuessing(t *testing.T) {
	data := t.TempDir()
	addUsers(t, data, "alice", "bob")
	s := start(t, data)
	c := ask(t, s.url, s.roots)
	limited := 0
	for range 14 {
		if err := c.AsUser("alice", "wrong").Login(t.Context()); errors.Is(err, client.ErrLimited) {
			limited++
			if wait, ok := client.RetryAfter(err); !ok || wait < time.Second || wait > time.Minute {
				t.Errorf("again in %s", wait)
			}
		} else if !errors.Is(err, client.ErrBadCredentials) {
			t.Error(err)
		}
	}
	if limited < 3 {
		t.Errorf("%d of 14 are held up", limited)
	}
	if err := c.AsUser("bob", "secret").Login(t.Context()); err != nil {
		t.Errorf("bob: %v", err)
	}
}

// The server is killed in the middle of enrolments, again and again. What it
// acknowledged is there afterwards: the device, its account and its receipt.
func TestKilledInTheMiddle(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	const rounds, perRound, atOnce = 6, 24, 6
	data := t.TempDir()
	var names []string
	for i := range rounds {
		names = append(names, fmt.Sprintf("user-%d", i))
	}
	addUsers(t, data, names...)
	keys := namestest.Accounts(t, rounds*perRound)
	var mu sync.Mutex
	acked := map[jami.LongID]*client.Enrolment{}
	var unclear atomic.Int32
	for round := range rounds {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envData+"="+data, "GORACE=atexit_sleep_ms=0")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		url := ""
		scan := bufio.NewScanner(out)
		for url == "" && scan.Scan() {
			if a := address(scan.Text()); a != "" {
				url = "https://" + a
			} else {
				t.Log(scan.Text())
			}
		}
		if url == "" {
			t.Fatal("the server ended")
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			for scan.Scan() { // or the pipe is full and it waits
			}
		}()
		c := ask(t, url, rootsOf(t, data))
		killAt := int32(1 + mrand.IntN(perRound-atOnce))
		var done atomic.Int32
		now := make(chan struct{})
		work := make(chan int, perRound)
		for i := range perRound {
			work <- i
		}
		close(work)
		var wg sync.WaitGroup
		for range atOnce {
			wg.Go(func() {
				for i := range work {
					e, err := c.Enrol(t.Context(), names[round], "secret", "device", keys[round*perRound+i])
					if err != nil {
						if !errors.Is(err, client.ErrUnavailable) {
							t.Error(err)
						}
						unclear.Add(1)
						continue
					}
					mu.Lock()
					acked[e.Chain.DeviceID] = e
					mu.Unlock()
					if done.Add(1) == killAt {
						close(now)
					}
				}
			})
		}
		<-now
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		<-drained
		cmd.Wait() // killed: an error
	}
	s := &Service{env: env(data, zaptest.NewLogger(t)), bits: testBits, dir: filepath.Join(data, "jams")}
	authority, err := s.authority(s.env.Config)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(filepath.Join(data, "jams", fileAccounts), api.KeyHash(authority.Cert), nil) // checks every record
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for id, e := range acked {
		d, err := st.Device(id)
		if err != nil || !bytes.Equal(d.Cert, e.Chain.Device.Raw) || d.Receipt != e.Receipt.Text {
			t.Errorf("%s was acknowledged and is lost: %v", id, err)
			continue
		}
		if u, err := st.User(d.User); err != nil || u.JamiID != e.Chain.JamiID {
			t.Errorf("%s: %v", d.User, err)
		}
	}
	_, n := st.Counts()
	t.Logf("%d kills: %d acknowledged, %d on disk, %d unanswered", rounds, len(acked), n, unclear.Load())
	if len(acked) < rounds || n < len(acked) || unclear.Load() == 0 {
		t.Errorf("acknowledged %d, on disk %d, unanswered %d", len(acked), n, unclear.Load())
	}
}

// Figures, with account keys as stock has them and passwords as they are stored:
// enrolments and logins over HTTPS, client and server on one machine.
func BenchmarkServer(b *testing.B) {
	data := b.TempDir()
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprintf("user-%d", i))
	}
	addWith(b, data, users.HashPassword("secret"), names...)
	s := startWith(b, data, jami.KeyBits)
	c := ask(b, s.url, s.roots)
	keys := namestest.Accounts(b, 1200)
	for _, n := range names { // their accounts are made before
		if _, err := c.Enrol(b.Context(), n, "secret", "first", keys[len(keys)-1]); err != nil && !errors.Is(err, client.ErrForbidden) {
			b.Fatal(err)
		}
	}
	first, err := c.Enrol(b.Context(), names[0], "secret", "d", keys[0])
	if err != nil {
		b.Fatal(err)
	}
	var next atomic.Int32
	b.Run("enrol", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				i := int(next.Add(1)) % len(keys)
				if _, err := c.Enrol(b.Context(), names[i%len(names)], "secret", "d", keys[i]); err != nil && !errors.Is(err, client.ErrForbidden) {
					b.Fatal(err)
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "enrolments/s")
	})
	b.Run("login-user", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if err := c.AsUser(names[i%len(names)], "secret").Login(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
	})
	b.Run("login-device", func(b *testing.B) { // with a TLS handshake each
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				d, err := c.AsDevice(keys[0], first.Chain)
				if err != nil {
					b.Fatal(err)
				}
				if err := d.Login(b.Context()); err != nil {
					b.Fatal(err)
				}
				d.Close()
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
	})
}

// What the operator sees of many accounts comes in pages.
func TestOperatorsList(t *testing.T) {
	data := t.TempDir()
	addUsers(t, data, "alice")
	s := start(t, data)
	ctx := t.Context()
	keys := namestest.Accounts(t, 4)
	c := ask(t, s.url, s.roots)
	var last *client.Enrolment
	for i, k := range keys[:3] {
		e, err := c.Enrol(ctx, "alice", "secret", fmt.Sprintf("device %d", i), k)
		if err != nil {
			t.Fatal(err)
		}
		last = e
	}
	op := client.NewOperator(client.OperatorSocket(s.dir))
	defer op.Close()
	before, err := op.Summary(ctx)
	if err != nil || before.Accounts != 1 || before.Devices != 3 {
		t.Errorf("%+v, %v", before, err)
	}
	if err := op.RevokeDevice(ctx, "alice", last.Chain.DeviceID); err != nil {
		t.Fatal(err)
	}
	after, err := op.Summary(ctx)
	if err != nil || after.Devices != 2 || after.Changes == before.Changes {
		t.Errorf("%+v, %v", after, err)
	}
	for _, tt := range []struct {
		query, after string
		limit, n     int
		next         string
	}{
		{"", "", 10, 1, ""}, {"ALI", "", 10, 1, ""}, {"example.org", "", 10, 1, ""}, {last.Chain.JamiID.String()[:7], "", 10, 1, ""},
		{last.Chain.DeviceID.String(), "", 10, 1, ""}, {strings.Repeat("0", 64), "", 10, 0, ""}, {"bob", "", 10, 0, ""}, {"", "alice", 10, 0, ""}, {"", "aaa", 10, 1, ""},
	} {
		p, err := op.Accounts(ctx, tt.query, tt.after, tt.limit)
		if err != nil || len(p.Accounts) != tt.n || p.Next != tt.next {
			t.Errorf("%+v: %+v, %v", tt, p, err)
		}
		if len(p.Accounts) == 1 && (len(p.Accounts[0].Devices) != 3 || p.Accounts[0].Devices[2].Revoked.IsZero()) {
			t.Errorf("%+v", p.Accounts[0])
		}
	}
	if err := op.RevokeDevice(ctx, "alice", jami.LongID{1}); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
	for _, name := range []string{"bob", "../alice", "a b"} {
		if err := op.RevokeAccount(ctx, name); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := s.end(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := op.Summary(ctx); !client.Absent(err) {
		t.Errorf("ended: %v", err)
	}
}
