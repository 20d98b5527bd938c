package device

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"
	"github.com/pion/sctp"
	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/iceudp"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// Where the node refuses, by UDP.
const (
	atUDPPort = "UDP port"
	atUDPPath = "ICE by UDP"
	atDTLS    = "DTLS"
	atSCTP    = "SCTP"
)

// nowhere is a description that leads nowhere.
var nowhere = request.Description{Ufrag: "hostile", Pwd: strings.Repeat("p", 24)}

// udpAttacks are tried as attacks are.
var udpAttacks = []attack{
	{name: "an offer of UDP without credentials", at: atRequest, outcome: Malformed, says: "its ICE credentials", do: func(h *hostile) {
		b, err := (&request.Message{ID: 1, ICE: nowhere, UDP: &nowhere}).Pack()
		if err != nil {
			h.Fatal(err)
		}
		h.received(bytes.Replace(b, []byte("hostile\n"+nowhere.Pwd+"\n"), []byte("hostile\n"+strings.Repeat("?", 24)+"\n"), 2))
	}},

	// The port.
	{name: "data at the UDP port", at: atUDPPort, says: "data of no connection", do: func(h *hostile) { h.datagram(bytes.Repeat([]byte("x"), 500)) }},
	{name: "DTLS at the UDP port, without ICE", at: atUDPPort, says: "data of no connection", do: func(h *hostile) {
		h.datagram(append([]byte{22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 1}, make([]byte, 59)...))
	}},
	{name: "a check for nothing that is awaited, by UDP", at: atUDPPort, says: "no connection that is awaited", do: func(h *hostile) {
		h.datagram(h.check("nobody:knows", "a password")[2:])
	}},
	{name: "a check with a tampered password, by UDP", at: atUDPPort, says: "not made with our password", do: func(h *hostile) {
		d := h.askUDP(nowhere)
		h.datagram(h.check(d.Ufrag+":hostile", d.Pwd[:len(d.Pwd)-1]+"!")[2:])
	}},
	{name: "a STUN message of 4,000 bytes", at: atUDPPort, says: "a STUN message that is none", do: func(h *hostile) {
		h.datagram(h.check("nobody:knows", "a password", stun.RawAttribute{Type: stun.AttrData, Value: make([]byte, 4000)})[2:])
	}},
	{name: "a check of a connection that has ended", at: atUDPPort, says: "no connection that is awaited", do: func(h *hostile) {
		agent := h.udpAgent(false)
		d := h.askUDP(agent.Local())
		again := h.check(d.Ufrag+":"+agent.Local().Ufrag, d.Pwd)[2:]
		c := h.udpPath(agent, d)
		sess, err := h.dtls(c, true, h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...))
		if err != nil {
			h.Fatal(err)
		}
		sess.Close()
		for i := 0; ; i++ { // until the node has seen its end
			h.datagram(again)
			select {
			case b := <-h.log:
				h.log <- b
				if bytes.Contains(b, []byte("no connection that is awaited")) {
					return
				}
			case <-time.After(10 * time.Millisecond):
			}
			if i > 5000 {
				h.Fatal("it is awaited still")
			}
		}
	}},
	{name: "200,000 checks and as many other datagrams", at: atUDPPort, says: "no connection that is awaited", do: func(h *hostile) {
		c := h.udpSocket()
		check := h.check("nobody:knows", "a password")[2:]
		for range 200_000 {
			_, _ = c.Write(check)
			_, _ = c.Write(check[:19])
		}
	}},
	{name: "a name that is awaited, and checks of it without end", at: atUDPPort, says: "more checks than a peer needs", do: func(h *hostile) {
		h.dialled() // the node waits for the answer, and has not begun
		d := h.sent().UDP
		c := h.udpSocketTo(d.Candidates[0].Addr.String())
		check := h.check(d.Ufrag+":hostile", d.Pwd)[2:]
		for range 100_000 {
			_, _ = c.Write(check)
		}
	}},

	// The path.
	{name: "a request by UDP after which nobody comes", at: atUDPPath, outcome: NoPath, says: "no path to the device by UDP", slow: true, do: func(h *hostile) { h.askUDP(nowhere) }},
	{name: "data on a path that was not agreed on", at: atUDPPath, says: "data of no connection", do: func(h *hostile) {
		d := h.askUDP(nowhere)
		c := h.udpSocket()
		h.write(c, h.check(d.Ufrag+":hostile", d.Pwd)[2:])
		h.write(c, bytes.Repeat([]byte{22}, 100))
	}},

	// The session; the node is its server.
	{name: "another device of the account, by UDP", at: atDTLS, outcome: NoSession, says: "another device than", do: func(h *hostile) {
		h.asksDTLS(h.showsDTLS(h.cast.other.Key, h.cast.other.Chain.Certs()...))
	}},
	{name: "a key that is not that of the exchange", at: atDTLS, outcome: NoSession, says: "another device than", do: func(h *hostile) {
		h.asksDTLS(h.showsDTLS(h.good.Key, h.good.Chain.Certs()...))
	}},
	{name: "the key is another one than the certificate's, by UDP", at: atDTLS, outcome: NoSession, says: "key signature do not match", do: func(h *hostile) {
		h.asksDTLS(h.showsDTLS(h.cast.other.Key, h.dev.Chain.Certs()...))
	}},
	{name: "the chain of another account, by UDP", at: atDTLS, outcome: NoSession, says: "another account", do: func(h *hostile) {
		h.asksDTLS(h.showsDTLS(h.dev.Key, h.good.Account.Certify(h, h.dev.Key).Chain.Certs()...))
	}},
	{name: "a chain without the account, by UDP", at: atDTLS, outcome: NoSession, says: "account is missing", do: func(h *hostile) {
		h.asksDTLS(h.showsDTLS(h.dev.Key, h.dev.Chain.Device))
	}},
	{name: "an account with a key of 1,024 bits, by UDP", at: atDTLS, outcome: NoSession, says: "has 1024 bits", do: func(h *hostile) {
		h.asksDTLS(h.showsDTLS(h.dev.Key, small(h, &h.dev.Key.PublicKey)...))
	}},
	{name: "revoked between the request and the session, by UDP", at: atDTLS, outcome: NoSession, says: "revoked", do: func(h *hostile) {
		c := h.udpAsks()
		h.n.judge.bar(h.dev.Chain.DeviceShort, revoked)
		_, _ = h.dtls(c, true, h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...))
	}},
	{name: "no certificate, by UDP", at: atDTLS, outcome: NoSession, says: "required client verification", do: func(h *hostile) { h.asksDTLS() }},
	{name: "AES-CBC alone", at: atDTLS, outcome: NoSession, says: "any shared cipher suites", do: func(h *hostile) {
		h.asksDTLS(h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...), dtls.WithCipherSuites(dtls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA))
	}},
	{name: "no extended master secret", at: atDTLS, outcome: NoSession, says: "Extended Master Secret", do: func(h *hostile) {
		h.asksDTLS(h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...), dtls.WithExtendedMasterSecret(dtls.DisableExtendedMasterSecret))
	}},
	{name: "a client of DTLS with anonymous suites (openssl)", at: atDTLS, outcome: NoSession, says: "any shared cipher suites", do: func(h *hostile) {
		h.sClientDTLS("-dtls1_2", "-cipher", "aNULL:@SECLEVEL=0")
	}},
	{name: "a client of DTLS with RSA key exchange (openssl)", at: atDTLS, outcome: NoSession, says: "any shared cipher suites", do: func(h *hostile) {
		h.sClientDTLS(append(h.credentials(), "-dtls1_2", "-cipher", "kRSA")...)
	}},
	{name: "a client of DTLS without encryption (openssl)", at: atDTLS, outcome: NoSession, says: "any shared cipher suites", do: func(h *hostile) {
		h.sClientDTLS(append(h.credentials(), "-dtls1_2", "-cipher", "eNULL:@SECLEVEL=0")...)
	}},
	{name: "a client of DTLS with finite fields (openssl)", at: atDTLS, outcome: NoSession, says: "any shared cipher suites", do: func(h *hostile) {
		h.sClientDTLS(append(h.credentials(), "-dtls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384")...)
	}},
	{name: "a client of DTLS 1.0 alone (openssl)", at: atDTLS, outcome: NoSession, says: "version", do: func(h *hostile) {
		h.sClientDTLS(append(h.credentials(), "-dtls1", "-cipher", "ALL:@SECLEVEL=0")...)
	}},
	{name: "garbage in place of a session, by UDP", at: atDTLS, outcome: NoSession, says: "context deadline exceeded", slow: true, do: func(h *hostile) {
		c := h.udpAsks()
		for range 1000 {
			h.write(c, bytes.Repeat([]byte("HTTP/1.1 200 OK\r\n"), 20))
		}
	}},

	// The session; the node is its client.
	{name: "a server with another device's certificates, by UDP", at: atDTLS, says: "another device than", do: func(h *hostile) {
		_, _ = h.dtls(h.udpAsked(), false, h.showsDTLS(h.cast.other.Key, h.cast.other.Chain.Certs()...))
	}},
	{name: "a server with AES-CBC alone", at: atDTLS, says: "Insufficient", do: func(h *hostile) {
		_, _ = h.dtls(h.udpAsked(), false, h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...), dtls.WithCipherSuites(dtls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA))
	}},
	{name: "a server of DTLS without the extended master secret", at: atDTLS, says: "Extended Master Secret", do: func(h *hostile) {
		_, _ = h.dtls(h.udpAsked(), false, h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...), dtls.WithExtendedMasterSecret(dtls.DisableExtendedMasterSecret))
	}},

	// SCTP and the channels.
	{name: "a session without SCTP", at: atSCTP, outcome: NoSession, says: "SCTP association", slow: true, do: func(h *hostile) {
		if _, err := h.dtls(h.udpAsks(), true, h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...)); err != nil {
			h.Fatal(err)
		}
	}},
	{name: "garbage in place of SCTP", at: atSCTP, outcome: NoSession, says: "SCTP association", slow: true, do: func(h *hostile) {
		c, err := h.dtls(h.udpAsks(), true, h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...))
		if err != nil {
			h.Fatal(err)
		}
		h.write(c, bytes.Repeat([]byte{0xff}, 100))
	}},
	{name: "a message of 200,000 bytes", at: atSCTP, says: "longer than any", do: func(h *hostile) {
		_, _ = h.stream(h.associated(), 7).Write(make([]byte, 200_000))
	}},
	{name: "data on a thousand streams of no channel", at: atSCTP, says: "more streams than there are channels", do: func(h *hostile) {
		a := h.associated()
		for i := range uint16(1000) {
			if _, err := h.stream(a, i+2).Write([]byte("x")); err != nil {
				return
			}
		}
	}},
	{name: "messages of a byte without end, which nobody reads", at: atSCTP, says: "EOF", do: func(h *hostile) {
		a := h.associated()
		h.write(h.stream(a, 0), opens("sip", 7)[7:])
		s := h.stream(a, 7)
		for range 100_000 {
			if _, err := s.Write([]byte("x")); err != nil {
				break
			}
		}
	}},
	{name: "what is no message on control, by UDP", at: atSCTP, says: "not the protocol of device channels", do: func(h *hostile) { h.write(h.stream(h.associated(), 0), []byte{0x93, 0xc1}) }},
	{name: "a channel that nobody takes, by UDP", at: atSCTP, says: "no channel of that name is taken", do: func(h *hostile) {
		h.write(h.stream(h.associated(), 0), opens("git://x/y", 9)[7:])
	}},
	{name: "300 channels by UDP", at: atSCTP, says: "more channels than a connection may have", do: func(h *hostile) {
		s := h.stream(h.associated(), 0)
		for n := range uint16(300) {
			h.write(s, opens("sip", n+1)[7:])
		}
	}},
	{name: "revoked while connected by UDP", at: atSCTP, says: "revoked", do: func(h *hostile) {
		h.associated()
		for h.n.Links() == 0 {
			runtime.Gosched()
		}
		h.n.judge.bar(h.dev.Chain.DeviceShort, revoked)
	}},
}

func (h *hostile) udpSocketTo(at string) net.Conn {
	h.Helper()
	c, err := net.Dial("udp", at)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	return c
}

// udpSocket is one to the node's UDP port.
func (h *hostile) udpSocket() net.Conn {
	h.Helper()
	return h.udpSocketTo(h.n.udp)
}

// datagram sends one to the node's UDP port.
func (h *hostile) datagram(b []byte) { h.write(h.udpSocket(), b) }

// askUDP asks the node for a connection by UDP with that description, and returns its answer's.
func (h *hostile) askUDP(own request.Description) request.Description {
	h.Helper()
	id, err := request.NewID()
	if err != nil {
		h.Fatal(err)
	}
	b, err := (&request.Message{ID: id, ICE: nowhere, UDP: &own}).Pack()
	if err != nil {
		h.Fatal(err)
	}
	h.received(b)
	m := h.sent()
	if m.UDP == nil {
		h.Fatal("the node offers no UDP")
	}
	return *m.UDP
}

func (h *hostile) udpAgent(controlling bool) *iceudp.Agent {
	h.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		h.Fatal(err)
	}
	p := iceudp.NewPort(pc.(*net.UDPConn), iceudp.Options{Loopback: true})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = p.Serve(ctx) }()
	h.Cleanup(func() { cancel(); <-served })
	a, err := p.NewAgent(h.Context(), controlling)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(a.Close)
	return a
}

// udpAsks makes a path by UDP that it asks for: the node is DTLS's server on it.
func (h *hostile) udpAsks() net.Conn {
	h.Helper()
	a := h.udpAgent(false)
	return h.udpPath(a, h.askUDP(a.Local()))
}

// udpAsked makes a path by UDP that the node asks for: the node is DTLS's client on it.
func (h *hostile) udpAsked() net.Conn {
	h.Helper()
	h.dialled()
	m := h.sent()
	a := h.udpAgent(true)
	d := a.Local()
	b, err := (&request.Message{ID: m.ID, Answer: true, ICE: nowhere, UDP: &d}).Pack()
	if err != nil {
		h.Fatal(err)
	}
	h.received(b)
	return h.udpPath(a, *m.UDP)
}

func (h *hostile) udpPath(a *iceudp.Agent, remote request.Description) net.Conn {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), time.Minute)
	defer cancel()
	c, err := a.Connect(ctx, remote)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	return c
}

// showsDTLS are those certificates with that key.
func (h *hostile) showsDTLS(key crypto.Signer, certs ...*x509.Certificate) dtls.Option {
	c := tls.Certificate{PrivateKey: key}
	for _, x := range certs {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return dtls.WithCertificates(c)
}

// dtls makes a session on a path.
func (h *hostile) dtls(conn net.Conn, client bool, opts ...dtls.Option) (*dtls.Conn, error) {
	h.Helper()
	opts = append([]dtls.Option{dtls.WithInsecureSkipVerify(true), dtls.WithSignatureSchemes(tls.PKCS1WithSHA384)}, opts...)
	pc := dtlsnet.PacketConnFromConn(conn)
	var c *dtls.Conn
	var err error
	if client {
		var o []dtls.ClientOption
		for _, x := range opts {
			o = append(o, x)
		}
		c, err = dtls.ClientWithOptions(pc, conn.RemoteAddr(), o...)
	} else {
		o := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
		for _, x := range opts {
			o = append(o, x)
		}
		c, err = dtls.ServerWithOptions(pc, conn.RemoteAddr(), o...)
	}
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(h.Context(), 10*time.Second)
	defer cancel()
	return c, c.HandshakeContext(ctx)
}

// asksDTLS makes the session that it asked for, as its client.
func (h *hostile) asksDTLS(opts ...dtls.Option) { _, _ = h.dtls(h.udpAsks(), true, opts...) }

// associated is an association that the node takes.
func (h *hostile) associated() *sctp.Association {
	h.Helper()
	c, err := h.dtls(h.udpAsks(), true, h.showsDTLS(h.dev.Key, h.dev.Chain.Certs()...))
	if err != nil {
		h.Fatal(err)
	}
	a, err := sctp.ClientWithOptions(sctp.WithNetConn(c), sctp.WithMaxMessageSize(1<<20))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { a.Close() })
	return a
}

func (h *hostile) stream(a *sctp.Association, id uint16) streamConn {
	h.Helper()
	s, err := a.OpenStream(id, sctp.PayloadTypeWebRTCBinary)
	if err != nil {
		h.Fatal(err)
	}
	return streamConn{Stream: s}
}

// streamConn is a stream that [hostile.write] writes to.
type streamConn struct {
	net.Conn
	*sctp.Stream
}

func (s streamConn) Read(b []byte) (int, error)         { return s.Stream.Read(b) }
func (s streamConn) Write(b []byte) (int, error)        { return s.Stream.Write(b) }
func (s streamConn) Close() error                       { return s.Stream.Close() }
func (s streamConn) SetDeadline(t time.Time) error      { return s.Stream.SetDeadline(t) }
func (s streamConn) SetReadDeadline(t time.Time) error  { return s.Stream.SetReadDeadline(t) }
func (s streamConn) SetWriteDeadline(t time.Time) error { return s.Stream.SetWriteDeadline(t) }

// sClientDTLS has openssl s_client be the client on a path by UDP that the peer asked for.
func (h *hostile) sClientDTLS(args ...string) {
	h.Helper()
	near, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		h.Fatal(err)
	}
	cmd := h.openssl(append([]string{"s_client", "-connect", near.LocalAddr().String(), "-noservername", "-mtu", "1200"}, args...)...)
	node := h.udpAsks()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	var mu sync.Mutex
	var client *net.UDPAddr
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 8192)
		for {
			n, from, err := near.ReadFromUDP(b)
			if err != nil {
				return
			}
			mu.Lock()
			client = from
			mu.Unlock()
			_, _ = node.Write(b[:n])
		}
	})
	wg.Go(func() {
		b := make([]byte, 8192)
		for {
			n, err := node.Read(b)
			if err != nil {
				return
			}
			mu.Lock()
			to := client
			mu.Unlock()
			if to != nil {
				_, _ = near.WriteToUDP(b[:n], to)
			}
		}
	})
	ended(h, cmd)
	near.Close()
	node.Close()
	wg.Wait()
	if !strings.Contains(out.String(), "alert") && !strings.Contains(out.String(), "error") {
		h.Errorf("openssl: %s", out.String())
	}
}

// ended waits for a command, which is killed after a while.
func ended(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	limit := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	_ = cmd.Wait() // it failed, as it should
}
