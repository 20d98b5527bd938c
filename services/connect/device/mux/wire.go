package mux

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/parley-jami/parley/services/connect/channel"
)

// The channels that are none.
const (
	control  = 0
	protocol = 0xffff
)

// Bounds of what a peer says on control and protocol.
const (
	maxName    = 1024 // bytes
	maxObjects = 64   // in one message
)

// ErrWire says that the peer broke the protocol.
var ErrWire = errors.New("not the protocol of device channels")

// readMessage reads one message. The data is the caller's.
func readMessage(r *bufio.Reader) (ch uint16, data []byte, err error) {
	c, err := r.ReadByte()
	if err != nil {
		return 0, nil, err // between two messages: io.EOF
	}
	if c != 0x92 {
		return 0, nil, fmt.Errorf("%w: %#x in place of an array of two", ErrWire, c)
	}
	n, err := number(r, map[byte]int{msgpcode.Uint8: 1, msgpcode.Uint16: 2, msgpcode.Uint32: 4, msgpcode.Uint64: 8}, true)
	if err != nil || n > 0xffff {
		return 0, nil, wire("channel", n, err)
	}
	size, err := number(r, map[byte]int{msgpcode.Bin8: 1, msgpcode.Bin16: 2, msgpcode.Bin32: 4}, false)
	if err != nil || size > channel.MaxMessage {
		return 0, nil, wire("bytes", size, err)
	}
	data = make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, wire("data", size, err)
	}
	return uint16(n), data, nil
}

func wire(what string, n uint64, err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s %d", ErrWire, what, n)
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// number reads an unsigned number after one of the codes, or one that is a code itself.
func number(r *bufio.Reader, sizes map[byte]int, fixed bool) (uint64, error) {
	c, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	if fixed && c <= msgpcode.PosFixedNumHigh {
		return uint64(c), nil
	}
	var b [8]byte
	n := sizes[c]
	if n == 0 {
		return 0, fmt.Errorf("%w: code %#x", ErrWire, c)
	}
	if _, err := io.ReadFull(r, b[8-n:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// appendMessage appends one message with the smallest numbers.
func appendMessage(dst []byte, ch uint16, data []byte) []byte {
	dst = appendUint16(append(dst, 0x92), ch)
	if len(data) <= 0xff {
		dst = append(dst, msgpcode.Bin8, byte(len(data)))
	} else {
		dst = binary.BigEndian.AppendUint16(append(dst, msgpcode.Bin16), uint16(len(data)))
	}
	return append(dst, data...)
}

func appendUint16(dst []byte, n uint16) []byte {
	switch {
	case n <= 0x7f:
		return append(dst, byte(n))
	case n <= 0xff:
		return append(dst, msgpcode.Uint8, byte(n))
	}
	return binary.BigEndian.AppendUint16(append(dst, msgpcode.Uint16), n)
}

// State is what a channel request says.
type state int

const (
	stateRequest state = iota
	stateAccept
	stateDecline
)

// appendRequest appends a channel request, of which name has at most maxName bytes.
func appendRequest(dst []byte, name string, ch uint16, st state) []byte {
	dst = append(dst, 0x93)
	switch n := len(name); {
	case n < 32:
		dst = append(dst, 0xa0|byte(n))
	case n <= 0xff:
		dst = append(dst, msgpcode.Str8, byte(n))
	default:
		dst = binary.BigEndian.AppendUint16(append(dst, msgpcode.Str16), uint16(n))
	}
	return append(appendUint16(append(dst, name...), ch), byte(st))
}

var (
	version    = []byte("\x81\xa1v\x01")
	beacon     = []byte("\x81\xa1p\xc3")
	beaconBack = []byte("\x81\xa1p\xc2")
)

// said is what one object of control or protocol says: one of these.
type said struct {
	request *channelRequest
	version int  // with "v"
	key     byte // 'v', 'p', or 0
	ping    bool // with "p": it asks
}

type channelRequest struct {
	name  string
	ch    uint16
	state state
}

// parse reads the objects of a message. What is not known ends it without an error: newer
// devices may say more.
func parse(data []byte) (out []said, err error) {
	r := bytes.NewReader(data)
	d := msgpack.NewDecoder(r)
	for r.Len() > 0 {
		if len(out) == maxObjects {
			return nil, fmt.Errorf("%w: more objects than a message has", ErrWire)
		}
		c, err := d.PeekCode()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrWire, err)
		}
		var s said
		switch {
		case msgpcode.IsFixedMap(c):
			s, err = parseMap(d, r)
		case msgpcode.IsFixedArray(c):
			s.request, err = parseRequest(d, r)
		default:
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrWire, err)
		}
		if s.request == nil && s.key == 0 {
			return out, nil
		}
		out = append(out, s)
	}
	return out, nil
}

// parseMap reads a map, whose first key decides. One of which there is more is not gone into.
func parseMap(d *msgpack.Decoder, r *bytes.Reader) (s said, err error) {
	n, err := d.DecodeMapLen()
	if err != nil || n != 1 {
		return s, err
	}
	key, err := text(d, r)
	if err != nil {
		return s, err
	}
	switch key {
	case "v":
		s.key = 'v'
		s.version, err = d.DecodeInt()
	case "p":
		s.key = 'p'
		s.ping, err = d.DecodeBool()
	}
	return s, err
}

func parseRequest(d *msgpack.Decoder, r *bytes.Reader) (*channelRequest, error) {
	n, err := d.DecodeArrayLen()
	if err != nil {
		return nil, err
	}
	if n != 3 {
		return nil, nil
	}
	q := new(channelRequest)
	if q.name, err = text(d, r); err != nil {
		return nil, err
	}
	num, err := d.DecodeUint64() // the smaller ones cut off what is too much
	if err != nil || num > 0xffff {
		return nil, errors.Join(err, fmt.Errorf("channel %d", num))
	}
	q.ch = uint16(num)
	st, err := d.DecodeInt()
	q.state = state(st)
	if err == nil && (q.state < stateRequest || q.state > stateDecline) {
		err = fmt.Errorf("channel state %d", st)
	}
	return q, err
}

func text(d *msgpack.Decoder, r *bytes.Reader) (string, error) {
	c, err := d.PeekCode()
	if err != nil {
		return "", err
	}
	if !msgpcode.IsString(c) && !msgpcode.IsBin(c) {
		return "", errors.New("not a text")
	}
	n, err := d.DecodeBytesLen()
	if err != nil {
		return "", err
	}
	if n > maxName || n > r.Len() {
		return "", fmt.Errorf("a name of %d bytes", n)
	}
	b := make([]byte, n)
	if err := d.ReadFull(b); err != nil {
		return "", err
	}
	return string(b), nil
}
