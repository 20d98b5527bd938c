package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/parley-jami/parley/internal/limits"
)

// Times and bounds of one socket.
const (
	joinWithin   = 30 * time.Second // from open to joined
	silentAfter  = 60 * time.Second // without a message from the page, which pings every 15 s
	writeWithin  = 10 * time.Second
	closeWithin  = 700 * time.Millisecond // farewell and close frame at the end
	queueBytes   = 4 << 20
	queueEvents  = 2048
	besideMax    = 4  // chat, history and negotiation under way
	bundleAbove  = 50 // sockets of a room above which events are gathered
	bundleMost   = 500 * time.Millisecond
	commandLimit = 10 * time.Second
)

// socket is one WebSocket.
type socket struct {
	// fixed after the start
	s         *Server
	conn      *websocket.Conn
	raw       net.Conn // below conn, to end a close handshake that takes too long
	ip        netip.Addr
	signalled signalled
	wake      chan struct{} // capacity 1: there is something to write

	// the reader's alone
	rate   *rate.Limiter
	joined bool
	beside chan struct{} // capacity besideMax
	wg     sync.WaitGroup

	mu     sync.Mutex
	at     session
	live   bool              // "joined" is queued: events may follow
	queue  [][]byte          // whole messages, in order
	events []json.RawMessage // written together after the queue
	bytes  int
	end    *farewell
}

// serveSocket is the handler of /ws.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	ip := limits.ClientIP(r)
	if !s.sockets.Take(ip) {
		refuse(w, http.StatusTooManyRequests, errRate)
		return
	}
	defer s.sockets.Free(ip)
	// Accept refuses an Origin that is not the request's host.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // the client was told
	}
	conn.SetReadLimit(maxMessage)
	k := &socket{s: s, conn: conn, raw: rawConn(r), ip: ip, signalled: signalledBy("websocket", r), wake: make(chan struct{}, 1),
		rate: rate.NewLimiter(msgsPerSec, msgsBurst), beside: make(chan struct{}, besideMax)}
	if !s.hub.add(k) {
		conn.Close(websocket.StatusGoingAway, "shutdown")
		return
	}
	// The request's context ends with Run's; the socket ends by the hub's farewell,
	// so that the page is told first.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	written := make(chan struct{})
	go func() {
		defer close(written)
		k.write(ctx)
		cancel()
	}()
	k.read(ctx)
	if !k.ending() { // else the writer says farewell first
		cancel()
	}
	<-written
	cancel()
	k.wg.Wait()
	s.hub.remove(k)
	if at := k.seat(); at.participant != "" {
		s.orphans.add(at)
	}
}

// read carries out what the page sends until the socket ends.
func (k *socket) read(ctx context.Context) {
	start := time.Now()
	for {
		wait := silentAfter
		if !k.joined {
			wait = joinWithin - time.Since(start)
		}
		rctx, cancel := context.WithTimeout(ctx, wait)
		typ, b, err := k.conn.Read(rctx)
		cancel()
		if err != nil {
			if malformed(err) {
				k.s.sawRefused(k.ip, err)
			}
			return
		}
		if typ != websocket.MessageText || !k.rate.Allow() {
			k.s.sawRefused(k.ip, errNotNow)
			k.bye(farewell{"flood", "too many messages, or not text", false})
			return
		}
		id, name, req, ref := decode(b)
		if ref != nil {
			k.s.sawRefused(k.ip, ref)
			k.fail(id, ref)
			continue
		}
		k.handle(ctx, id, name, req)
	}
}

var errNotNow = errors.New("too many messages, or not text")

// malformed tells a frame that breaks the protocol or is too long from a
// connection that ended.
func malformed(err error) bool {
	_, ended := errors.AsType[net.Error](err)
	return !ended && websocket.CloseStatus(err) == -1 && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) &&
		!errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// sawRefused counts a message that was not understood and logs the 1st, 2nd, 4th, …
func (s *Server) sawRefused(ip netip.Addr, err error) {
	s.metrics.malformed.Inc()
	if n := s.refused.Add(1); n&(n-1) == 0 {
		s.log.Warn("WebSocket messages refused", zap.Uint64("total", n), zap.Stringer("last_from", ip), zap.NamedError("last", err))
	}
}

// seat returns whom the socket acts for.
func (k *socket) seat() session {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.at
}

// sit sets whom the socket acts for; events are held until answer is queued.
func (k *socket) sit(v session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at, k.live, k.events = v, false, nil
}

// poke wakes the writer.
func (k *socket) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// send queues a message.
func (k *socket) send(m message) { k.enqueue(m, false) }

// enqueue queues a message; live lets events follow it.
func (k *socket) enqueue(m message, live bool) {
	b, err := json.Marshal(m)
	if err != nil { // data is JSON that was parsed before
		k.s.log.Error("message does not marshal", zap.String("type", m.Type), zap.Error(err))
		return
	}
	k.mu.Lock()
	k.queue = append(k.queue, b)
	k.live = k.live || live
	k.growLocked(len(b))
	k.mu.Unlock()
	k.poke()
}

// event queues an event; it never waits.
func (k *socket) event(raw json.RawMessage) {
	k.mu.Lock()
	if k.end == nil {
		k.events = append(k.events, raw)
		k.growLocked(len(raw))
	}
	wake := k.live
	k.mu.Unlock()
	if wake {
		k.poke()
	}
}

// growLocked counts what was queued and ends a socket that does not read.
func (k *socket) growLocked(n int) {
	k.bytes += n
	if k.end == nil && (k.bytes > queueBytes || len(k.events) > queueEvents) {
		k.queue, k.events = nil, nil
		k.end = &farewell{"slow", "the connection is too slow for this room; connecting again", true}
		k.s.metrics.slow.Inc()
	}
}

// bye ends the socket after what is queued; the first farewell counts.
func (k *socket) bye(f farewell) {
	k.mu.Lock()
	if k.end == nil {
		k.end = &f
	}
	k.mu.Unlock()
	k.poke()
}

func (k *socket) ending() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.end != nil
}

func (k *socket) reply(id int64, typ string, data json.RawMessage) {
	k.send(message{ID: id, Type: typ, Data: data})
}

func (k *socket) fail(id int64, err error) {
	data, merr := json.Marshal(refusal(err))
	if merr != nil {
		k.s.log.Error("refusal does not marshal", zap.Error(merr))
		return
	}
	k.send(message{ID: id, Type: "error", Data: data})
}

// write writes what is queued until the socket ends. In a full room events are
// gathered for a moment, so that a thousand sockets cost a thousand writes for a
// burst and not for each event.
func (k *socket) write(ctx context.Context) {
	var gather <-chan time.Time // events wait for it
	for {
		select {
		case <-ctx.Done():
			k.conn.CloseNow()
			return
		case <-k.wake:
		case <-gather:
			gather = nil
		}
		queue, events, end, room := k.take(gather == nil)
		for _, b := range queue {
			if !k.put(ctx, b, writeWithin) {
				return
			}
		}
		if len(events) > 0 {
			if !k.put(ctx, bundle(events), writeWithin) {
				return
			}
			if n := k.s.hub.size(room); n > bundleAbove {
				gather = time.After(min(time.Duration(n)*time.Millisecond, bundleMost))
			}
		}
		if end != nil {
			k.finish(ctx, *end)
			return
		}
	}
}

// take returns what is to be written now; with an end everything.
func (k *socket) take(withEvents bool) (queue [][]byte, events []json.RawMessage, end *farewell, room string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	queue, k.queue = k.queue, nil
	end = k.end
	if k.live && (withEvents || end != nil) {
		events, k.events = k.events, nil
		k.bytes = 0
	} else {
		k.bytes = 0
		for _, e := range k.events {
			k.bytes += len(e)
		}
	}
	return queue, events, end, k.at.room
}

func (k *socket) put(ctx context.Context, b []byte, within time.Duration) bool {
	wctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := k.conn.Write(wctx, websocket.MessageText, b); err != nil {
		k.conn.CloseNow()
		return false
	}
	return true
}

// finish says farewell and closes, within closeWithin even when the far end is
// silent.
func (k *socket) finish(ctx context.Context, f farewell) {
	data, err := json.Marshal(f)
	if err != nil {
		k.s.log.Error("farewell does not marshal", zap.Error(err))
	}
	b, err := json.Marshal(message{Type: "bye", Data: data})
	if err != nil {
		k.s.log.Error("farewell does not marshal", zap.Error(err))
	}
	if !k.put(ctx, b, closeWithin/2) {
		return
	}
	code := websocket.StatusNormalClosure
	switch f.Reason {
	case "shutdown":
		code = websocket.StatusGoingAway
	case "slow":
		code = websocket.StatusTryAgainLater
	case "flood":
		code = websocket.StatusPolicyViolation
	}
	force := time.AfterFunc(closeWithin/2, func() { k.raw.Close() })
	defer force.Stop()
	if err := k.conn.Close(code, f.Reason); err != nil {
		k.s.log.Debug("close frame not answered", zap.Error(err))
	}
}

// bundle is a message with several events.
func bundle(events []json.RawMessage) []byte {
	n := 32
	for _, e := range events {
		n += len(e) + 1
	}
	b := bytes.NewBuffer(make([]byte, 0, n))
	b.WriteString(`{"type":"events","data":[`)
	for i, e := range events {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(e)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}
