package sip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
)

// Bounds on the channels of Jami devices.
const (
	maxChannels    = 8_192
	channelsDevice = 16
	// maxPacket is the longest SIP message that a stock peer takes, in bytes
	// (connect-and-calls §3.1).
	maxPacket = 8_000
)

// Errors of [Server.Accept].
var (
	errNoCallers = errors.New("calls of Jami devices are not taken")
	errChannels  = errors.New("there are too many SIP channels")
)

// ErrNoCall says that a participant has no call on a channel, or none any more.
var ErrNoCall = errors.New("there is no call of a Jami device")

// Called is where a call to an account of the node goes.
type Called struct {
	Room   string
	Device string // short id of the account's device on this node
}

// Callers is what Jami devices call, beside [Rooms]. Methods may be called concurrently.
type Callers interface {
	// Called returns where a call to an account of the node goes.
	Called(ctx context.Context, account jami.ID) (Called, error)
	// Entered is told when a participant has confirmed its call, so that it can be spoken to.
	// It does not wait.
	Entered(room, participant string)
	// Heard gets what a participant says inside its call, in order. It does not wait. done is called when it
	// was acted upon: until then the next process hears it again.
	Heard(room, participant string, m Message, done func())
	// Written is told what a device writes to an account of the node outside of calls; id is the
	// sender's name for it, 16 hex digits, or empty. After an error the device tries again.
	Written(ctx context.Context, account jami.ID, from channel.Peer, id string, m Message) error
}

// Message is the body of a MESSAGE or an INFO.
type Message struct{ Type, Body string }

// channels are the SIP channels that are open (connect-and-calls §3). To the SIP library each
// is a TLS connection from an address that no host has; it carries one message for each
// write.
type channels struct {
	ended func(*channelConn)
	new   chan net.Conn
	done  chan struct{}
	once  sync.Once

	mu       sync.Mutex
	n        uint64
	by       map[string]*channelConn  // by the address that stands for it
	device   map[string]int           // how many, by long id
	expected map[string]chan struct{} // those of the last process, closed when they are there, or won't be
}

func newChannels(ended func(*channelConn)) *channels {
	return &channels{ended: ended, new: make(chan net.Conn, 256), done: make(chan struct{}), by: map[string]*channelConn{}, device: map[string]int{}, expected: map[string]chan struct{}{}}
}

// Accept implements [channel.Handler]: it takes the channel "sip" of a device.
func (s *Server) Accept(account jami.ID, c channel.Channel) error {
	if s.cfg.Callers == nil || s.ctx.Err() != nil {
		return errNoCallers
	}
	conn, err := s.channels.take(account, c)
	if err == nil && conn.restored {
		s.wg.Go(func() { s.goOn(conn) })
	}
	return err
}

// open takes a channel that was opened from here, and waits until it can be written to.
func (cs *channels) open(ctx context.Context, account jami.ID, c channel.Channel) (*channelConn, error) {
	conn, err := cs.take(account, c)
	if err != nil {
		return nil, err
	}
	select {
	case <-conn.reading:
		return conn, nil
	case <-cs.done:
		err = net.ErrClosed
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	conn.Close() //nolint:errcheck // nobody has used it
	return nil, err
}

func (cs *channels) take(account jami.ID, c channel.Channel) (*channelConn, error) {
	conn := &channelConn{Channel: c, reading: make(chan struct{}), gone: make(chan struct{}), in: cs, account: account, peer: c.Peer()}
	if err := cs.enter(conn); err != nil {
		return nil, err
	}
	if conn.restored { // there may be many at once
		select {
		case cs.new <- conn:
			return conn, nil
		case <-cs.done:
		}
	} else {
		select {
		case cs.new <- conn:
			return conn, nil
		default:
		}
	}
	cs.leave(conn)
	return nil, errChannels
}

// enter notes a channel, and gives it an address.
func (cs *channels) enter(conn *channelConn) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if len(cs.by) >= maxChannels || cs.device[conn.peer.DeviceLong] >= channelsDevice {
		return errChannels
	}
	cs.n++
	conn.n = cs.n
	conn.at = channelAddr(cs.n)
	if l, ok := conn.Channel.(channel.Lasting); ok {
		if id, ours := l.Lasts(); id != 0 {
			at := lastingAddr(id)
			if cs.by[at.String()] == nil { // else its number is another's still: this one ends with the process
				conn.at, conn.last, conn.ours = at, l, ours
			}
		}
	}
	conn.key = conn.at.String()
	if _, conn.restored = cs.expected[conn.key]; conn.restored {
		conn.ready = make(chan struct{})
	}
	cs.by[conn.key] = conn
	cs.device[conn.peer.DeviceLong]++
	return nil
}

// leave forgets a channel.
func (cs *channels) leave(conn *channelConn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.by, conn.key)
	if cs.device[conn.peer.DeviceLong]--; cs.device[conn.peer.DeviceLong] <= 0 {
		delete(cs.device, conn.peer.DeviceLong)
	}
}

// channelAddr stands for the n-th channel of this process. 100::/8 is reserved (RFC 6666, RFC 4291): no connection
// comes from there. Each channel has a /64, by which the limits count.
func channelAddr(n uint64) net.Addr {
	var ip [16]byte
	binary.BigEndian.PutUint64(ip[:], n)
	ip[0], ip[15] = 1, 1
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(ip), 5061))
}

// lastingAddr stands for a channel in the processes that go on with it. id has 55 bits.
func lastingAddr(id uint64) net.Addr { return channelAddr(1<<55 | id) }

// at returns the channel that an address stands for; nil: it is a connection's.
func (cs *channels) at(source string) *channelConn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.by[source]
}

// Accept implements [net.Listener].
func (cs *channels) Accept() (net.Conn, error) {
	select {
	case c := <-cs.new:
		return c, nil
	case <-cs.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (cs *channels) Close() error {
	cs.once.Do(func() { close(cs.done) })
	return nil
}

// Addr implements [net.Listener].
func (cs *channels) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv6loopback, Port: 5061} }

// channelConn is a channel as a connection.
type channelConn struct {
	channel.Channel
	in      *channels
	account jami.ID // of the node
	peer    channel.Peer
	at      net.Addr
	key     string
	n       uint64 // how many were opened before, and this one
	once    sync.Once

	last     channel.Lasting // nil: it ends with the process
	ours     bool            // of a lasting one: opened from here
	restored bool            // the last process had it
	ready    chan struct{}   // closed when its calls go on; nil: it has none of before
	pending  pending

	read    sync.Once
	reading chan struct{} // closed when the SIP library has the connection
	gone    chan struct{} // closed with the channel
}

// RemoteAddr implements [net.Conn]; the channel's own one is where the device is.
func (c *channelConn) RemoteAddr() net.Addr { return c.at }

// LocalAddr implements [net.Conn].
func (c *channelConn) LocalAddr() net.Addr { return c.at }

// Read implements [net.Conn]. The library reads once it has the connection in its pool.
func (c *channelConn) Read(b []byte) (int, error) {
	c.read.Do(func() { close(c.reading) })
	if c.last != nil {
		return c.readLasting(b)
	}
	return c.Channel.Read(b)
}

// Write sends one SIP message as one message of the channel (§3.1).
func (c *channelConn) Write(b []byte) (int, error) {
	if len(b) >= maxPacket {
		return 0, fmt.Errorf("sip: a message of %d bytes; a Jami peer takes less than %d", len(b), maxPacket)
	}
	n, err := c.Channel.Write(b)
	if err == nil && c.last != nil {
		c.pending.answered(b)
	}
	return n, err
}

func (c *channelConn) Close() error {
	c.once.Do(func() {
		close(c.gone)
		c.in.leave(c)
		c.in.ended(c)
	})
	return c.Channel.Close()
}

// A channel has no deadlines: it ends with its connection, which is asked whether it lives.
func (c *channelConn) SetDeadline(time.Time) error      { return nil }
func (c *channelConn) SetReadDeadline(time.Time) error  { return nil }
func (c *channelConn) SetWriteDeadline(time.Time) error { return nil }

// signalled describes what the device's requests come over.
func (c *channelConn) signalled() Signalled {
	over := "channel"
	if c.peer.Over == "udp" {
		over = "channel/udp"
	}
	return Signalled{Over: over, Local: c.Channel.LocalAddr().String(), Remote: c.Channel.RemoteAddr().String(), TLS: c.peer.TLS, Suite: c.peer.Suite}
}

// source is the IP address of the device.
func (c *channelConn) source() string { return sourceIP(c.Channel.RemoteAddr().String()).String() }

// local is our end as URIs name it: host and port.
func (c *channelConn) local() (host string, port int) {
	a, err := netip.ParseAddrPort(c.Channel.LocalAddr().String())
	if err != nil {
		return "127.0.0.1", 5061
	}
	host = a.Addr().Unmap().WithZone("").String()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host, int(a.Port())
}

// contact is our Contact toward a Jami peer, which takes no other scheme than sips (§3.1).
func (c *channelConn) contact(device string) string {
	host, port := c.local()
	if device != "" {
		device += "@"
	}
	return fmt.Sprintf("<sips:%s%s:%d;transport=tls>", device, host, port)
}

// channelGone ends the calls of a channel that was closed (§3.1).
func (s *Server) channelGone(c *channelConn) {
	if s.ctx.Err() != nil {
		return
	}
	s.wg.Go(func() { s.endOn(c.key) })
}

// fromPeer answers a request that does not say it is of the account whose device sent it
// (§3.1: the user of From).
func (s *Server) fromPeer(req *sip.Request, tx sip.ServerTransaction, c *channelConn) bool {
	if req.From().Address.User == c.peer.Account.String() {
		return true
	}
	s.log.Info("request refused", zap.Stringer("jami_id", c.peer.Account), zap.String("reason", "From names another account"))
	s.turnDown(req, tx, 403, "Forbidden")
	return false
}

// ring answers 180 and returns the request as all later answers are made from it: with our
// tag, which the 180 has told.
func (s *Server) ring(req *sip.Request, tx sip.ServerTransaction, contact string) *sip.Request {
	req = req.Clone()
	res := s.response(req, 180, "Ringing", nil, sip.NewHeader("Contact", contact), sip.NewHeader("Allow", allowJami))
	tag, _ := res.To().Params.Get("tag")
	req.To().Params.Add("tag", tag)
	s.respond(tx, res)
	return req
}

// onInfo takes what a Jami peer says about its call (§3.5). Phones say nothing here: keys come
// as telephone-event (RFC 4733).
func (s *Server) onInfo(req *sip.Request, tx sip.ServerTransaction) {
	if s.channels.at(req.Source()) == nil {
		s.turnDown(req, tx, 415, "Unsupported Media Type")
		return
	}
	s.said(req, tx)
}

// onMessage takes text and orders inside a call, and text outside of one.
func (s *Server) onMessage(req *sip.Request, tx sip.ServerTransaction) {
	to, _ := tags(req)
	switch c := s.channels.at(req.Source()); {
	case c == nil:
		s.onUnknown(req, tx)
	case to == "":
		s.written(req, tx, c)
	default:
		s.said(req, tx)
	}
}

// writtenTime is what the wait for who takes a text may last: less than a stock peer waits.
const writtenTime = 5 * time.Second

// written takes a text outside of calls (§5.1). After any answer but 200 a stock peer closes
// the channel and tries again: so it is for what can be taken later.
func (s *Server) written(req *sip.Request, tx sip.ServerTransaction, c *channelConn) {
	if !s.fromPeer(req, tx, c) {
		return
	}
	ct := req.ContentType()
	if ct == nil || len(req.Body()) == 0 || len(req.Body()) > maxPacket || !utf8.Valid(req.Body()) {
		s.log.Info("message passed over", zap.Stringer("jami_id", c.peer.Account), zap.String("reason", "it is no text"))
		s.refuse(req, tx, 200, "OK")
		return
	}
	id := ""
	if h := req.GetHeader("Message-ID"); h != nil {
		id = strings.TrimSpace(h.Value())
		if _, err := jami.ParseMessageID(id); err != nil {
			id = "" // it is told each time it comes
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, writtenTime)
	defer cancel()
	err := s.cfg.Callers.Written(ctx, c.account, c.peer, id, Message{Type: ct.Value(), Body: string(req.Body())})
	if err != nil {
		s.log.Info("message not taken now", zap.Stringer("jami_id", c.peer.Account), zap.Error(err))
		s.refuse(req, tx, 503, "Service Unavailable")
		return
	}
	s.refuse(req, tx, 200, "OK")
}

// said hands a body inside a call on.
func (s *Server) said(req *sip.Request, tx sip.ServerTransaction) {
	d := s.lookup(req, tx)
	if d == nil {
		return
	}
	d.mu.Lock()
	theirs := d.Device != ""
	d.mu.Unlock()
	if !theirs || len(req.Body()) > maxPacket {
		s.refuse(req, tx, 403, "Forbidden")
		return
	}
	done := func() {}
	if c := s.channels.at(req.Source()); c != nil {
		done = c.pending.take(req)
	}
	s.refuse(req, tx, 200, "OK")
	ct := req.ContentType()
	if ct == nil {
		done()
		return
	}
	s.cfg.Callers.Heard(d.Room, d.ID, Message{Type: ct.Value(), Body: string(req.Body())}, done)
}

// Say sends a MESSAGE to a participant inside its call, and waits for the answer, whatever it
// is: a stock peer handles one and answers 500 (§3.1). The error may be [ErrNoCall].
func (s *Server) Say(ctx context.Context, id string, m Message) error {
	d := s.dialogs.byID(id)
	if d == nil || d.Device == "" || s.ctx.Err() != nil {
		return ErrNoCall
	}
	req, err := s.message(ctx, d, m)
	if err != nil {
		return err
	}
	if _, err := s.client.Do(ctx, req); err != nil {
		return fmt.Errorf("MESSAGE: %w", err)
	}
	return nil
}

func (s *Server) message(ctx context.Context, d *dialog, m Message) (*sip.Request, error) {
	req, err := s.inDialog(ctx, d, sip.MESSAGE)
	if err != nil {
		return nil, err
	}
	req.AppendHeader(sip.NewHeader("Content-Type", m.Type))
	req.SetBody([]byte(m.Body))
	return req, nil
}

// takeLeave says the last word in a call that ends from here; nobody waits for its answer.
func (s *Server) takeLeave(ctx context.Context, d *dialog) {
	if d.Device == "" || s.cfg.Farewell.Type == "" {
		return
	}
	req, err := s.message(ctx, d, s.cfg.Farewell)
	if err == nil {
		err = s.client.WriteRequest(req)
	}
	if err != nil {
		s.log.Debug("farewell not sent", zap.String("participant", d.ID), zap.Error(err))
	}
}
