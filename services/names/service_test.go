package names

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net"
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

	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/config"
	"github.com/parley-jami/parley/internal/dbfile"
	client "github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/names/namestest"
	"github.com/parley-jami/parley/services/names/store"
)

// envData makes the test binary be a name server that is killed.
const envData = "PARLEYTEST_NAMES_DATA"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envData); dir != "" {
		if err := serveForDeath(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func serveForDeath(dir string) error {
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(os.Stdout), zapcore.InfoLevel))
	r, err := New(env(dir, config.Names{Listen: "127.0.0.1:0"}, log.Named("")))
	if err != nil {
		return err
	}
	return r.Run(context.Background())
}

func env(data string, c config.Names, log *zap.Logger) *host.Env {
	return &host.Env{Name: "names", Version: "0.0.0-test", Config: &config.Config{Data: data, Names: c}, Log: log, Registry: prometheus.NewRegistry()}
}

// server is a service inside the test.
type server struct {
	*Service
	addr string
	end  func() error
}

func start(t *testing.T, c config.Names) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Listen = l.Addr().String()
	l.Close()
	e := env(t.TempDir(), c, zaptest.NewLogger(t, zaptest.Level(zapcore.WarnLevel)))
	r, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	s := &server{Service: r.(*Service), addr: c.Listen}
	s.end = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := s.end(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	for end := time.Now().Add(10 * time.Second); !e.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not ready")
		}
	}
	return s
}

func ask(t testing.TB, url string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Server: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// The client of this project and the server of this project.
func TestClientAndServer(t *testing.T) {
	s := start(t, config.Names{})
	ctx := t.Context()
	keys := namestest.Accounts(t, 2)
	c := ask(t, "http://"+s.addr)
	if err := c.Register(ctx, "Alice", "00", keys[0]); err != nil {
		t.Fatal(err)
	}
	if err := c.Register(ctx, "alice", "00", keys[1]); !errors.Is(err, client.ErrTaken) {
		t.Error(err)
	}
	fresh := ask(t, "http://"+s.addr)
	r, err := fresh.Lookup(ctx, "ALICE")
	if err != nil || !r.Verified() {
		t.Errorf("%+v, %v", r, err)
	}
	if back, err := fresh.Reverse(ctx, r.Addr); err != nil || back.Name != "alice" || !back.Verified() {
		t.Errorf("%+v, %v", back, err)
	}
	if err := s.end(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, fileNames)); err != nil {
		t.Error(err)
	}
	if err := c.Register(ctx, "bobby", "00", keys[1]); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}

// The backup is there after a start, and a server whose file is gone does not begin
// anew beside it.
func TestBackupIsNotLost(t *testing.T) {
	s := start(t, config.Names{})
	c := ask(t, "http://"+s.addr)
	if err := c.Register(t.Context(), "alice", "00", namestest.Accounts(t, 1)[0]); err != nil {
		t.Fatal(err)
	}
	s.end()
	file, backup := filepath.Join(s.dir, fileNames), filepath.Join(s.dir, fileBackup)
	run := func(ctx context.Context) error {
		return (&Service{env: env(s.env.Config.Data, config.Names{Listen: "127.0.0.1:0"}, zap.NewNop())}).Run(ctx)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(backup); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no backup")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context()); err == nil || !strings.Contains(err.Error(), fileBackup) {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("a new file was made")
	}
	if err := os.Rename(backup, file); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if r, err := st.ByName("alice"); err != nil || r.Verify() != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// What was asked before the end is answered.
func TestGracefulEnd(t *testing.T) {
	s := start(t, config.Names{})
	r, err := client.Sign("alice", namestest.Accounts(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	body := r.Registration("00")
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /name/alice HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:100])
	time.Sleep(50 * time.Millisecond) // the request is being read
	ended := make(chan error, 1)
	go func() { ended <- s.end() }()
	time.Sleep(50 * time.Millisecond)
	if _, err := conn.Write(body[100:]); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%+v, %v", resp, err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Who sends half a request, or byte by byte, is cut off.
func TestSlowRequests(t *testing.T) {
	s := start(t, config.Names{})
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /name/alice HTTP/1.1\r\nHost: h\r\n")
	conn.SetReadDeadline(time.Now().Add(comeTime + 5*time.Second))
	began := time.Now()
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// pair writes a certificate for 127.0.0.1.
func pair(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"key.pem": {Type: "PRIVATE KEY", Bytes: key}, "cert.pem": {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	first := pair(t, dir, "first")
	s := start(t, config.Names{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")})
	roots := x509.NewCertPool()
	roots.AddCert(first)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer tr.CloseIdleConnections()
	c, err := client.New(client.Options{Server: "https://" + s.addr, Transport: tr})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Register(t.Context(), "alice", "00", namestest.Accounts(t, 1)[0]); err != nil {
		t.Error(err)
	}
	if _, err := ask(t, "https://"+s.addr).Lookup(t.Context(), "alice"); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("a certificate of nobody: %v", err)
	}
	e := env(t.TempDir(), config.Names{Listen: s.addr, Cert: "nowhere", Key: "nowhere"}, zap.NewNop())
	if err := (&Service{env: e}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "names.cert") {
		t.Error(err)
	}
}

func TestListenTaken(t *testing.T) {
	s := start(t, config.Names{})
	e := env(t.TempDir(), config.Names{Listen: s.addr}, zap.NewNop())
	if err := (&Service{env: e}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "names.listen") || e.Ready() {
		t.Errorf("%v, ready %v", err, e.Ready())
	}
	e = env(s.env.Config.Data, config.Names{Listen: "127.0.0.1:0", Data: s.dir}, zap.NewNop())
	if err := (&Service{env: e}).Run(t.Context()); !errors.Is(err, dbfile.ErrInUse) {
		t.Error(err)
	}
}

// child is a server in a process of its own.
type child struct {
	cmd *exec.Cmd
	url string
}

func startChild(t testing.TB, dir string) *child {
	t.Helper()
	c := &child{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), envData+"="+dir, "GORACE=atexit_sleep_ms=0")
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), `"address":"`); ok {
			addr, _, _ := strings.Cut(rest, `"`)
			c.url = "http://" + addr
			break
		}
		t.Log(lines.Text())
	}
	if c.url == "" {
		t.Fatal("the server ended")
	}
	go func() {
		for lines.Scan() { // or the pipe is full and it waits
		}
	}()
	return c
}

func (c *child) kill(t testing.TB) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.cmd.Wait() // killed: an error
}

// The server is killed in the middle of registrations, again and again. What it
// acknowledged is there afterwards, whole; what it did not is whole or not there.
func TestKilledInTheMiddle(t *testing.T) {
	const rounds, perRound, atOnce = 8, 60, 16
	dir := t.TempDir()
	want := make([]client.Record, rounds*perRound)
	for i, k := range namestest.Accounts(t, len(want)) {
		var err error
		if want[i], err = client.Sign(fmt.Sprintf("name-%d", i), k); err != nil {
			t.Fatal(err)
		}
	}
	acked := map[string]bool{}
	var mu sync.Mutex
	var unclear atomic.Int32
	for round := range rounds {
		c := startChild(t, dir)
		hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}}
		killAt := int32(1 + mrand.IntN(perRound-atOnce)) // that many are acknowledged
		var done atomic.Int32
		now := make(chan struct{})
		work := make(chan int, perRound)
		for i := range perRound {
			work <- round*perRound + i
		}
		close(work)
		var wg sync.WaitGroup
		for range atOnce {
			wg.Go(func() {
				for i := range work {
					r := &want[i]
					resp, err := hc.Post(c.url+"/name/"+r.Name, "application/json", bytes.NewReader(r.Registration("00")))
					if err != nil {
						unclear.Add(1)
						continue
					}
					if resp.Body.Close(); resp.StatusCode != 200 {
						t.Errorf("%s: %d", r.Name, resp.StatusCode)
						continue
					}
					mu.Lock()
					acked[r.Name] = true
					mu.Unlock()
					if done.Add(1) == killAt {
						close(now)
					}
				}
			})
		}
		<-now
		c.kill(t)
		wg.Wait()
		hc.CloseIdleConnections()
	}
	st, err := store.Open(filepath.Join(dir, "names", fileNames)) // checks every record
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	found := 0
	for i := range want {
		name := want[i].Name
		r, err := st.ByName(name)
		switch {
		case errors.Is(err, store.ErrNotFound):
			if acked[name] {
				t.Errorf("%s was acknowledged and is lost", name)
			}
			continue
		case err != nil:
			t.Errorf("%s: %v", name, err)
			continue
		}
		found++
		if r.Verify() != nil || r.Addr != want[i].Addr || !bytes.Equal(r.Signature, want[i].Signature) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if back, err := st.ByAddr(r.Addr); err != nil || back.Name != name {
			t.Errorf("%s: %+v, %v", name, back, err)
		}
	}
	t.Logf("%d kills: %d acknowledged, %d found, %d unanswered", rounds, len(acked), found, unclear.Load())
	if len(acked) == 0 || unclear.Load() == 0 || st.Count() != found {
		t.Errorf("acknowledged %d, unanswered %d, found %d, counted %d", len(acked), unclear.Load(), found, st.Count())
	}
}

// Figures, with keys as stock accounts have them: registrations and look-ups over
// HTTP, client and server on one machine.
func BenchmarkServer(b *testing.B) {
	keys := (&namestest.Pool{Bits: 4096}).Accounts(b, 600)
	bodies := make([][]byte, len(keys))
	for i, k := range keys {
		r, err := client.Sign(fmt.Sprintf("name-%d", i), k)
		if err != nil {
			b.Fatal(err)
		}
		bodies[i] = r.Registration("00")
	}
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr}
	all := func(n, atOnce int, do func(i int) (*http.Response, error)) time.Duration {
		var next atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for range atOnce {
			wg.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= n {
						return
					}
					resp, err := do(i)
					if err != nil || resp.StatusCode != 200 {
						b.Errorf("%v, %v", resp, err)
						return
					}
					resp.Body.Close()
				}
			})
		}
		wg.Wait()
		return time.Since(began)
	}
	for range b.N {
		dir := b.TempDir()
		c := startChild(b, dir)
		post := func(i int) (*http.Response, error) {
			return hc.Post(fmt.Sprintf("%s/name/name-%d", c.url, i), "application/json", bytes.NewReader(bodies[i]))
		}
		one := all(100, 1, post)
		many := all(500, 64, func(i int) (*http.Response, error) { return post(100 + i) })
		const looks = 20_000
		look := all(looks, 16, func(i int) (*http.Response, error) { return hc.Get(fmt.Sprintf("%s/name/name-%d", c.url, i%600)) })
		b.ReportMetric(100/one.Seconds(), "registrations/s-one")
		b.ReportMetric(500/many.Seconds(), "registrations/s-64")
		b.ReportMetric(looks/look.Seconds(), "lookups/s")
		c.kill(b)
		st, err := os.Stat(filepath.Join(dir, "names", fileNames))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(st.Size())/600, "file-B/name")
	}
}
