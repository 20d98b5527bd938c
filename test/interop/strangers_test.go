//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

// size of an attack, less than the whole measure so that a run takes minutes:
// JUNK_MB=1024 HALF_OPEN=10000 for that.
func size(t *testing.T, name string, n int) int {
	t.Helper()
	if v := os.Getenv(name); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestJunkOnEveryPort(t *testing.T) {
	n := startNode(t)
	d := n.duo()
	junk := make([]byte, 1<<20)
	if _, err := rand.Read(junk); err != nil {
		t.Fatal(err)
	}
	total := size(t, "JUNK_MB", 100) << 20
	rss := func() (sum int64) {
		for _, p := range n.status().Processes {
			sum += p.RSSBytes
		}
		return sum
	}
	before := rss()
	ports := []struct {
		name, network string
		off           int
		prefix        string
	}{
		{"media", "udp", 100, ""}, {"rtp", "udp", 102, ""}, {"rtp with an RTP header", "udp", 102, "\x80\x00"}, {"rtcp", "udp", 103, ""},
		{"stun", "udp", 100, "\x00\x01\x00\x08\x21\x12\xa4\x42"}, {"dtls", "udp", 100, "\x16\xfe\xff"}, {"sip", "udp", 2, ""},
		{"sip-like", "udp", 2, "INVITE sip:main@x SIP/2.0\r\nVia: "},
		{"http", "tcp", 0, ""}, {"http post", "tcp", 0, "POST /whip/main HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"},
		{"https", "tcp", 1, ""}, {"sip tcp", "tcp", 2, ""}, {"sip tcp, like SIP", "tcp", 2, "INVITE sip:main@x SIP/2.0\r\nContent-Length: 999999999\r\n\r\n"},
		{"sip tls", "tcp", 3, ""}, {"bus", "tcp", 24, ""}, {"bus, like NATS", "tcp", 24, "CONNECT {\"jwt\":\""}, {"admin", "tcp", 25, ""}, {"overlay", "tcp", 26, ""},
	}
	for _, p := range ports {
		addr := fmt.Sprintf("127.0.0.1:%d", n.base+p.off)
		sent, began, took := 0, time.Now(), time.Duration(0)
		heard := d.during("junk to "+p.name, func() {
			sent = throw(t, p.network, addr, []byte(p.prefix), junk, total)
			took = time.Since(began)
		})
		fmt.Printf("bad input: %4d MB of junk to %-22s in %v%s\n", sent>>20, p.name, took.Round(time.Millisecond), heard)
	}
	n.saw(`"packets dropped"`)
	n.saw(`"datagrams that are not SIP dropped"`)
	after := rss()
	fmt.Printf("bad input: memory of all processes %d MB before, %d MB after\n", before>>20, after>>20)
	if after > before+300<<20 {
		t.Errorf("memory grew from %d to %d MB", before>>20, after>>20)
	}
}

// throw sends total bytes of junk; a TCP peer that closes is dialled again.
func throw(t *testing.T, network, addr string, prefix, junk []byte, total int) (sent int) {
	t.Helper()
	if network == "udp" {
		c, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for at := 0; sent < total; at = (at + 1200) % (len(junk) - 1400) {
			m, err := c.Write(append(append([]byte(nil), prefix...), junk[at:at+1300]...))
			if err != nil {
				continue // a full queue or ICMP: the next one
			}
			sent += m
		}
		return sent
	}
	// What a server closes at once would take for ever: the refusals count as sent.
	for tries := 0; sent < total && tries < 500; tries++ {
		c, err := net.DialTimeout("tcp", addr, 2*time.Second)
		if err != nil {
			continue
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		m, err := c.Write(prefix)
		sent += m
		for err == nil && sent < total {
			m, err = c.Write(junk)
			sent += m
		}
		c.Close()
	}
	return sent
}

func TestWrongPINsAreSlowed(t *testing.T) {
	n := startNode(t)
	right := n.roomWithPIN()
	d := n.duo()
	post := func(source, pin string) int {
		req, err := http.NewRequest("POST", fmt.Sprintf("http://%s:%d/whip/secret?name=x", source, n.base), strings.NewReader("v=0\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/sdp")
		req.Header.Set("Authorization", "Bearer "+pin)
		tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).DialContext(ctx, network, addr)
		}}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr, Timeout: 30 * time.Second}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode
	}
	answers := map[int]int{}
	began := time.Now()
	heard := d.during("1000 wrong PINs", func() {
		for i := range 1000 {
			answers[post("127.0.0.1", fmt.Sprintf("%04d", i))]++
		}
	})
	fmt.Printf("bad input: 1000 wrong PINs in %v: answers %v%s\n", time.Since(began).Round(time.Millisecond), answers, heard)
	if answers[429]+answers[503] < 900 {
		t.Errorf("guesses are not slowed: %v", answers)
	}
	n.saw(`"join refused"`)
	// From another address the right PIN is good at once; the offer is not, which
	// is found after the PIN.
	if code := post("127.0.0.2", right); code == 401 || code == 403 || code == 429 || code == 503 {
		t.Errorf("another address is answered %d", code)
	}
}

func TestHalfOpenJoins(t *testing.T) {
	n := startNode(t)
	d := n.duo()
	many := size(t, "HALF_OPEN", 2000)
	offer, err := os.ReadFile("testdata/offer.sdp")
	if err != nil {
		t.Fatal(err)
	}
	var codes sync.Map
	var wg sync.WaitGroup
	work := make(chan int)
	began := time.Now()
	for w := range 32 {
		wg.Go(func() {
			src := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(w+1))} // many strangers
			tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return (&net.Dialer{LocalAddr: src}).DialContext(ctx, network, addr)
			}}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr, Timeout: 30 * time.Second}
			for i := range work {
				res, err := c.Post(fmt.Sprintf("http://127.0.0.1:%d/whip/main?name=half%d", n.base, i), "application/sdp", bytes.NewReader(offer))
				code := -1
				if err == nil {
					code = res.StatusCode
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				v, _ := codes.LoadOrStore(code, new(atomic.Int64))
				v.(*atomic.Int64).Add(1)
				if err != nil && code == -1 {
					t.Logf("join: %v", err)
				}
			}
		})
	}
	var took time.Duration
	heard := d.during("half-open joins", func() {
		for i := range many {
			work <- i
		}
		close(work)
		wg.Wait()
		took = time.Since(began)
	})
	fmt.Printf("bad input: %d joins that never connect, in %v:", many, took.Round(time.Millisecond))
	codes.Range(func(k, v any) bool { fmt.Printf(" %v: %d", k, v.(*atomic.Int64).Load()); return true })
	fmt.Println(heard)
	n.wait("the half-open joins are gone", 60*time.Second, func() bool { return n.participants() == 2 })
	n.saw(`"reason":"lost"`)
}

func TestBotThatFloods(t *testing.T) {
	n := startNode(t)
	d := n.duo()
	creds := filepath.Join(t.TempDir(), "flood.creds")
	n.parley("bot", "create", "flood", "--room", "main", "--allow", "speak", "--out", creds)
	room, err := parley.Connect(parley.Options{Creds: creds, URL: n.busURL()})
	if err != nil {
		t.Fatal(err)
	}
	defer room.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := room.Join(ctx, "flood"); err != nil {
		t.Fatal(err)
	}
	raw, err := nats.Connect(n.busURL(), nats.UserCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	cpu := func() float64 {
		for _, p := range n.status().Processes {
			if p.Name == "media" {
				return p.CPUS
			}
		}
		return 0
	}
	frame := make([]byte, 1920) // silence, so that the others are heard
	began, used := time.Now(), cpu()
	sent, refused := 0, 0
	var took float64
	heard := d.during("a bot that floods", func() {
		for time.Since(began) < 5*time.Second {
			for range 100 {
				m := nats.NewMsg(contract.AudioSay.Subject(room.Account, "main", "flood"))
				m.Header.Set(contract.HeaderFormat, contract.FormatPCM48)
				m.Data = frame
				if err := raw.PublishMsg(m); err != nil {
					refused++
				}
				sent++
			}
			time.Sleep(time.Until(began.Add(time.Duration(sent) * 100 * time.Microsecond)))
		}
		took = time.Since(began).Seconds()
		used = (cpu() - used) / took
	})
	n.saw("frames of a bot refused")
	fmt.Printf("bad input: a bot said %.0f frames a second for 5 s (%d refused by its own client); media used %.2f CPU s/s%s\n", float64(sent)/took, refused, used, heard)
	if _, err := parley.Call(ctx, room, contract.RoomLeave, contract.Leave{}); err != nil {
		t.Error(err)
	}
}

func TestFullDisk(t *testing.T) {
	n := startNode(t)
	n.stop()
	small := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", small).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", small).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	if out, err := exec.Command("cp", "-a", n.data+"/.", small).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v %s", err, out)
	}
	m := newNode(t, small)
	m.start()
	t.Cleanup(m.stop)
	d := m.duo()
	chat := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, err := d.bot.room.Chat(ctx, "is there room?")
		return err
	}
	if err := chat(); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(small, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	heard := d.during("a full disk", func() {
		for err == nil {
			_, err = fill.Write(make([]byte, 4096))
		}
		fill.Close()
		err = chat()
		time.Sleep(2 * time.Second)
	})
	fmt.Printf("bad input: with a full disk the chat says: %v%s\n", err, heard)
	if err == nil || !strings.Contains(err.Error(), "storage") {
		t.Errorf("with a full disk the chat said %v", err)
	}
	m.saw("no space left on device")
	if err := os.Remove(filepath.Join(small, "fill")); err != nil {
		t.Fatal(err)
	}
	m.wait("the chat works again", 10*time.Second, func() bool { return chat() == nil })
}

// What is refused at the start, in words that help.
func TestRefusedStarts(t *testing.T) {
	n := startNode(t)
	try := func(data string, env ...string) string {
		cmd := exec.Command(n.bin, "up", "--data", data)
		cmd.Env = append(n.env(), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("started: %s", out)
		}
		return string(out)
	}
	out := try(n.data)
	fmt.Printf("bad input: data directory in use: %s\n", lastLine(out))
	if !strings.Contains(out, strconv.Itoa(n.cmd.Process.Pid)) {
		t.Errorf("the refusal does not name the process: %s", out)
	}
	out = try(t.TempDir())
	fmt.Printf("bad input: port in use: %s\n", lastLine(out))
	if !strings.Contains(out, ".listen") {
		t.Errorf("the refusal does not name the setting: %s", out)
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
