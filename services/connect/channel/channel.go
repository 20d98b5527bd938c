// Package channel says what a channel between two Jami devices is to who uses it
// (connect-and-calls §2): an ordered, encrypted stream of messages on a connection that
// many channels share.
package channel

import (
	"net"

	"github.com/parley-jami/parley/internal/jami"
)

// MaxMessage bounds a message of a channel in bytes (§2.1).
const MaxMessage = 65535

// Channel is a stream of messages to a device whose certificates were checked. Reading and
// writing may go on at once; several writers are safe, each message stays whole.
type Channel interface {
	// Name is what the channel was opened with, for example "sip".
	Name() string
	// Read reads one message. Of a message that is longer than p the rest comes with the
	// next Read. The error is io.EOF when the peer closed the channel.
	Read(p []byte) (int, error)
	// ReadMessage reads one message, or what Read left of one. The caller owns it.
	ReadMessage() ([]byte, error)
	// Write sends p as one message, or as several where it is longer than MaxMessage. An
	// empty p is not sent: on the wire it closes the channel.
	Write(p []byte) (int, error)
	// Close closes the channel in both directions. It may be called more than once.
	Close() error
	// LocalAddr and RemoteAddr are the addresses of the connection (*net.TCPAddr, *net.UDPAddr).
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	// Peer is the device at the other end and its account.
	Peer() Peer
}

// Lasting is implemented by channels that may be gone on with by the next process.
type Lasting interface {
	// Lasts returns a number by which that process knows the channel, of 55 bits, and whether this
	// side opened it; 0: it ends with this process.
	Lasts() (id uint64, ours bool)
	// Next reads one message, or what Read left of one.
	Next() (Message, error)
}

// Message is one of a lasting channel, which comes again in the next process unless Done was called.
type Message struct {
	Data  []byte // the reader's
	Again bool   // the last process had it, and did not call Done
	Done  func()
}

// Peer is a device as its certificates name it. The zero Peer is nobody.
type Peer struct {
	Account jami.ID
	Device  jami.ID // short id
	// DeviceLong is the device's long id, 64 hex digits.
	DeviceLong string
	// Over is what the connection runs over, "tcp" or "udp". TLS is the version of the session that
	// all channels to it share ("TLS 1.3", "DTLS 1.2"), Suite its cipher suite by the IANA name.
	Over, TLS, Suite string
}

// Handler takes channels that peers open to an account of this node. account is that
// account; the handler owns c and returns soon. An error declines the channel.
type Handler interface {
	Accept(account jami.ID, c Channel) error
}
