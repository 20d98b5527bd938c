package push

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// got is a request that a push service got.
type got struct {
	path   string
	header http.Header
	body   []byte
}

// service is a push service that answers what it is told to.
type service struct {
	*httptest.Server
	got chan got

	mu      sync.Mutex
	answers []func(http.ResponseWriter)
}

func newService(t *testing.T, answers ...func(http.ResponseWriter)) *service {
	t.Helper()
	s := &service{got: make(chan got, 100), answers: answers}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.got <- got{r.URL.Path, r.Header, b}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.answers) > 0 {
			answer := s.answers[0]
			s.answers = s.answers[1:]
			answer(w)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) next(t *testing.T) got {
	t.Helper()
	select {
	case g := <-s.got:
		return g
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is pushed")
		return got{}
	}
}

func status(code int, retryAfter string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(code)
	}
}

func start(t *testing.T, o Options) *Pusher {
	t.Helper()
	o.Log = zaptest.NewLogger(t)
	p := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

func idle(t *testing.T, p *Pusher) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); p.Waiting() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d wait", p.Waiting())
		}
	}
}

func vapid(t *testing.T) *VAPID {
	t.Helper()
	v, err := OpenVAPID(filepath.Join(t.TempDir(), "vapid.key"), "ops@example.org")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.Counter.GetValue()
}

const notice = `{"key":"ab","to":"c","s":"s","t":"1"}`

// Each platform gets what it expects.
func TestPlatforms(t *testing.T) {
	s := newService(t)
	v := vapid(t)
	p := start(t, Options{AllowPrivate: true, Gorush: s.URL + "/gorush/", Secret: []byte("secret"), VAPID: v})
	browser := newBrowser(t)
	sub, err := json.Marshal(map[string]any{"endpoint": s.URL + "/web", "keys": map[string]string{"p256dh": browser.p256dh(), "auth": browser.secret()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		m     Message
		path  string
		check func(t *testing.T, g got)
	}{
		{Message{Target: Target{Platform: "unifiedpush", Token: s.URL + "/up"}, Urgent: true}, "/up", func(t *testing.T, g got) {
			if string(g.body) != notice || g.header.Get("TTL") != "86400" || g.header.Get("Urgency") != "high" || g.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s %v", g.body, g.header)
			}
		}},
		{Message{Target: Target{Platform: "unifiedpush", Token: s.URL + "/up", Topic: browser.p256dh() + "|" + browser.secret()}}, "/up", func(t *testing.T, g got) {
			if text := browser.open(t, g); text != notice {
				t.Errorf("opened %q", text)
			}
		}},
		{Message{Target: Target{Platform: "webpush", Token: string(sub)}}, "/web", func(t *testing.T, g got) {
			if text := browser.open(t, g); text != notice || g.header.Get("Urgency") != "normal" || g.header.Get("TTL") != "86400" {
				t.Errorf("opened %q, %v", text, g.header)
			}
			checkVAPID(t, v, g, s.URL)
		}},
		{Message{Target: Target{Platform: "webhook", Token: s.URL + "/hook"}}, "/hook", func(t *testing.T, g got) {
			sig := g.header.Get("X-Parley-Signature")
			var at int64
			var mac string
			if _, err := fmt.Sscanf(sig, "t=%d,v1=%s", &at, &mac); err != nil {
				t.Fatalf("%q: %v", sig, err)
			}
			if want := Signature([]byte("secret"), []byte(notice), time.Unix(at, 0)); sig != want || time.Since(time.Unix(at, 0)) > time.Minute || len(mac) != 64 {
				t.Errorf("%q, want %q", sig, want)
			}
		}},
		{Message{Target: Target{Platform: "android", Token: "tok", Topic: "cx.ring"}, Urgent: true}, "/gorush/api/push", func(t *testing.T, g got) {
			checkJSON(t, g.body, `{"notifications":[{"tokens":["tok"],"platform":2,"priority":"high","data":`+notice+`,"time_to_live":86400}]}`)
		}},
		{Message{Target: Target{Platform: "ios", Token: "tok", Topic: "cx.ring"}}, "/gorush/api/push", func(t *testing.T, g got) {
			checkJSON(t, g.body, `{"notifications":[{"tokens":["tok"],"platform":1,"priority":"normal","data":`+notice+`,"topic":"cx.ring","expiration":0,"push_type":"background","content_available":true}]}`)
		}},
		{Message{Target: Target{Platform: "ios", Token: "tok", Topic: "cx.ring"}, Timeout: true}, "/gorush/api/push", func(t *testing.T, g got) {
			checkJSON(t, g.body, `{"notifications":[{"tokens":["tok"],"platform":1,"priority":"high","data":`+notice+`,"topic":"cx.ring","expiration":0,"push_type":"alert","mutable_content":true,"alert":{"title":"Jami"}}]}`)
		}},
	} {
		tt.m.Data = []byte(notice)
		if err := p.Send(tt.m); err != nil {
			t.Fatalf("%s: %v", tt.m.Platform, err)
		}
		g := s.next(t)
		if g.path != tt.path {
			t.Errorf("%s: %s", tt.m.Platform, g.path)
		}
		tt.check(t, g)
	}
	idle(t, p)
	for _, x := range []string{"unifiedpush", "webpush", "webhook", "android", "ios"} {
		if n := counted(t, p.o.Metrics.sent[x]); n == 0 {
			t.Errorf("%s: none counted", x)
		}
	}
}

// checkJSON compares, but for expiration, which is a time.
func checkJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	norm := func(b []byte) string {
		var m struct{ Notifications []map[string]any }
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		for _, n := range m.Notifications {
			if at, ok := n["expiration"].(float64); ok && at != 0 {
				if d := time.Until(time.Unix(int64(at), 0)); d < 23*time.Hour || d > 25*time.Hour {
					t.Errorf("expires in %v", d)
				}
				n["expiration"] = 0
			}
		}
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if g, w := norm(got), norm([]byte(want)); g != w {
		t.Errorf("got %s, want %s", g, w)
	}
}

// browser is the other side of RFC 8291, written for the test alone.
type browser struct {
	key  *ecdh.PrivateKey
	auth []byte
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{key: k, auth: make([]byte, authSize)}
	if _, err := rand.Read(b.auth); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browser) p256dh() string {
	return base64.RawURLEncoding.EncodeToString(b.key.PublicKey().Bytes())
}
func (b *browser) secret() string { return base64.RawURLEncoding.EncodeToString(b.auth) }

// open decrypts a push (RFC 8188 §2, RFC 8291 §3.4).
func (b *browser) open(t *testing.T, g got) string {
	t.Helper()
	if g.header.Get("Content-Encoding") != "aes128gcm" || len(g.body) < 21+65 {
		t.Fatalf("%d bytes, %v", len(g.body), g.header)
	}
	salt, n := g.body[:16], int(g.body[20])
	sender, err := ecdh.P256().NewPublicKey(g.body[21 : 21+n])
	if err != nil {
		t.Fatal(err)
	}
	shared, err := b.key.ECDH(sender)
	if err != nil {
		t.Fatal(err)
	}
	key := func(secret, salt []byte, info string, size int) []byte {
		k, err := hkdf.Key(sha256.New, secret, salt, info, size)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ikm := key(shared, b.auth, "WebPush: info\x00"+string(b.key.PublicKey().Bytes())+string(sender.Bytes()), 32)
	block, err := aes.NewCipher(key(ikm, salt, "Content-Encoding: aes128gcm\x00", 16))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := gcm.Open(nil, key(ikm, salt, "Content-Encoding: nonce\x00", 12), g.body[21+n:], nil)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimRight(string(clear), "\x00")
	return strings.TrimSuffix(text, "\x02")
}

// checkVAPID verifies the header as a push service does (RFC 8292).
func checkVAPID(t *testing.T, v *VAPID, g got, url string) {
	t.Helper()
	var token, key string
	for part := range strings.SplitSeq(strings.TrimPrefix(g.header.Get("Authorization"), "vapid "), ",") {
		name, x, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			token = x
		case "k":
			key = x
		}
	}
	if key != v.Public {
		t.Errorf("key %q, want %q", key, v.Public)
	}
	point, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return pub, nil }, jwt.WithValidMethods([]string{"ES256"}), jwt.WithExpirationRequired(), jwt.WithAudience(url)); err != nil {
		t.Error(err)
	}
	if claims["sub"] != "mailto:ops@example.org" {
		t.Errorf("%v", claims)
	}
}

// What fails is tried again, after the time that the service asks for; what is gone ends;
// what is refused is not tried again.
func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		answers               []func(http.ResponseWriter)
		tries                 int
		sent, failed, retried float64
		gone                  bool
	}{
		{"taken", []func(http.ResponseWriter){status(201, "")}, 1, 1, 0, 0, false},
		{"busy for a second", []func(http.ResponseWriter){status(429, "1"), status(200, "")}, 2, 1, 0, 1, false},
		{"broken", []func(http.ResponseWriter){status(500, ""), status(503, "0"), status(200, "")}, 3, 1, 0, 2, false},
		{"busy for too long", []func(http.ResponseWriter){status(503, "3600")}, 1, 0, 1, 1, false},
		{"gone", []func(http.ResponseWriter){status(410, "")}, 1, 0, 1, 0, true},
		{"not found", []func(http.ResponseWriter){status(404, "")}, 1, 0, 1, 0, true},
		{"refused", []func(http.ResponseWriter){status(403, "")}, 1, 0, 1, 0, false},
		{"elsewhere", []func(http.ResponseWriter){func(w http.ResponseWriter) {
			w.Header().Set("Location", "/other")
			w.WriteHeader(307)
		}}, 1, 0, 1, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, tt.answers...)
			gone := make(chan Target, 1)
			p := start(t, Options{AllowPrivate: true, Gone: func(t Target) { gone <- t }})
			target := Target{Platform: "unifiedpush", Token: s.URL + "/up"}
			if err := p.Send(Message{Target: target, Data: []byte(notice)}); err != nil {
				t.Fatal(err)
			}
			for range tt.tries {
				s.next(t)
			}
			idle(t, p)
			select {
			case g := <-s.got:
				t.Errorf("tried once more: %+v", g)
			case g := <-gone:
				if !tt.gone || g != target {
					t.Errorf("gone: %+v", g)
				}
			default:
				if tt.gone {
					t.Error("not told that it is gone")
				}
			}
			m := p.o.Metrics
			if a, b, c := counted(t, m.sent["unifiedpush"]), counted(t, m.failed["unifiedpush"]), counted(t, m.retried["unifiedpush"]); a != tt.sent || b != tt.failed || c != tt.retried {
				t.Errorf("sent %v, failed %v, retried %v", a, b, c)
			}
		})
	}
}

// A stranger can't have the node ask what only the node reaches.
func TestGuard(t *testing.T) {
	s := newService(t)
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	p := start(t, Options{VAPID: vapid(t), Secret: []byte("s")})
	key := newBrowser(t)
	for _, endpoint := range []string{
		s.URL, "http://push.example.org/up", "https://127.0.0.1/", "https://[::1]/", "https://10.1.2.3/", "https://192.168.1.1/", "https://172.16.0.1/",
		"https://169.254.169.254/latest/meta-data", "https://[fe80::1]/", "https://[fd00::1]/", "https://0.0.0.0/", "https://[::]/", "https://100.64.0.1/",
		"https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://224.0.0.1/", "https://255.255.255.255/",
		"https://user:pass@push.example.org/", "ftp://push.example.org/", "file:///etc/passwd", "//push.example.org/", "https://", "https:///x", "", "\x00", "nonsense",
	} {
		for _, target := range []Target{
			{Platform: "unifiedpush", Token: endpoint}, {Platform: "webhook", Token: endpoint},
			{Platform: "webpush", Token: fmt.Sprintf(`{"endpoint":%q,"keys":{"p256dh":%q,"auth":%q}}`, endpoint, key.p256dh(), key.secret())},
		} {
			if err := p.Check(target); !errors.Is(err, ErrEndpoint) {
				t.Errorf("%s %q: %v", target.Platform, endpoint, err)
			}
			if err := p.Send(Message{Target: target}); !errors.Is(err, ErrEndpoint) {
				t.Errorf("%s %q: %v", target.Platform, endpoint, err)
			}
		}
	}
	// A name is checked when it is resolved.
	gone := make(chan Target, 1)
	p = start(t, Options{Gone: func(t Target) { gone <- t }})
	named := Target{Platform: "unifiedpush", Token: "https://localhost" + port + "/up"}
	if err := p.Send(Message{Target: named}); err != nil {
		t.Fatal(err)
	}
	select {
	case g := <-gone:
		if g != named {
			t.Errorf("%+v", g)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a name of this host was not refused")
	}
	select {
	case g := <-s.got:
		t.Errorf("asked: %+v", g)
	default:
	}
	for _, ip := range []string{"https://1.1.1.1/", "https://[2606:4700::1]/", "https://push.example.org:8443/up?token=1"} {
		if err := p.Check(Target{Platform: "unifiedpush", Token: ip}); err != nil {
			t.Errorf("%s: %v", ip, err)
		}
	}
}

// A platform that is not set up is refused, and it is said what is.
func TestUnsupported(t *testing.T) {
	p := start(t, Options{})
	for platform, words := range map[string]string{"android": "dht.push_gorush", "ios": "dht.push_gorush", "webhook": "dht.push_webhook_secret_file", "bogus": "unifiedpush"} {
		if err := p.Check(Target{Platform: platform, Token: "tok"}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", platform, err)
		}
	}
	b := newBrowser(t)
	for _, keys := range []string{"|", "x|y", b.p256dh() + "|short", "AAAA|" + b.secret()} {
		if err := p.Check(Target{Platform: "unifiedpush", Token: "https://push.example.org/", Topic: keys}); !errors.Is(err, ErrEndpoint) {
			t.Errorf("%q: %v", keys, err)
		}
	}
}

// An endpoint gets so many and no more, and the others their share.
func TestBounds(t *testing.T) {
	s := newService(t)
	p := start(t, Options{AllowPrivate: true})
	now := time.Now()
	p.now = func() time.Time { return now } // no time passes
	const n = endBurst + 20
	for range n {
		if err := p.Send(Message{Target: Target{Platform: "unifiedpush", Token: s.URL + "/a"}, Data: []byte(notice)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Send(Message{Target: Target{Platform: "unifiedpush", Token: s.URL + "/b"}, Data: []byte(notice)}); err != nil {
		t.Fatal(err)
	}
	paths := map[string]int{}
	for range endBurst + 1 {
		paths[s.next(t).path]++
	}
	if paths["/a"] != endBurst || paths["/b"] != 1 {
		t.Errorf("%v", paths)
	}
	var err error
	sent := 0
	for ; err == nil && sent <= maxWaiting; sent++ {
		err = p.Send(Message{Target: Target{Platform: "unifiedpush", Token: s.URL + "/a"}})
	}
	if !errors.Is(err, ErrFull) || sent < maxWaiting-n {
		t.Errorf("after %d: %v", sent, err)
	}
}

// The key stays the same; a damaged one is not replaced.
func TestVAPIDKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vapid.key")
	a, err := OpenVAPID(path, "x")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := OpenVAPID(path, "x"); err != nil || *a != *b {
		t.Errorf("%v, %v", b, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenVAPID(path, "x"); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "nonsense" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestMetricsBeginAtZero(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := NewMetrics(reg); err != nil {
		t.Fatal(err)
	}
	all, err := reg.Gather()
	n := 0
	for _, f := range all {
		n += len(f.Metric)
	}
	if err != nil || n != 3*len(platforms)+1 {
		t.Errorf("%d, %v", n, err)
	}
}

func FuzzWebPushToken(f *testing.F) {
	f.Add(`{"endpoint":"https://push.example.org/x","keys":{"p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg"}}`, "a|b")
	f.Add("https://push.example.org/up", "")
	p := New(Options{VAPID: &VAPID{}, Secret: []byte("s")})
	f.Fuzz(func(t *testing.T, token, topic string) {
		for _, platform := range platforms {
			if err := p.Check(Target{Platform: platform, Token: token, Topic: topic}); err != nil && !errors.Is(err, ErrEndpoint) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s: %v", platform, err)
			}
		}
	})
}
