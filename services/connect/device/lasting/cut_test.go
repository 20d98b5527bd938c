package lasting

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/tls13"
)

// killed is what a process that dies panics with in these tests.
type killed struct{}

// wire is a connection that counts as the kernel does, and on which the process dies after so many bytes.
type wire struct {
	net.Conn        // nil
	in, out  []byte // what the peer sent, and what it got
	read     int
	at       int // where reading, or writing, kills; negative: nowhere
	piece    int // how much a Read gives at most
}

func (w *wire) Read(p []byte) (int, error) {
	if w.read == w.at {
		panic(killed{})
	}
	if w.read == len(w.in) {
		return 0, io.EOF
	}
	n := min(len(p), w.piece, len(w.in)-w.read)
	copy(p, w.in[w.read:w.read+n])
	w.read += n
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	if w.at >= 0 && len(w.out)+len(p) > w.at {
		w.out = append(w.out, p[:w.at-len(w.out)]...)
		panic(killed{})
	}
	w.out = append(w.out, p...)
	return len(p), nil
}

func (w *wire) Close() error                     { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// dies runs fn, and reports whether the process died in it.
func dies(fn func()) (dead bool) {
	defer func() {
		switch r := recover(); r {
		case nil:
		case killed{}:
			dead = true
		default:
			panic(r)
		}
	}()
	fn()
	return false
}

var suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}

// secrets are those of a session that had no handshake.
func secrets(suite uint16) (read, write []byte) {
	n := tls13.SecretSize(suite)
	return bytes.Repeat([]byte{1}, n), bytes.Repeat([]byte{2}, n)
}

func key(t testing.TB, suite uint16, secret []byte) *tls13.Key {
	t.Helper()
	k, err := tls13.NewKey(suite, secret, 0)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// first is a connection of the first process.
func first(t testing.TB, w *wire, suite uint16) *Conn {
	t.Helper()
	read, write := secrets(suite)
	c, _, err := New(w, Session{Suite: suite, Read: read, Write: write}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// next is the same connection in the next process.
func (c *Conn) successor(t testing.TB, w *wire) *Conn {
	t.Helper()
	if err := c.m.check(); err != nil {
		t.Fatal(err)
	}
	x := &Conn{tcp: w, id: c.id, m: c.m}
	if err := x.goOn(uint64(w.read), uint64(len(w.out))); err != nil {
		t.Fatal(err)
	}
	return x
}

// opens opens all records of a stream of frames, and returns what is in them.
func opens(t *testing.T, k *tls13.Key, stream []byte) (out []byte, keys int) {
	t.Helper()
	for len(stream) > 0 {
		n := int(binary.BigEndian.Uint16(stream))
		typ, p, err := k.Open(append([]byte(nil), stream[2:2+n]...))
		switch {
		case err != nil:
			t.Fatal(err)
		case typ == tls13.Data:
			out = append(out, p...)
		case typ == tls13.Handshake && bytes.Equal(p, []byte{keyUpdate, 0, 0, 1, 0}):
			keys++
			if k, err = k.Next(); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("type %d: %x", typ, p)
		}
		stream = stream[2+n:]
	}
	return out, keys
}

// A process that dies in the midst of writing, after whatever byte, has written the message or not begun it.
func TestCutWhileWriting(t *testing.T) {
	for _, suite := range suites {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			messages := [][]byte{[]byte("one"), bytes.Repeat([]byte("two"), 20), bytes.Repeat([]byte("3"), 2*tls13.MaxPlaintext+5), []byte("four")}
			want := slices.Concat(messages...)
			whole := 1 << 30
			for at := 0; at < whole; at++ {
				if at == 300 { // within the long one it is all the same
					at = 2 * tls13.MaxPlaintext
				}
				w := &wire{at: at}
				c := first(t, w, suite)
				deaths := 0
				for i, m := range messages {
					if i == 2 {
						c.m.head.due.Store(1) // the peer has asked for the next key
					}
					if !dies(func() { _, _ = c.Write(m) }) {
						continue
					}
					deaths++
					w.at = -1
					c = c.successor(t, w)
				}
				if deaths == 0 {
					whole = len(w.out)
				}
				if err := c.readyLocked(); err != nil { // of the last one
					t.Fatal(err)
				}
				_, write := secrets(suite)
				if got, keys := opens(t, key(t, suite, write), w.out); !bytes.Equal(got, want) || keys != 1 {
					t.Fatalf("cut at byte %d: the peer got %d bytes with %d keys, want %d", at, len(got), keys, len(want))
				}
				c.m.unmap()
			}
		})
	}
}

// stream is what a peer sends: messages of two bytes of length and text, in records and frames of all kinds.
func stream(t *testing.T, k *tls13.Key) (out []byte, want []string) {
	t.Helper()
	frames := func(b []byte, sizes ...int) {
		for len(b) > 0 {
			n := len(b)
			if len(sizes) > 0 {
				n, sizes = min(n, sizes[0]), sizes[1:]
			}
			out = append(binary.BigEndian.AppendUint16(out, uint16(n)), b[:n]...)
			b = b[n:]
		}
	}
	message := func(text string) []byte {
		want = append(want, text)
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(text))), text...)
	}
	keepAlive, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	ticket := append([]byte{newSessionTicket, 0, 0, 30}, make([]byte, 30)...)
	frames(k.Seal(nil, tls13.Handshake, ticket))
	frames(k.Seal(nil, tls13.Data, message("hello")))
	frames(keepAlive.Raw)
	frames(k.Seal(nil, tls13.Data, append(message("two in"), message("one record")...)), 3, 2, 30) // of three frames
	both := append(message("whole, with a part"), message("of the next one")...)
	frames(k.Seal(nil, tls13.Data, both[:25]))
	frames(k.Seal(nil, tls13.Data, both[25:]))
	m := message("a message in three records, one of which has nothing")
	frames(k.Seal(nil, tls13.Data, m[:1]))
	frames(k.Seal(k.Seal(nil, tls13.Data, nil), tls13.Data, m[1:20])) // two records in a frame
	frames(keepAlive.Raw)
	frames(k.Seal(nil, tls13.Data, m[20:]))
	frames(k.Seal(nil, tls13.Handshake, ticket[:20])) // of two records
	frames(k.Seal(nil, tls13.Handshake, ticket[20:]))
	out = append(out, 0, 0) // a frame with nothing in it
	frames(k.Seal(nil, tls13.Handshake, []byte{keyUpdate, 0, 0, 1, 1}))
	if k, err = k.Next(); err != nil {
		t.Fatal(err)
	}
	frames(k.Seal(nil, tls13.Data, message("with the next key")))
	frames(keepAlive.Raw)
	frames(k.Seal(nil, tls13.Data, message("the last one")))
	frames(k.Seal(nil, tls13.Alert, []byte{1, 0}))
	return out, want
}

// acts reads messages and acts upon them until the end.
func acts(c *Conn, act func(string)) error {
	var buf []byte
	for {
		b := make([]byte, 7)
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		buf = append(buf, b[:n]...)
		for len(buf) >= 2 && len(buf) >= 2+int(buf[0])<<8+int(buf[1]) {
			n := 2 + int(buf[0])<<8 + int(buf[1])
			act(string(buf[2:n]))
			buf = buf[n:]
			c.Took(len(buf))
		}
	}
}

// A process that dies while reading, after whatever byte and in whatever pieces those came, has acted upon each
// message once, together with the one after it.
func TestCutWhileReading(t *testing.T) {
	for _, suite := range suites {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			read, _ := secrets(suite)
			in, want := stream(t, key(t, suite, read))
			for _, piece := range []int{1, 13, 1 << 20} {
				for at := 0; at <= len(in); at++ {
					w := &wire{in: in, at: at, piece: min(piece, max(1, at))}
					c := first(t, w, suite)
					var got []string
					act := func(m string) { got = append(got, m) }
					var err error
					if piece > at {
						w.in = in[:at] // all of which comes at once
					}
					for next := range 3 { // each has said what the one before could not, and dies soon
						if !dies(func() { err = acts(c, act) }) {
							break
						}
						w.at, w.in = w.read+2*w.piece, in
						if next == 1 {
							w.at = -1
						}
						c = c.successor(t, w)
						c.Commit()
					}
					if !errors.Is(err, io.EOF) || !slices.Equal(got, want) {
						t.Fatalf("cut at byte %d, in pieces of %d: %v, %q", at, piece, err, got)
					}
					if c.m.head.due.Load() != 1 {
						t.Fatal("the peer asked for another key in vain")
					}
					c.m.unmap()
				}
			}
		})
	}
}

// What takes more than the memory has is read all the same, and kept again afterwards.
func TestMoreThanTheMemoryHas(t *testing.T) {
	suite := suites[0]
	read, _ := secrets(suite)
	k := key(t, suite, read)
	var in []byte
	long := append([]byte{0x4e, 0x20}, bytes.Repeat([]byte("x"), 20000)...)
	for _, b := range long { // each byte in a record of its own
		r := k.Seal(nil, tls13.Data, []byte{b})
		in = append(append(in, 0, byte(len(r))), r...)
	}
	half := len(in) - 1000
	for _, text := range []string{"short", "and another"} {
		r := k.Seal(nil, tls13.Data, append([]byte{0, byte(len(text))}, text...))
		in = append(append(in, 0, byte(len(r))), r...)
	}
	last := len(in) - 10
	for at, ok := range map[int]bool{half: false, last: true} {
		w := &wire{in: in[:at], at: at, piece: 1 << 20}
		c := first(t, w, suite)
		var got []int
		act := func(m string) { got = append(got, len(m)) }
		if !dies(func() { _ = acts(c, act) }) {
			t.Fatal("it lives")
		}
		if err := c.m.check(); (err == nil) != ok {
			t.Fatalf("cut at byte %d of %d: %v", at, len(in), err)
		}
		if ok {
			w.in, w.at = in, -1
			if err := acts(c.successor(t, w), act); !errors.Is(err, io.EOF) || !slices.Equal(got, []int{20000, 5, 11}) {
				t.Errorf("%v, %v", err, got)
			}
		}
	}
}

// A long time of keep-alives, and of messages that are not acted upon before others come, is no matter.
func TestTheMemoryIsUsedAnew(t *testing.T) {
	suite := suites[0]
	read, _ := secrets(suite)
	k := key(t, suite, read)
	keepAlive, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	var in []byte
	want := 0
	for i := range 3000 {
		text := bytes.Repeat([]byte("y"), i%500)
		r := k.Seal(nil, tls13.Data, append([]byte{byte(len(text) >> 8), byte(len(text))}, text...))
		in = append(append(in, byte(len(r)>>8), byte(len(r))), r...)
		in = append(append(in, 0, byte(len(keepAlive.Raw))), keepAlive.Raw...)
		want++
	}
	for _, piece := range []int{100, 5000, chunk} {
		w := &wire{in: in, at: -1, piece: piece}
		c := first(t, w, suite)
		got := 0
		for step := 50000; ; step += 50000 { // it dies now and then
			w.at = min(step/piece*piece, len(in)+1)
			if !dies(func() { err = acts(c, func(string) { got++ }) }) {
				break
			}
			w.at = -1
			c = c.successor(t, w)
		}
		if !errors.Is(err, io.EOF) || got != want {
			t.Errorf("in pieces of %d: %v, %d of %d", piece, err, got, want)
		}
	}
}
