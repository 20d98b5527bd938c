package icetcp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/pion/stun"
)

const (
	maxFrame   = 65535
	maxSTUN    = 1280 // bytes; a check has some 130
	stunHeader = 20
	readBuffer = 2 << 10 // more is read straight into the reader's own
)

// errFrame says that the peer broke the framing.
var errFrame = errors.New("a frame that is none")

// framed is a TCP connection with frames. One goroutine reads; several may write.
type framed struct {
	net.Conn
	r    *bufio.Reader
	left int // bytes of a data frame that are still to be read

	wmu  sync.Mutex
	head [2]byte
	bufs [2][]byte
}

func newFramed(c net.Conn) *framed {
	return &framed{Conn: c, r: bufio.NewReaderSize(c, readBuffer)}
}

// next reads up to the next STUN message, or up to the bytes of a data frame: nil.
func (f *framed) next() (*stun.Message, error) {
	for {
		b, err := f.r.Peek(2)
		if err != nil {
			return nil, eof(err)
		}
		n := int(binary.BigEndian.Uint16(b))
		if n == 0 { // stock sends none; it means nothing
			f.discard(2)
			continue
		}
		if n < stunHeader {
			f.discard(2)
			f.left = n
			return nil, nil
		}
		if b, err = f.r.Peek(2 + stunHeader); err != nil {
			return nil, eof(err)
		}
		isSTUN := b[2]>>6 == 0 && stun.IsMessage(b[2:]) && int(binary.BigEndian.Uint16(b[4:])) == n-stunHeader
		f.discard(2)
		if !isSTUN {
			f.left = n
			return nil, nil
		}
		if n > maxSTUN {
			return nil, fmt.Errorf("%w: a STUN message of %d bytes", errFrame, n)
		}
		m := &stun.Message{Raw: make([]byte, n)}
		if _, err := io.ReadFull(f.r, m.Raw); err != nil {
			return nil, eof(err)
		}
		if err := m.Decode(); err != nil {
			return nil, fmt.Errorf("%w: %w", errFrame, err)
		}
		return m, nil
	}
}

func (f *framed) discard(n int) { _, _ = f.r.Discard(n) } // what was peeked at is there

// eof keeps an end within a frame from passing for one between two.
func eof(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

// send writes one frame.
func (f *framed) send(b []byte) error {
	f.wmu.Lock()
	defer f.wmu.Unlock()
	return f.sendLocked(b)
}

func (f *framed) sendLocked(b []byte) error {
	binary.BigEndian.PutUint16(f.head[:], uint16(len(b)))
	if _, kernel := f.Conn.(*net.TCPConn); !kernel { // each of several buffers would be a packet
		_, err := f.Conn.Write(append(f.head[:], b...))
		return err
	}
	f.bufs[0], f.bufs[1] = f.head[:], b
	out := net.Buffers(f.bufs[:])
	_, err := out.WriteTo(f.Conn)
	f.bufs[1] = nil
	return err
}

// trySend writes a frame unless another is being written: what the peer can do without
// never waits for a peer that doesn't read.
func (f *framed) trySend(b []byte) error {
	if !f.wmu.TryLock() {
		return nil
	}
	defer f.wmu.Unlock()
	return f.sendLocked(b)
}
