package request

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// stock is the ice_msg of a stock daemon 13.7.
const stock = "36bc14f9\n7c8f7c2665eef4e1567c7d31\n" +
	"Ha4d0002 1 TCP 2130706431 10.77.0.2 49503 typ host tcptype passive\n" +
	"Ha4d0002 1 TCP 2130706175 10.77.0.2 9 typ host tcptype active\n" +
	"H922b3619 1 TCP 2130706431 fe80::3c19:5eff:feff:9c10 37945 typ host tcptype passive\n" +
	"H922b3619 1 TCP 2130706175 fe80::3c19:5eff:feff:9c10 9 typ host tcptype active\n" +
	"Sa4d0002 1 TCP 1694498303 10.77.0.2 9 typ srflx tcptype active\n"

func message(t testing.TB) *Message {
	t.Helper()
	d, err := ParseDescription(stock)
	if err != nil {
		t.Fatal(err)
	}
	return &Message{ID: 8668740827168197, ConnType: "audioCall", ICE: d}
}

func TestTextOfStock(t *testing.T) {
	m := message(t)
	text, err := m.ICE.Text()
	if err != nil || text != stock {
		t.Errorf("%v\n%s", err, text)
	}
	if len(m.ICE.Candidates) != 5 || m.ICE.Candidates[4] != (Candidate{"Sa4d0002", 1694498303, netip.MustParseAddrPort("10.77.0.2:9"), ServerReflexive, Active}) {
		t.Errorf("%+v", m.ICE.Candidates)
	}
}

func TestMessageRoundTrip(t *testing.T) {
	m := message(t)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, []byte("\x84\xa2id\xcf")) {
		t.Errorf("keys in another order: %x", b[:16])
	}
	got, err := Parse(b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%v\n%+v", err, got)
	}
	for _, id := range []uint64{0, MaxID + 1} {
		if _, err := (&Message{ID: id, ICE: m.ICE}).Pack(); !errors.Is(err, ErrMalformed) {
			t.Errorf("id %d: %v", id, err)
		}
	}
}

// udpText is udp of a node.
const udpText = "5fb2a1c0\n0123456789abcdef01234567\n" +
	"Ha4d0002 1 UDP 2130706431 10.77.0.2 4225 typ host\n" +
	"H922b3619 1 UDP 2130706175 2001:db8::1 4225 typ host\n" +
	"Sc0000201 1 UDP 1694498815 192.0.2.1 31225 typ srflx\n"

// TestUDPIsOneMoreKey: a request that offers UDP has stock's bytes, and after them what stock
// passes over.
func TestUDPIsOneMoreKey(t *testing.T) {
	m := message(t)
	plain, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	u, err := ParseUDP(udpText)
	if err != nil || len(u.Candidates) != 3 {
		t.Fatalf("%+v, %v", u, err)
	}
	if text, err := u.Text(); err != nil || text != udpText {
		t.Errorf("%v\n%s", err, text)
	}
	m.UDP = &u
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if b[0] != 0x85 || !bytes.HasPrefix(b[1:], plain[1:]) || !bytes.HasPrefix(b[len(plain):], []byte("\xa3udp")) {
		t.Errorf("%q\n%q", plain, b)
	}
	got, err := Parse(b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%v\n%+v", err, got)
	}
	for _, bad := range []string{"", "ufragufr\n", strings.Repeat("x\n", maxLines+1)} {
		m.UDP = &Description{Ufrag: "ufragufr", Pwd: "pwdpwdpwdpwdpwdpwdpwdpwd"}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.Index(b, []byte("\xa3udp")) + 4
		b = append(b[:i:i], append([]byte{0xda, byte(len(bad) >> 8), byte(len(bad))}, bad...)...)
		if m, err := Parse(b); err == nil {
			t.Errorf("udp %.20q: %+v", bad, m)
		}
	}
}

func TestWhatIsNoUDPCandidate(t *testing.T) {
	good := "Ha4d0002 1 UDP 2130706431 10.77.0.2 49503 typ host"
	for line, n := range map[string]int{good: 1, good + " tcptype passive": 0, strings.Replace(good, "UDP", "TCP", 1): 0,
		strings.Replace(good, " 1 ", " 2 ", 1): 0, strings.Replace(good, "typ host", "typ guest", 1): 0, strings.TrimSuffix(good, " host"): 0} {
		d, err := ParseUDP("ufragufr\npwdpwdpwdpwdpwdpwdpwdpwd\n" + line + "\n")
		if err != nil || len(d.Candidates) != n {
			t.Errorf("%q: %d candidates, %v", line, len(d.Candidates), err)
		}
	}
}

func TestWhatIsNoCandidate(t *testing.T) {
	const head = "ufragufr\npwdpwdpwdpwdpwdpwdpwdpwd\n"
	good := "Ha4d0002 1 TCP 2130706431 10.77.0.2 49503 typ host tcptype passive"
	for _, c := range []struct {
		line string
		n    int
	}{
		{good, 1},
		{good + "\r", 1},
		{strings.Replace(good, "TCP", "UDP", 1), 0},
		{strings.Replace(good, "TCP", "tcp", 1), 0},
		{strings.Replace(good, " 1 ", " 2 ", 1), 0},
		{strings.Replace(good, "10.77.0.2", "host.example", 1), 0},
		{strings.Replace(good, "10.77.0.2", "fe80::1%eth0", 1), 0},
		{strings.Replace(good, "49503", "0", 1), 0},
		{strings.Replace(good, "49503", "65536", 1), 0},
		{strings.Replace(good, "2130706431", "4294967296", 1), 0},
		{strings.Replace(good, "typ host", "typ guest", 1), 0},
		{strings.Replace(good, "passive", "lazy", 1), 0},
		{strings.TrimSuffix(good, " tcptype passive"), 0},
		{good + " raddr 1.2.3.4", 0},
		{"a=candidate:" + good, 0},
	} {
		d, err := ParseDescription(head + c.line + "\n\n")
		if err != nil || len(d.Candidates) != c.n {
			t.Errorf("%q: %d candidates, %v", c.line, len(d.Candidates), err)
		}
	}
}

func TestTooManyCandidatesAreTrimmed(t *testing.T) {
	var b strings.Builder
	b.WriteString("ufragufr\npwdpwdpwdpwdpwdpwdpwdpwd\n")
	for i := range 100 {
		fmt.Fprintf(&b, "H%d 1 TCP 1 10.0.0.%d 5000 typ %s tcptype passive\n", i, i+1, []string{"host", "relay"}[i%2])
	}
	d, err := ParseDescription(b.String())
	if err != nil || len(d.Candidates) != maxHosts+maxRelays {
		t.Errorf("%d candidates, %v", len(d.Candidates), err)
	}
	b.WriteString(strings.Repeat("x\n", maxLines))
	if _, err := ParseDescription(b.String()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more lines than any: %v", err)
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	b, err := message(t).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{
		"nothing":         nil,
		"truncated":       b[:len(b)-1],
		"more behind it":  append(bytes.Clone(b), 0),
		"no map":          {0x93, 1, 2, 3},
		"nil":             {0xc0},
		"a huge map":      {0xdf, 0xff, 0xff, 0xff, 0xff},
		"an endless text": {0x81, 0xdb, 0xff, 0xff, 0xff, 0xff},
		"id twice":        bytes.Replace(b, []byte("\xa8isAnswer\xc2"), []byte("\xa2id\x01"), 1),
		"negative id":     []byte("\x81\xa2id\xff"),
		"no credentials":  []byte("\x82\xa2id\x01\xa7ice_msg\xa0"),
		"nested unknown":  []byte("\x81\xa1x\x91\xc0"),
	} {
		if m, err := Parse(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if _, err := Parse(make([]byte, MaxSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	more := append([]byte{0x85}, b[1:]...)
	if _, err := Parse(append(more, "\xa1x\xa1y"...)); err != nil {
		t.Errorf("a key of newer devices: %v", err)
	}
}

func TestIDsAreFresh(t *testing.T) {
	seen := map[uint64]bool{}
	for range 1000 {
		id, err := NewID()
		if err != nil || id == 0 || id > MaxID || seen[id] {
			t.Fatalf("%d, %v", id, err)
		}
		seen[id] = true
	}
}

// FuzzParse: what is read can be written, and is then read as the same.
func FuzzParse(f *testing.F) {
	m := message(f)
	for _, answer := range []bool{false, true} {
		m.Answer = answer
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		u, err := ParseUDP(udpText)
		if err != nil {
			f.Fatal(err)
		}
		offers := *m
		offers.UDP = &u
		if b, err = offers.Pack(); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x84\xa2id\x01\xa7ice_msg\xc4\x04u\np\n\xa8isAnswer\xc3\xa8connType\xa0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		b, err = m.Pack()
		if err != nil {
			t.Fatalf("read and not written: %v", err)
		}
		again, err := Parse(b)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%v\n%+v\n%+v", err, again, m)
		}
	})
}

func FuzzParseDescription(f *testing.F) {
	f.Add(stock)
	f.Add("ufragufr\npwdpwdpwdpwdpwdpwdpwdpwd\nR1 1 TCP 16777215 192.0.2.1 3478 typ relay tcptype passive\nU 1 UDP 1 10.0.0.1 1 typ host\n")
	f.Add(udpText)
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) (Description, error){ParseDescription, ParseUDP} {
			d, err := parse(text)
			if err != nil {
				continue
			}
			out, err := d.Text()
			if err != nil {
				t.Fatal(err)
			}
			again, err := parse(out)
			if err != nil || !reflect.DeepEqual(again, d) {
				t.Fatalf("%v\n%+v\n%+v", err, again, d)
			}
		}
	})
}
