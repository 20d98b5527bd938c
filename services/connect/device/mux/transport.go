package mux

import (
	"bufio"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/parley-jami/parley/services/connect/device/lasting"
)

// Transport carries the messages of a connection. A socket's methods may be called from several
// goroutines.
type Transport interface {
	// Serve calls take with each message that comes, until the connection ends or take fails,
	// and returns why; an orderly end is io.EOF. Messages of one channel come one after the
	// other, those of two may at once. data of length 0 is the end of the channel. take may keep data.
	Serve(take func(ch uint16, data []byte) error) error
	// Open says that a channel may be written to from now on.
	Open(ch uint16) error
	// Write sends a message, or with no data the end of a channel. It waits for the peer, [WriteTime] at
	// most; then the error is os.ErrDeadlineExceeded.
	Write(ch uint16, data []byte) error
	// Number is a number to try for a channel that this side opens.
	Number() uint16
	// Close ends the connection. It waits no longer than [CloseTime] for the peer.
	Close()
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// Times of transports.
const (
	WriteTime = 20 * time.Second // a peer that takes longer to read is cut off
	CloseTime = 300 * time.Millisecond
)

// stream is the transport of a byte stream: messages as package mux frames them.
type stream struct {
	net.Conn
	lasts *lasting.Conn // the same, if the next process may go on with it; else nil
	wmu   sync.Mutex    // writing
}

// Serve implements Transport.
func (t *stream) Serve(take func(ch uint16, data []byte) error) error {
	r := bufio.NewReaderSize(t.Conn, readBuffer)
	for {
		ch, data, err := readMessage(r)
		if err == nil {
			err = take(ch, data)
		}
		if err != nil {
			return err
		}
		if t.lasts != nil {
			t.lasts.Took(r.Buffered())
		}
	}
}

// Open implements Transport.
func (t *stream) Open(uint16) error { return nil }

// buffers are for messages with their headers.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// Write implements Transport.
func (t *stream) Write(ch uint16, data []byte) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	*b = appendMessage((*b)[:0], ch, data)
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if err := t.Conn.SetWriteDeadline(time.Now().Add(WriteTime)); err != nil {
		return err
	}
	_, err := t.Conn.Write(*b)
	return err
}

// Number implements Transport: any one, as stock does (§2.3).
func (t *stream) Number() uint16 { return uint16(1 + rand.N(protocol-1)) }

// Close implements Transport.
func (t *stream) Close() {
	if c, ok := t.Conn.(interface{ NetConn() net.Conn }); ok { // TLS tells the peer, which may not read
		cut := time.AfterFunc(CloseTime, func() { c.NetConn().Close() })
		defer cut.Stop()
	}
	t.Conn.Close() // what is wrong with it is of no use any more
}

// slow says ErrSlowPeer for a write that took too long.
func slow(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrSlowPeer
	}
	return err
}
