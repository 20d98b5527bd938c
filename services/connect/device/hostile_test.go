package device

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/device/devicetest"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// attack is something that a hostile peer does, where the node refuses it, and what the log
// says then.
type attack struct {
	name    string
	at      string
	do      func(h *hostile)
	outcome Outcome // where the log has one
	says    string  // in the error of the log's line
	slow    bool    // the node's patience has to end
}

// Where the node refuses.
const (
	atRequest = "request"
	atPort    = "port"
	atPath    = "ICE"
	atSession = "TLS"
	atChannel = "channels"
)

// What the gate says of such devices.
var (
	revoked = &trust.Error{Reason: trust.Revoked, Place: "device", Why: "its account revoked it"}
	banned  = &trust.Error{Reason: "banned", Why: "its account is blocked"}
)

// most is how much more memory may be in use while an attack goes on, both ends together.
const most = 64 << 20

// TestHostilePeers has the real manager on a TCP port treat peers that do what they may not:
// each is refused for the reason that the log tells, and afterwards a good device connects as
// before. With -v it prints the whole as a table.
func TestHostilePeers(t *testing.T) {
	c := newCast(t)
	bob := devicetest.NewAccount(t).Device(t)
	var mu sync.Mutex
	all := slices.Concat(attacks, udpAttacks)
	rows := make([]string, len(all))
	t.Cleanup(func() {
		t.Logf("%d attacks\n| | refused at | what the log says |\n|---|---|---|\n%s", len(all), strings.Join(rows, ""))
	})
	for i, a := range all {
		t.Run(a.name, func(t *testing.T) {
			if a.slow {
				if testing.Short() {
					t.Skip("takes half a minute")
				}
				t.Parallel() // with the other ones that wait
			}
			h := c.hostile(t, bob)
			before := used(t)
			a.do(h)
			line := h.log.wait(t, a.says)
			if line.Outcome != string(a.outcome) {
				t.Errorf("outcome %q, want %q", line.Outcome, a.outcome)
			}
			if !a.slow {
				if now := used(t); now > before+most {
					t.Errorf("%d MiB more are in use", (now-before)>>20)
				}
			}
			h.survived()
			mu.Lock()
			defer mu.Unlock()
			if line.Outcome != "" {
				line.Msg += " (" + line.Outcome + ")"
			}
			rows[i] = fmt.Sprintf("| %s | %s | %s: %s |\n", a.name, a.at, line.Msg, strings.ReplaceAll(line.Error, "\n", "; "))
		})
	}
}

var attacks = []attack{
	// The message that asks for a connection.
	{name: "garbage as a request", at: atRequest, outcome: Malformed, says: "not a connection request", do: func(h *hostile) { h.received([]byte("garbage")) }},
	{name: "an oversized request", at: atRequest, outcome: Malformed, says: "larger than any", do: func(h *hostile) { h.received(make([]byte, request.MaxSize+1)) }},
	{name: "a request with a thousand keys", at: atRequest, outcome: Malformed, says: "a map of 1000", do: func(h *hostile) { h.received([]byte{0xde, 0x03, 0xe8}) }},
	{name: "a request that was there before", at: atRequest, outcome: Repeated, says: "was there before", do: func(h *hostile) {
		b := message(h, 7, false)
		h.received(b)
		h.sent()
		h.received(b)
	}},
	{name: "a request for an account that is not here", at: atRequest, outcome: NoAccount, says: "no such account", do: func(h *hostile) {
		h.n.Receive(h.good.Chain.JamiID, h.dev.Chain, message(h, 1, false))
	}},
	{name: "an answer to nothing", at: atRequest, outcome: Unasked, says: "nothing that was asked", do: func(h *hostile) { h.received(message(h, 1, true)) }},
	{name: "an answer for another device", at: atRequest, outcome: Unasked, says: "nothing that was asked", do: func(h *hostile) {
		h.dialled()
		m := h.sent()
		h.n.Receive(h.n.dev.Chain.JamiID, h.good.Chain, message(h, m.ID, true))
	}},
	{name: "a revoked device", at: atRequest, outcome: Refused, says: "revoked", do: func(h *hostile) {
		h.n.judge.bar(h.dev.Chain.DeviceShort, revoked)
		h.received(message(h, 1, false))
	}},
	{name: "a device of a blocked contact", at: atRequest, outcome: Refused, says: "banned", do: func(h *hostile) {
		h.n.judge.bar(h.dev.Chain.DeviceShort, banned)
		h.received(message(h, 1, false))
	}},
	{name: "a stranger where contacts alone may call", at: atRequest, outcome: Stranger, says: "contacts alone", do: func(h *hostile) {
		a := h.n.asAccount()
		a.Welcome = func(context.Context, *trust.Chain) error {
			return errors.New("the account takes calls of its contacts alone")
		}
		h.n.Add(a)
		h.received(message(h, 1, false))
	}},
	{name: "the node's own device as the sender", at: atRequest, outcome: Refused, says: "this device's own", do: func(h *hostile) {
		h.n.Receive(h.n.dev.Chain.JamiID, h.n.dev.Chain, message(h, 1, false))
	}},
	{name: "requests without end", at: atRequest, outcome: TooOften, says: "may ask again in", do: func(h *hostile) {
		for id := range uint64(2000) {
			h.received(message(h, id+1, false))
		}
	}},

	// The port.
	{name: "HTTP on the port", at: atPort, says: "no connection that is awaited", do: func(h *hostile) {
		c := h.dial()
		h.write(c, []byte("GET / HTTP/1.1\r\nHost: node\r\nUser-Agent: something that is long enough\r\n\r\n"))
		h.gone(c)
	}},
	{name: "TLS on the port, without ICE", at: atPort, says: "no connection that is awaited", do: func(h *hostile) {
		c := h.dial()
		h.write(c, append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 500)...))
		h.gone(c)
	}},
	{name: "a check for nothing that is awaited", at: atPort, says: "no connection that is awaited", do: func(h *hostile) {
		c := h.dial()
		h.write(c, h.check("nobody:knows", "a password"))
		h.gone(c)
	}},
	{name: "a check with a tampered password", at: atPort, says: "not made with our password", do: func(h *hostile) {
		d := h.ask(request.Description{Ufrag: "hostile", Pwd: strings.Repeat("p", 24)})
		c := h.dial()
		h.write(c, h.check(d.Ufrag+":hostile", d.Pwd[:len(d.Pwd)-1]+"!"))
		h.gone(c)
	}},
	{name: "a check of 60,000 bytes", at: atPort, says: "a STUN message of", do: func(h *hostile) {
		c := h.dial()
		h.write(c, h.check("nobody:knows", "a password", stun.RawAttribute{Type: stun.AttrData, Value: make([]byte, 60000)}))
		h.gone(c)
	}},
	{name: "hanging up at once", at: atPort, says: "EOF", do: func(h *hostile) { h.dial().Close() }},
	{name: "a socket that says nothing", at: atPort, says: "i/o timeout", slow: true, do: func(h *hostile) { h.gone(h.dial()) }},
	{name: "a check that comes byte by byte", at: atPort, says: "i/o timeout", slow: true, do: func(h *hostile) {
		c := h.dial()
		trickle(c, h.check("nobody:knows", "a password"))
		h.gone(c)
	}},
	{name: "4,000 sockets that say nothing", at: atPort, says: "more connections that wait", do: func(h *hostile) {
		for range 4000 {
			h.dial()
		}
	}},

	// The path.
	{name: "data before the path was agreed on", at: atPath, outcome: NoPath, says: "data before the path was selected", slow: true, do: func(h *hostile) {
		d := h.ask(request.Description{Ufrag: "hostile", Pwd: strings.Repeat("p", 24)})
		c := h.dial()
		h.write(c, append(h.check(d.Ufrag+":hostile", d.Pwd), append([]byte{0, 40}, bytes.Repeat([]byte{0xff}, 40)...)...))
		h.gone(c)
	}},
	{name: "a request after which nobody comes", at: atPath, outcome: NoPath, says: "did not connect either", slow: true, do: func(h *hostile) {
		h.ask(request.Description{Ufrag: "hostile", Pwd: strings.Repeat("p", 24)})
	}},

	// The session; the node is its client.
	{name: "another device of the account answers", at: atSession, outcome: NoSession, says: "another device than", do: func(h *hostile) {
		h.serves(h.shows(h.cast.other.Key, h.cast.other.Chain.Certs()...))
	}},
	{name: "the key is another one than the certificate's", at: atSession, outcome: NoSession, says: "invalid signature", do: func(h *hostile) {
		h.serves(h.shows(h.cast.other.Key, h.dev.Chain.Certs()...))
	}},
	{name: "the chain of another account", at: atSession, outcome: NoSession, says: "another account", do: func(h *hostile) {
		h.serves(h.shows(h.dev.Key, h.good.Account.Certify(h, h.dev.Key).Chain.Certs()...))
	}},
	{name: "a certificate that another device signed", at: atSession, outcome: NoSession, says: "is no CA", do: func(h *hostile) {
		x, err := jami.NewDevice(&h.dev.Key.PublicKey, h.cast.other.Chain.Device, h.cast.other.Key, time.Now().Add(-time.Hour))
		if err != nil {
			h.Fatal(err)
		}
		h.serves(h.shows(h.dev.Key, append([]*x509.Certificate{x}, h.cast.other.Chain.Certs()...)...))
	}},
	{name: "an expired certificate", at: atSession, outcome: NoSession, says: string(trust.Expired), do: func(h *hostile) {
		x, err := jami.NewDevice(&h.dev.Key.PublicKey, h.dev.Account.Certs[0], h.dev.Account.Key, time.Now().Add(-jami.Validity-time.Hour))
		if err != nil {
			h.Fatal(err)
		}
		h.serves(h.shows(h.dev.Key, x, h.dev.Account.Certs[0], h.dev.Account.Certs[1]))
	}},
	{name: "an account with a key of 1,024 bits", at: atSession, outcome: NoSession, says: "has 1024 bits", do: func(h *hostile) {
		h.serves(h.shows(h.dev.Key, small(h, &h.dev.Key.PublicKey)...))
	}},
	{name: "the chain in another order", at: atSession, outcome: NoSession, says: "was not issued by the next one", do: func(h *hostile) {
		h.serves(h.shows(h.dev.Key, h.dev.Chain.Device, h.dev.Account.Certs[1], h.dev.Account.Certs[0]))
	}},
	{name: "no account's certificate", at: atSession, outcome: NoSession, says: "account is missing", do: func(h *hostile) {
		h.serves(h.shows(h.dev.Key, h.dev.Chain.Device))
	}},
	{name: "no authority's certificate", at: atSession, outcome: NoSession, says: "its issuer is not in the chain", do: func(h *hostile) {
		h.serves(h.shows(h.dev.Key, h.dev.Chain.Device, h.dev.Chain.Account))
	}},
	{name: "revoked between the request and the session", at: atSession, outcome: NoSession, says: "revoked", do: func(h *hostile) {
		c := h.asks()
		h.n.judge.bar(h.dev.Chain.DeviceShort, revoked)
		h.handshake(tls.Server(c, h.shows(h.dev.Key, h.dev.Chain.Certs()...)))
	}},
	{name: "garbage in place of a session", at: atSession, outcome: NoSession, says: "does not look like a TLS handshake", do: func(h *hostile) {
		c := h.asks()
		h.write(c, bytes.Repeat([]byte("HTTP/1.1 200 OK\r\n"), 100))
		h.gone(c)
	}},
	{name: "a server of TLS 1.2 alone (openssl)", at: atSession, outcome: NoSession, says: "protocol version", do: func(h *hostile) { h.sServer(append(h.credentials(), "-tls1_2")...) }},
	{name: "a server of TLS 1.1 alone (openssl)", at: atSession, outcome: NoSession, says: "protocol version", do: func(h *hostile) {
		h.sServer(append(h.credentials(), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")...)
	}},
	{name: "a server that shows no certificate (openssl)", at: atSession, outcome: NoSession, says: "protocol version", do: func(h *hostile) {
		h.sServer("-nocert", "-cipher", "aNULL:@SECLEVEL=0")
	}},
	{name: "TLS 1.2 with an anonymous suite chosen, though not offered", at: atSession, outcome: NoSession, says: "unsupported protocol version", do: func(h *hostile) {
		h.chooses(0x00a7, 0)
	}},
	{name: "TLS 1.3 with a suite without encryption chosen, though not offered", at: atSession, outcome: NoSession, says: "unconfigured cipher suite", do: func(h *hostile) {
		h.chooses(0x003b, 0x0304)
	}},
	{name: "a session that says nothing", at: atSession, outcome: NoSession, says: "context deadline exceeded", slow: true, do: func(h *hostile) { h.gone(h.asks()) }},
	{name: "a session that comes byte by byte", at: atSession, outcome: NoSession, says: "context deadline exceeded", slow: true, do: func(h *hostile) {
		c := h.asks()
		trickle(c, append([]byte{22, 3, 3, 1, 0, 2, 0, 0, 0xfc, 3, 3}, make([]byte, 245)...))
		h.gone(c)
	}},

	// The session; the node is its server.
	{name: "a client without a certificate (openssl)", at: atSession, says: "didn't provide a certificate", do: func(h *hostile) { h.sClient("-tls1_3") }},
	{name: "a client of TLS 1.2 alone (openssl)", at: atSession, says: "offers no TLS 1.3", do: func(h *hostile) { h.sClient(append(h.credentials(), "-tls1_2")...) }},
	{name: "a client of TLS 1.1 alone (openssl)", at: atSession, says: "offers no TLS 1.3", do: func(h *hostile) {
		h.sClient(append(h.credentials(), "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")...)
	}},
	{name: "a client with RSA key exchange (openssl)", at: atSession, says: "offers no TLS 1.3", do: func(h *hostile) {
		h.sClient(append(h.credentials(), "-tls1_2", "-cipher", "kRSA")...)
	}},
	{name: "a client with anonymous suites (openssl)", at: atSession, says: "offers no TLS 1.3", do: func(h *hostile) {
		h.sClient("-tls1_2", "-cipher", "aNULL:@SECLEVEL=0")
	}},
	{name: "a client without encryption (openssl)", at: atSession, says: "offers no TLS 1.3", do: func(h *hostile) {
		h.sClient(append(h.credentials(), "-tls1_2", "-cipher", "eNULL:@SECLEVEL=0")...)
	}},
	{name: "a client with another suite of TLS 1.3 (openssl)", at: atSession, says: "no cipher suite of TLS 1.3", do: func(h *hostile) {
		h.sClient(append(h.credentials(), "-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256")...)
	}},
	{name: "a client with P-256 alone (openssl)", at: atSession, says: "offers none of X25519", do: func(h *hostile) {
		h.sClient(append(h.credentials(), "-tls1_3", "-groups", "P-256")...)
	}},
	{name: "a client with SHA-256 alone (openssl)", at: atSession, says: "no RSA-PSS signature with SHA-384", do: func(h *hostile) {
		h.sClient(append(h.credentials(), "-tls1_3", "-sigalgs", "RSA-PSS+SHA256")...)
	}},
	{name: "a client with another device's certificates", at: atSession, says: "another device than", do: func(h *hostile) {
		h.calls(h.shows(h.cast.other.Key, h.cast.other.Chain.Certs()...))
	}},

	// The channels.
	{name: "renegotiation", at: atChannel, says: "not a record of TLS 1.3", do: func(h *hostile) {
		c := h.connected()
		h.write(c.NetConn(), append([]byte{22, 3, 3, 0, 60, 1, 0, 0, 56, 3, 3}, make([]byte, 54)...))
		h.gone(c.NetConn())
	}},
	{name: "a frame that is none", at: atChannel, says: "not the protocol of device channels", do: func(h *hostile) {
		c := h.connected()
		h.write(c, []byte{0xc1, 0xff, 0xff})
		h.gone(c)
	}},
	{name: "a frame of 4 GiB", at: atChannel, says: "not the protocol of device channels: bytes", do: func(h *hostile) {
		c := h.connected()
		h.write(c, []byte{0x92, 5, 0xc6, 0xff, 0xff, 0xff, 0xff})
		h.gone(c)
	}},
	{name: "a channel request with a name of 4 GiB", at: atChannel, says: "a name of", do: func(h *hostile) {
		c := h.connected()
		h.write(c, flat(0, []byte{0x93, 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'}))
		h.gone(c)
	}},
	{name: "a channel with the number of control", at: atChannel, says: "channel 0", do: func(h *hostile) { h.write(h.connected(), opens("sip", 0)) }},
	{name: "a channel that nobody takes", at: atChannel, says: "no channel of that name is taken", do: func(h *hostile) { h.write(h.connected(), opens("git://x/y", 9)) }},
	{name: "10,000 channels", at: atChannel, says: "more channels than a connection may have", do: func(h *hostile) { h.tenThousand() }},
	{name: "channel requests without reading an answer", at: atChannel, says: "does not read", do: func(h *hostile) {
		c := h.connected()
		// The answers have the name too, so that few of them fill what the kernel holds.
		for b := opens("git://"+strings.Repeat("x", 1000), 9); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}},
	{name: "revoked while connected", at: atChannel, says: "revoked", do: func(h *hostile) {
		c := h.connected()
		for h.n.Links() == 0 {
			runtime.Gosched()
		}
		h.n.judge.bar(h.dev.Chain.DeviceShort, revoked)
		h.gone(c)
	}},
}

// trickle writes a byte every quarter of a second, until the other side has enough.
func trickle(c net.Conn, b []byte) {
	for _, x := range b {
		if _, err := c.Write([]byte{x}); err != nil {
			return
		}
		if err := c.SetReadDeadline(time.Now().Add(250 * time.Millisecond)); err != nil {
			return
		}
		_, err := io.Copy(io.Discard, c)
		if x, ok := errors.AsType[net.Error](err); !ok || !x.Timeout() {
			return
		}
	}
}

// small is a chain whose account has a small key, down to that device's.
func small(t testing.TB, device *rsa.PublicKey) []*x509.Certificate {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	account := &x509.Certificate{Subject: pkix.Name{CommonName: "Jami"}, SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), SignatureAlgorithm: x509.SHA384WithRSA}
	leaf := *account
	leaf.Subject.CommonName, leaf.IsCA = "Jami device", false
	var out []*x509.Certificate
	for _, x := range []struct {
		t   *x509.Certificate
		pub *rsa.PublicKey
	}{{&leaf, device}, {account, &k.PublicKey}} {
		der, err := x509.CreateCertificate(rand.Reader, x.t, account, x.pub, k)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// chooses answers the node's ClientHello with a ServerHello of that suite, and of that version
// where it is not TLS 1.2 (RFC 8446 §4.1.3, §4.2.1).
func (h *hostile) chooses(suite, version uint16) {
	h.Helper()
	c := h.asks()
	hello := make([]byte, 5+4+2+32+1+32) // of which crypto/tls's session id has 32 bytes
	if _, err := io.ReadFull(c, hello); err != nil {
		h.Fatal(err)
	}
	body := append([]byte{3, 3}, bytes.Repeat([]byte{0x5a}, 32)...)
	body = append(body, hello[5+4+2+32:]...)
	body = append(binary.BigEndian.AppendUint16(body, suite), 0)
	if version != 0 {
		body = binary.BigEndian.AppendUint16(append(body, 0, 6, 0, 43, 0, 2), version)
	}
	msg := append([]byte{2, 0, 0, byte(len(body))}, body...)
	h.write(c, append([]byte{22, 3, 3, 0, byte(len(msg))}, msg...))
	h.gone(c)
}

// tenThousand asks for as many channels and reads all answers: 256 are there, and stay.
func (h *hostile) tenThousand() {
	h.Helper()
	const all, atOnce = 10_000, 100
	c := h.connected()
	r := bufio.NewReader(c)
	var states [3]int
	for from := 1; from <= all; from += atOnce {
		var b []byte
		for n := from; n < from+atOnce; n++ {
			b = append(b, opens("sip", uint16(n))...)
		}
		if _, err := c.Write(b); err != nil {
			h.Fatal(err)
		}
		for answers := 0; answers < atOnce; {
			d, err := said(r)
			if err != nil {
				h.Fatal(err)
			}
			if d[0] == 0x93 {
				states[d[len(d)-1]]++
				answers++
			}
		}
	}
	if states != [3]int{1: 256, 2: all - 256} {
		h.Errorf("%d channels accepted, %d declined", states[1], states[2])
	}
}
