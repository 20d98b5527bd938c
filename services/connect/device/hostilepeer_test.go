package device

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/devicetest"
	"github.com/parley-jami/parley/services/connect/device/icetcp"
	"github.com/parley-jami/parley/services/connect/device/request"
)

// hostile is a peer that knows the protocols and keeps to them as far as it likes. All
// that it does is done to the node n over TCP, whose log is in log.
type hostile struct {
	*testing.T
	n    *node
	dev  *devicetest.Device // in whose name it speaks
	good *devicetest.Device // somebody else
	port *icetcp.Listener
	got  chan []byte // messages that the node sent it
	log  logLines
	cast *cast
}

// logLines are the last lines of a log, as JSON.
type logLines chan []byte

func (l logLines) Write(b []byte) (int, error) {
	for line := bytes.Clone(b); ; {
		select {
		case l <- line:
			return len(b), nil
		default:
		}
		select {
		case <-l:
		default:
		}
	}
}

// logLine is what a line says.
type logLine struct {
	Msg, Outcome, Error string
}

func (l logLines) logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"}), zapcore.AddSync(l), zap.DebugLevel))
}

// wait returns the first line that has want in its error.
func (l logLines) wait(t testing.TB, want string) logLine {
	t.Helper()
	limit := time.After(time.Minute)
	var seen []string
	for {
		select {
		case b := <-l:
			var x logLine
			if err := json.Unmarshal(b, &x); err != nil {
				t.Fatal(err)
			}
			if x.Error != "" && strings.Contains(x.Error, want) {
				return x
			}
			if seen = append(seen, string(b)); len(seen) > 20 {
				seen = seen[1:]
			}
		case <-limit:
			t.Fatalf("the log does not say %q, but\n%s", want, strings.Join(seen, ""))
		}
	}
}

// cast are the devices of all cases, since their keys take time, and the files of openssl's.
type cast struct {
	good, mallory, other *devicetest.Device
	cert, chain, key     string
}

func newCast(t *testing.T) *cast {
	t.Helper()
	acc := devicetest.NewAccount(t)
	c := &cast{good: devicetest.NewAccount(t).Device(t), mallory: acc.Device(t), other: acc.Device(t)}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.mallory.Key)
	if err != nil {
		t.Fatal(err)
	}
	c.key = write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	certs := c.mallory.Chain.Certs()
	c.cert, c.chain = write("cert.pem", jami.MarshalChain(certs[0])), write("chain.pem", jami.MarshalChain(certs[1:]...))
	return c
}

// hostile returns a peer and a node of its own, which belongs to bob.
func (c *cast) hostile(t *testing.T, bob *devicetest.Device) *hostile {
	t.Helper()
	h := &hostile{T: t, dev: c.mallory, good: c.good, got: make(chan []byte, 64), log: make(logLines, 1<<16), cast: c}
	o := &overlay{nodes: map[jami.ID]*node{}, log: h.log.logger(), lies: func(b []byte) {
		select {
		case h.got <- b:
		default:
		}
	}}
	h.n = o.node(t, bob)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.port = icetcp.NewListener(ln, icetcp.Options{Loopback: true})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = h.port.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-served })
	return h
}

// received gives the node a message, as identity does which found the sender's chain good.
func (h *hostile) received(message []byte) {
	h.n.Receive(h.n.dev.Chain.JamiID, h.dev.Chain, message)
}

// sent is the next message that the node sent.
func (h *hostile) sent() *request.Message {
	h.Helper()
	select {
	case b := <-h.got:
		m, err := request.Parse(b)
		if err != nil {
			h.Fatal(err)
		}
		return m
	case <-time.After(time.Minute):
		h.Fatal("the node sends nothing")
		return nil
	}
}

// ask asks the node for a connection with that description and returns its answer.
func (h *hostile) ask(own request.Description) request.Description {
	h.Helper()
	id, err := request.NewID()
	if err != nil {
		h.Fatal(err)
	}
	b, err := (&request.Message{ID: id, ICE: own}).Pack()
	if err != nil {
		h.Fatal(err)
	}
	h.received(b)
	return h.sent().ICE
}

// asks makes a path that it asks for: the node is TLS's client on it.
func (h *hostile) asks() net.Conn {
	h.Helper()
	agent, err := h.port.NewAgent(false)
	if err != nil {
		h.Fatal(err)
	}
	return h.path(agent, h.ask(agent.Local()))
}

// asked makes a path that the node asks for: the node is TLS's server on it.
func (h *hostile) asked() net.Conn {
	h.Helper()
	h.dialled()
	m := h.sent()
	agent, err := h.port.NewAgent(true)
	if err != nil {
		h.Fatal(err)
	}
	b, err := (&request.Message{ID: m.ID, Answer: true, ICE: agent.Local()}).Pack()
	if err != nil {
		h.Fatal(err)
	}
	h.received(b)
	return h.path(agent, m.ICE)
}

// dialled has the node ask for a connection, which it does not get.
func (h *hostile) dialled() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if c, err := h.n.Dial(ctx, h.n.dev.Chain.JamiID, h.dev.Chain, "sip", ""); err == nil {
			h.Error("the node got a channel")
			c.Close()
		}
	}()
	h.Cleanup(func() { cancel(); <-ended })
}

func (h *hostile) path(agent *icetcp.Agent, remote request.Description) net.Conn {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), time.Minute)
	defer cancel()
	c, err := agent.Connect(ctx, remote)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	return c
}

// dial opens a connection to the node's port, which stays open until the case ends.
func (h *hostile) dial() net.Conn {
	h.Helper()
	c, err := net.Dial("tcp", h.n.addr)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	return c
}

// gone waits until the node has closed a connection.
func (h *hostile) gone(c net.Conn) {
	h.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		h.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		h.Error("the node keeps the connection")
	}
}

// shows is a TLS 1.3 session in which it shows those certificates with that key.
func (h *hostile) shows(key crypto.Signer, certs ...*x509.Certificate) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true,
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP384}}
	one := tls.Certificate{PrivateKey: key}
	for _, x := range certs {
		one.Certificate = append(one.Certificate, x.Raw)
	}
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &one, nil }
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &one, nil }
	return c
}

// serves makes the session on a path that it asked for, and keeps it until the node ends it.
func (h *hostile) serves(c *tls.Config) { h.handshake(tls.Server(h.asks(), c)) }

// calls makes it on a path that the node asked for.
func (h *hostile) calls(c *tls.Config) { h.handshake(tls.Client(h.asked(), c)) }

func (h *hostile) handshake(c *tls.Conn) {
	h.Helper()
	if err := c.HandshakeContext(h.Context()); err == nil { // a client learns later that it was refused
		h.gone(c)
	}
}

// connected is a session that the node takes.
func (h *hostile) connected() *tls.Conn {
	h.Helper()
	c := tls.Server(h.asks(), h.shows(h.dev.Key, h.dev.Chain.Certs()...))
	if err := c.HandshakeContext(h.Context()); err != nil {
		h.Fatal(err)
	}
	return c
}

// write writes what the node may be too much for.
func (h *hostile) write(c net.Conn, b []byte) { _, _ = c.Write(b) }

// flat is a message on a channel; control is 0.
func flat(ch uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0x92, 0xcd}, ch)
	return append(binary.BigEndian.AppendUint16(append(b, 0xc5), uint16(len(data))), data...)
}

// opens is a request for a channel.
func opens(name string, ch uint16) []byte {
	b := append(binary.BigEndian.AppendUint16([]byte{0x93, 0xda}, uint16(len(name))), name...)
	return flat(0, append(binary.BigEndian.AppendUint16(append(b, 0xcd), ch), 0))
}

// said is the data of the next message, of a node whose numbers are below 64 Ki.
func said(r *bufio.Reader) ([]byte, error) {
	var head [1]byte
	num := func() (n int, err error) {
		c, err := r.ReadByte()
		size := map[byte]int{0xcc: 1, 0xc4: 1, 0xcd: 2, 0xc5: 2}[c]
		if err != nil || size == 0 {
			return int(c), err
		}
		var b [2]byte
		_, err = io.ReadFull(r, b[2-size:])
		return int(binary.BigEndian.Uint16(b[:])), err
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if _, err := num(); err != nil {
		return nil, err
	}
	n, err := num()
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

// check is a framed check, for that user and with that password.
func (h *hostile) check(user, password string, more ...stun.Setter) []byte {
	h.Helper()
	m, err := stun.Build(append(append([]stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(user)}, more...),
		stun.NewShortTermIntegrity(password), stun.Fingerprint)...)
	if err != nil {
		h.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(m.Raw))), m.Raw...)
}

// openssl runs a command of openssl's in place of this process's TLS; between is what
// carries its bytes to the node and back, in frames.
func (h *hostile) openssl(args ...string) *exec.Cmd {
	h.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		h.Skip("openssl is not there")
	}
	cmd := exec.CommandContext(h.Context(), "openssl", args...)
	in, err := cmd.StdinPipe() // it ends with its input
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { in.Close() })
	return cmd
}

// credentials are openssl's arguments for the peer's certificates.
func (h *hostile) credentials() []string {
	return []string{"-cert", h.cast.cert, "-cert_chain", h.cast.chain, "-key", h.cast.key}
}

// sClient has openssl s_client be the client on a path that the node asked for.
func (h *hostile) sClient(args ...string) {
	h.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.Fatal(err)
	}
	defer ln.Close()
	cmd := h.openssl(append([]string{"s_client", "-connect", ln.Addr().String(), "-noservername"}, args...)...)
	node := h.asked()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() { ln.Close() })
	c, err := ln.Accept()
	limit.Stop()
	if err != nil {
		h.Fatalf("openssl: %v, %s", cmd.Wait(), out.String())
	}
	between(c, node)
	_ = cmd.Wait() // it failed, as it should
	if !strings.Contains(out.String(), "alert") {
		h.Errorf("openssl: %s", out.String())
	}
}

var accepts = regexp.MustCompile(`ACCEPT (\S+)`)

// sServer has openssl s_server be the server on a path that the peer asked for.
func (h *hostile) sServer(args ...string) {
	h.Helper()
	cmd := h.openssl(append([]string{"s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-Verify", "9"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	var addr []string
	for r := bufio.NewScanner(out); addr == nil && r.Scan(); {
		addr = accepts.FindStringSubmatch(r.Text())
	}
	if addr == nil {
		h.Fatalf("openssl: %v, %s", cmd.Wait(), errs.String())
	}
	c, err := net.Dial("tcp", addr[1])
	if err != nil {
		h.Fatal(err)
	}
	var drained sync.WaitGroup
	drained.Go(func() { _, _ = io.Copy(io.Discard, out) })
	between(c, h.asks())
	drained.Wait()
	_ = cmd.Wait()
}

// between carries bytes between two connections until one ends.
func between(a, b net.Conn) {
	var wg sync.WaitGroup
	for _, x := range [][2]net.Conn{{a, b}, {b, a}} {
		wg.Go(func() {
			_, _ = io.Copy(x[0], x[1])
			if t, ok := x[0].(*net.TCPConn); ok && t.CloseWrite() == nil {
				return // the other way goes on
			}
			x[0].Close()
		})
	}
	wg.Wait()
	a.Close()
	b.Close()
}

// survived is that a good device connects and speaks with the node, over a new connection.
func (h *hostile) survived() {
	h.Helper()
	h.n.judge.pardon()
	h.n.Add(h.n.asAccount())
	friend := h.n.o.node(h.T, h.good)
	ours, theirs := mustDialNew(h.T, friend, h.n)
	talk(h.T, ours, theirs, "INVITE")
}

// mustDialNew is mustDial to a node that has taken channels of others.
func mustDialNew(t testing.TB, from, to *node) (ours, theirs channel.Channel) {
	t.Helper()
	c, err := dialTo(t, from, to, "sip")
	if err != nil {
		t.Fatal(err)
	}
	for {
		if theirs = <-to.taken; theirs.Peer().Device == from.dev.Chain.DeviceShort {
			return c, theirs
		}
	}
}

// pardon forgets who was barred.
func (j *judge) pardon() {
	j.mu.Lock()
	defer j.mu.Unlock()
	clear(j.barred)
}
