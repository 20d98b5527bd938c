package sip

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

type codeError string

func (e codeError) Error() string { return string(e) }

func code(err error) string {
	if c, ok := errors.AsType[codeError](err); ok {
		return string(c)
	}
	return "internal"
}

// rooms is a room "main" without and a room "secret" with PIN 1234.
type rooms struct {
	mu        sync.Mutex
	in        map[string]Call
	sdps      chan string
	enter     error
	answer    string        // the room's SDP
	slow      time.Duration // to ask for a secret, or to enter
	asked     atomic.Int64  // how often a secret was
	unsure    atomic.Int64  // how often Confirm fails
	confirmed chan string
	left      chan string
	dumb      bool // says nothing to who leaves, or negotiates
	inChan    chan string
	again     []string // whom Again told of
}

func (r *rooms) call(id string) Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.in[id]
}

func newRooms() *rooms {
	return &rooms{in: map[string]Call{}, confirmed: make(chan string, 64), left: make(chan string, 64), inChan: make(chan string, 64), sdps: make(chan string, 64)}
}

func (r *rooms) Face(_ context.Context, room string) (Face, error) {
	return Face{Exists: room == "main" || room == "secret", Auth: room == "secret"}, nil
}

func (r *rooms) Secrets(_ context.Context, room, realm string) (string, string, error) {
	r.asked.Add(1)
	time.Sleep(r.slow)
	a1 := room + ":" + realm + ":1234"
	m, s := md5.Sum([]byte(a1)), sha256.Sum256([]byte(a1))
	return hex.EncodeToString(m[:]), hex.EncodeToString(s[:]), nil
}

func (r *rooms) Enter(ctx context.Context, c Call) (string, error) {
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(r.slow):
	}
	if r.enter != nil {
		return "", r.enter
	}
	r.mu.Lock()
	r.in[c.ID] = c
	r.mu.Unlock()
	r.inChan <- c.ID
	if r.answer != "" {
		return r.answer, nil
	}
	return "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\n", nil
}

func (r *rooms) Confirm(_ context.Context, _, id string) error {
	if r.unsure.Add(-1) >= 0 {
		return codeError("unavailable")
	}
	r.confirmed <- id
	return nil
}

// silent waits for the end of ctx where the room says nothing.
func (r *rooms) silent(ctx context.Context) error {
	r.mu.Lock()
	dumb := r.dumb
	r.mu.Unlock()
	if !dumb {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (r *rooms) Negotiate(ctx context.Context, c Change) (string, error) {
	if err := r.silent(ctx); err != nil {
		return "", err
	}
	r.sdps <- fmt.Sprintf("%v %s", c.Answer, c.SDP)
	return "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\n", nil
}

func (r *rooms) Again(_ context.Context, c Call) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again = append(r.again, c.ID)
	return nil
}

func (r *rooms) Leave(ctx context.Context, _, id, reason string) error {
	if err := r.silent(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.in, id)
	r.mu.Unlock()
	r.left <- id + " " + reason
	return nil
}

// start runs a server on loopback; the returned stop ends it and waits.
func start(t *testing.T, r Rooms, dir string) (*Server, *net.UDPAddr, func()) {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{UDP: udp, TCP: tcp, Dir: dir, Version: "test", SHA256: true, Rooms: r, Code: code, Log: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, udp.LocalAddr().(*net.UDPAddr), stop
}

// phone is a scripted user agent client over UDP.
type phone struct {
	t      *testing.T
	c      *net.UDPConn
	to     *net.UDPAddr
	call   string
	tag    string // the server's To tag
	seq    int
	branch string // more of the branch, for another way
	skip   string // Via of a request whose repetitions are passed over
}

func newPhone(t *testing.T, to *net.UDPAddr) *phone { return newPhoneAt(t, to, net.IPv4(127, 0, 0, 1)) }

func newPhoneAt(t *testing.T, to *net.UDPAddr, from net.IP) *phone {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: from})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &phone{t: t, c: c, to: to, call: fmt.Sprintf("call-%p@test", c), seq: 1}
}

func (p *phone) send(method, room, body string, headers ...string) {
	p.t.Helper()
	to := ""
	if p.tag != "" {
		to = ";tag=" + p.tag
	}
	m := fmt.Sprintf("%s sip:%s@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK-%s-%d-%s%s;rport\r\n"+
		"From: \"Ada \\L\" <sip:ada@127.0.0.1>;tag=ft\r\nTo: <sip:%s@127.0.0.1>%s\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContact: <sip:ada@%s>\r\n",
		method, room, p.c.LocalAddr(), p.call, p.seq, method, p.branch, room, to, p.call, p.seq, method, p.c.LocalAddr())
	for _, h := range headers {
		m += h + "\r\n"
	}
	if body != "" && header(m, "Content-Type") == "" {
		m += "Content-Type: application/sdp\r\n"
	}
	if header(m, "Max-Forwards") == "" {
		m += "Max-Forwards: 70\r\n"
	}
	m += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := p.c.WriteToUDP([]byte(m), p.to); err != nil {
		p.t.Fatal(err)
	}
}

// recv returns the next message that is not provisional.
func (p *phone) recv() string {
	p.t.Helper()
	buf := make([]byte, 65536)
	for {
		if err := p.c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			p.t.Fatal(err)
		}
		n, err := p.c.Read(buf)
		if err != nil {
			p.t.Fatal(err)
		}
		m := string(buf[:n])
		if !strings.HasPrefix(m, "SIP/2.0 1") && (p.skip == "" || header(m, "Via") != p.skip) {
			return m
		}
	}
}

func (p *phone) expect(status string) string {
	p.t.Helper()
	m := p.recv()
	if !strings.HasPrefix(m, "SIP/2.0 "+status) {
		p.t.Fatalf("got %q, want status %s", m, status)
	}
	return m
}

func header(m, name string) string {
	for _, l := range strings.Split(m, "\r\n") {
		if k, v, ok := strings.Cut(l, ": "); ok && strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

func (p *phone) answered(m string) {
	_, tag, _ := strings.Cut(header(m, "To"), "tag=")
	p.tag, _, _ = strings.Cut(tag, ";")
}

const offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"

func TestCall(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.send("INVITE", "main", offer)
	m := p.expect("200")
	p.answered(m)
	id := <-r.inChan
	if got := r.call(id).Name; got != "Ada L" {
		t.Errorf("name %q", got)
	}
	if by := r.call(id).Signalled; by.Over != "udp" || by.Remote == "" || by.TLS != "" {
		t.Errorf("signalled by %+v", by)
	}
	if !strings.HasPrefix(header(m, "Contact"), "<sip:main@127.0.0.1:") {
		t.Errorf("contact %q", header(m, "Contact"))
	}
	p.send("ACK", "main", "")
	p.seq++
	p.send("INVITE", "main", offer) // hold, resume
	p.expect("200")
	p.send("ACK", "main", "")
	p.seq++
	p.send("BYE", "main", "")
	p.expect("200")
	if got := <-r.left; got != id+" left" {
		t.Errorf("left: %q", got)
	}
	p.seq++
	p.send("BYE", "main", "")
	p.expect("481")
}

func TestRepeats2xxUntilACK(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.send("INVITE", "main", offer)
	first := p.expect("200")
	if again := p.expect("200"); again != first {
		t.Error("the repeated 200 differs")
	}
	p.answered(first)
	p.send("ACK", "main", "")
}

func TestLateOffer(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	p.send("INVITE", "main", "")
	p.answered(p.expect("200"))
	<-r.inChan
	p.send("ACK", "main", offer)
	if got := <-r.sdps; !strings.HasPrefix(got, "true ") {
		t.Errorf("negotiated %q", got)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, room, body string
		enter            error
		headers          []string
		want             string
	}{
		{"unknown room", "nowhere", offer, nil, nil, "404"},
		{"locked", "main", offer, codeError("locked"), nil, "403"},
		{"full", "main", offer, codeError("full"), nil, "486"},
		{"no codec", "main", offer, codeError("no_codec"), nil, "488"},
		{"media down", "main", offer, codeError("unavailable"), nil, "503"},
		{"our bug", "main", offer, errors.New("x"), nil, "500"},
		{"extension", "main", offer, nil, []string{"Require: 100rel"}, "420"},
		{"pin", "secret", offer, nil, nil, "401"},
		{"not SDP", "main", strings.Repeat("a", 5_000), codeError("bad_request"), nil, "400"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRooms()
			r.enter = tc.enter
			_, addr, _ := start(t, r, t.TempDir())
			p := newPhone(t, addr)
			p.send("INVITE", tc.room, tc.body, tc.headers...)
			p.expect(tc.want)
		})
	}
}

func TestDigest(t *testing.T) {
	for _, alg := range []string{"MD5", "SHA-256"} {
		t.Run(alg, func(t *testing.T) {
			r := newRooms()
			_, addr, _ := start(t, r, t.TempDir())
			p := newPhone(t, addr)
			p.send("INVITE", "secret", offer)
			m := p.expect("401")
			var ch *digest.Challenge
			for _, l := range strings.Split(m, "\r\n") {
				if v, ok := strings.CutPrefix(l, "WWW-Authenticate: "); ok && strings.Contains(v, alg) {
					c, err := digest.ParseChallenge(v)
					if err != nil {
						t.Fatal(err)
					}
					ch = c
				}
			}
			if ch == nil {
				t.Fatalf("no challenge for %s in %q", alg, m)
			}
			authorize := func(pin string) string {
				cred, err := digest.Digest(ch, digest.Options{Method: "INVITE", URI: "sip:secret@127.0.0.1", Username: "secret", Password: pin})
				if err != nil {
					t.Fatal(err)
				}
				return "Authorization: " + cred.String()
			}
			p.seq++
			p.send("INVITE", "secret", offer, authorize("9999"))
			p.expect("401")
			p.seq++
			p.send("INVITE", "secret", offer, authorize("1234"))
			p.answered(p.expect("200"))
			if c := r.call(<-r.inChan); !c.Verified {
				t.Error("not verified")
			}
			p.send("ACK", "secret", "")

			thief := newPhone(t, addr) // the same answer in another call
			thief.send("INVITE", "secret", offer, authorize("1234"))
			thief.expect("401")
		})
	}
}

func TestGuessesAreSlowed(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	statuses := map[string]int{}
	for range 2 * wrongPerMin {
		p := newPhone(t, addr)
		p.send("INVITE", "secret", offer)
		m := p.recv()
		if strings.HasPrefix(m, "SIP/2.0 401") {
			ch, err := digest.ParseChallenge(header(m, "WWW-Authenticate"))
			if err != nil {
				t.Fatal(err)
			}
			cred, err := digest.Digest(ch, digest.Options{Method: "INVITE", URI: "sip:secret@127.0.0.1", Username: "secret", Password: "0"})
			if err != nil {
				t.Fatal(err)
			}
			p.seq++
			p.send("INVITE", "secret", offer, "Authorization: "+cred.String())
			m = p.recv()
		}
		statuses[strings.Fields(m)[1]]++
	}
	if statuses["503"] == 0 || statuses["401"] != wrongPerMin {
		t.Errorf("answers %v", statuses)
	}
}

// challenge sends an INVITE without credentials and returns what it is asked.
func (p *phone) challenge(alg string) *digest.Challenge {
	p.t.Helper()
	p.send("INVITE", "secret", offer)
	for _, l := range strings.Split(p.expect("401"), "\r\n") {
		if v, ok := strings.CutPrefix(l, "WWW-Authenticate: "); ok && strings.Contains(v, alg) {
			c, err := digest.ParseChallenge(v)
			if err != nil {
				p.t.Fatal(err)
			}
			p.seq++
			return c
		}
	}
	p.t.Fatalf("no challenge for %s", alg)
	return nil
}

func (p *phone) authorize(ch *digest.Challenge, pin, uri string) string {
	p.t.Helper()
	cred, err := digest.Digest(ch, digest.Options{Method: "INVITE", URI: uri, Username: "secret", Password: pin})
	if err != nil {
		p.t.Fatal(err)
	}
	return "Authorization: " + cred.String()
}

// One INVITE is at most one try for each algorithm, however many answers it holds.
func TestManyAnswersInOneInvite(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	ch := p.challenge("MD5")
	const uri = "sip:secret@127.0.0.1"
	p.send("INVITE", "secret", offer, p.authorize(ch, "9999", uri), p.authorize(ch, "9998", uri), p.authorize(ch, "1234", uri))
	p.expect("400")
	if n := r.asked.Load(); n != 0 {
		t.Errorf("the secret was asked for %d times", n)
	}
}

// Tries that come at once are counted before the secret is there.
func TestGuessesAtOnce(t *testing.T) {
	r := newRooms()
	r.slow = 300 * time.Millisecond
	_, addr, _ := start(t, r, t.TempDir())
	phones := make([]*phone, 20)
	for i := range phones {
		phones[i] = newPhone(t, addr)
		ch := phones[i].challenge("MD5")
		phones[i].send("INVITE", "secret", offer, phones[i].authorize(ch, "9999", "sip:secret@127.0.0.1"))
	}
	for _, p := range phones {
		p.recv()
	}
	if n := r.asked.Load(); n > wrongPerMin {
		t.Errorf("%d tries were let through, %d are allowed", n, wrongPerMin)
	}
}

// Who knows the PIN is not slowed by using it.
func TestRightAnswersCostNothing(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	for range 2 * wrongPerMin {
		p := newPhone(t, addr)
		ch := p.challenge("SHA-256")
		p.send("INVITE", "secret", offer, p.authorize(ch, "1234", "sip:secret@127.0.0.1"))
		p.answered(p.expect("200"))
		p.send("ACK", "secret", "")
	}
}

func TestAnswerForAnotherURI(t *testing.T) {
	r := newRooms()
	_, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	ch := p.challenge("MD5")
	p.send("INVITE", "secret", offer, p.authorize(ch, "1234", "sip:main@127.0.0.1"))
	p.expect("401")
}

func TestNoncesAreBoundToTheSource(t *testing.T) {
	c, err := newChallenger(true, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	of := func(source string) string {
		req := sip.NewRequest(sip.INVITE, sip.Uri{})
		req.AppendHeader(sip.NewHeader("Call-ID", "x"))
		req.SetSource(source)
		return boundTo(req)
	}
	n := c.nonce(of("192.0.2.1:5060"))
	if !c.fresh(n, of("192.0.2.1:5062")) {
		t.Error("another port is the same caller")
	}
	if c.fresh(n, of("192.0.2.2:5060")) {
		t.Error("a nonce was taken from another address")
	}
}

func TestSourceKey(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:5060":              "192.0.2.1",
		"[::ffff:192.0.2.1]:5060":     "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:5060": "2001:db8:1:2::",
		"[fe80::1%eth0]:5060":         "fe80::",
	} {
		if got := sourceKey(in).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// A process that died without a word leaves its dialogs; the next one can still
// be told BYE, and can hang up.
func TestDialogsOutliveTheProcess(t *testing.T) {
	r := newRooms()
	dir, moved := t.TempDir(), t.TempDir()
	_, addr, stop := start(t, r, dir)
	p, q := newPhone(t, addr), newPhone(t, addr)
	ids := map[*phone]string{}
	for _, p := range []*phone{p, q} {
		p.send("INVITE", "main", offer)
		p.answered(p.expect("200"))
		ids[p] = <-r.inChan
		p.send("ACK", "main", "")
		p.seq++
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".new") {
			continue // the ACK has one written again
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(moved, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(moved, "sip-broken.json"), []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	stop()
	for range 2 {
		<-r.left
	}
	for _, p := range []*phone{p, q} { // the orderly stop hung up; that is not what is tested
		m := p.recv()
		if !strings.HasPrefix(m, "BYE ") {
			t.Fatalf("got %q, want BYE", m)
		}
		p.skip = header(m, "Via")
	}
	s, addr, _ := start(t, r, moved)
	if n := s.Calls(); n != 2 {
		t.Fatalf("%d dialogs read", n)
	}
	p.to, q.to = addr, addr
	p.send("BYE", "main", "")
	p.expect("200")
	if got := <-r.left; got != ids[p]+" left" {
		t.Errorf("left %q", got)
	}
	s.Hang(ids[q], "kicked")
	m := q.recv()
	if !strings.HasPrefix(m, "BYE sip:ada@") || header(m, "Call-ID") != q.call || !strings.Contains(header(m, "Reason"), "kicked") {
		t.Errorf("got %q", m)
	}
	if !strings.Contains(header(m, "From"), "tag="+q.tag) || !strings.Contains(header(m, "To"), "tag=ft") {
		t.Errorf("tags: From %q To %q", header(m, "From"), header(m, "To"))
	}
}

func TestJunkCostsLittle(t *testing.T) {
	r := newRooms()
	s, addr, _ := start(t, r, t.TempDir())
	p := newPhone(t, addr)
	junk := [][]byte{{0}, []byte(strings.Repeat("x", 1400)), []byte("INVITE sip:main@x SIP/2.0\r\n\r\n"), []byte("INVITE"), []byte("SIP/2.0 200 OK\r\n\r\n"),
		[]byte("INVITE sip:main@x SIP/2.0\r\nVia: \r\nFrom: x\r\nTo: y\r\nCSeq: a b\r\n\r\n"), []byte("\r\n\r\n")}
	for range 100 {
		for _, b := range junk {
			if _, err := p.c.WriteToUDP(b, addr); err != nil {
				t.Fatal(err)
			}
		}
	}
	q := newPhone(t, addr)
	answered := make(chan struct{})
	go func() { // the socket's buffer may be full of junk: repeat as a phone does
		for i := 0; i < 10; i++ {
			q.send("OPTIONS", "main", "")
			select {
			case <-answered:
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	q.expect("200")
	close(answered)
	if s.Junk() == 0 {
		t.Error("no junk was counted")
	}
}

func TestBuckets(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBuckets(1, 2, func() time.Time { return now })
	a, o := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for i := range 2 {
		if !b.take(a, 1) {
			t.Errorf("take %d of a burst of 2 was refused", i+1)
		}
	}
	if b.take(a, 1) {
		t.Error("a burst of 2 gave 3")
	}
	if !b.take(o, 1) {
		t.Error("one address used up another's burst")
	}
	now = now.Add(time.Second)
	if !b.take(a, 1) || b.take(a, 1) {
		t.Error("refill")
	}
}

func FuzzLooksLikeSIP(f *testing.F) {
	for _, s := range []string{"", "\r\n\r\n", "INVITE sip:a@b SIP/2.0\r\n", "SIP/2.0 200 OK\r\n", "\x00\x01", "GET / HTTP/1.1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if looksLikeSIP(b) && len(b) > 4 && !strings.Contains(string(b[:min(len(b), 512)]), "SIP/2.0") {
			t.Errorf("%q", b)
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	c, err := newChallenger(true, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`Digest username="secret", realm="parley", nonce="x", uri="sip:a", response="y"`)
	f.Add(`Digest realm="parley", nonce="` + c.nonce("id") + `", response=""`)
	f.Add(`Digest username="secret", realm="parley", nonce="` + c.nonce("id") + `", uri="sip:secret@a", response="y"`)
	f.Add("Basic abc")
	f.Fuzz(func(t *testing.T, v string) {
		cred, err := digest.ParseCredentials(v)
		if err == nil && c.check(cred, "INVITE", "id", "secret", "00", "00") == verdictRight {
			t.Errorf("accepted %q", v)
		}
	})
}

func FuzzDialogFile(f *testing.F) {
	f.Add([]byte(`{"id":"sip-1","call_id":"c","local_tag":"t"}`))
	f.Add([]byte(`{`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "sip-1.json")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if d, err := readDialog(path); err == nil && d.ID != "sip-1" {
			t.Errorf("read %+v", d.record)
		}
	})
}

// Old phones give up at a challenge that they don't know, even beside one that they do.
func TestOnlyMD5IsAskedForUnlessTold(t *testing.T) {
	for _, both := range []bool{false, true} {
		c, err := newChallenger(both, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(c.challenges("x", false), "\n")
		if !strings.Contains(got, "MD5") || strings.Contains(got, "SHA-256") != both || both && strings.Index(got, "MD5") < strings.Index(got, "SHA-256") {
			t.Errorf("both %t: %s", both, got)
		}
	}
}
