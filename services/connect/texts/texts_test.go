package texts

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A text as a daemon writes it: {id, t, c, req: nil}.
const wire = "84a2696417" + "a174" + "aa746578742f706c61696e" + "a163" + "a26869" + "a3726571" + "c0"

func TestWire(t *testing.T) {
	text := &Text{ID: 23, Type: "text/plain", Body: "hi"}
	b, err := text.Pack()
	if err != nil || hex.EncodeToString(b) != wire {
		t.Fatalf("%x, %v", b, err)
	}
	// Several texts in pieces of one byte; what is not known is passed over.
	other, err := msgpack.Marshal(map[string]any{"c": "x", "t": "a/b", "id": uint64(1) << 63, "req": map[string]any{"from": "me", "metadatas": []any{1, "a", true}}, "new": 1.5})
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(iotest.OneByteReader(bytes.NewReader(append(append(append([]byte{}, b...), other...), b...))))
	for i, want := range []Text{*text, {ID: 1 << 63, Type: "a/b", Body: "x"}, *text} {
		got, err := r.Next()
		if err != nil || *got != want {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if _, err := (&Text{Body: strings.Repeat("x", MaxBody+1)}).Pack(); !errors.Is(err, ErrWire) {
		t.Errorf("a long one: %v", err)
	}
}

func TestBadWire(t *testing.T) {
	deep := append(bytes.Repeat([]byte{0x91}, 1000), 0xc0)
	head := []byte("\x83\xa1t\xa3a/b\xa1c\xa1x\xa3req")
	for name, b := range map[string][]byte{
		"no map":            []byte("\x93\x01\x02\x03"),
		"nil":               []byte("\xc0"),
		"truncated":         []byte("\x84\xa2id\x01"),
		"a huge map":        []byte("\xdf\xff\xff\xff\xff"),
		"a huge text":       []byte("\x82\xa1t\xa3a/b\xa1c\xdb\xff\xff\xff\xff"),
		"a text too long":   append([]byte("\x82\xa1t\xa3a/b\xa1c\xdb\x00\x00\xc0\x01"), make([]byte, MaxBody+1)...),
		"no text":           []byte("\x81\xa1t\xa3a/b"),
		"no type":           []byte("\x81\xa1c\xa1x"),
		"twice":             []byte("\x82\xa1c\xa1x\xa1c\xa1x"),
		"a number for text": []byte("\x82\xa1t\xa3a/b\xa1c\x01"),
		"not UTF-8":         []byte("\x82\xa1t\xa3a/b\xa1c\xa1\xff"),
		"a negative id":     []byte("\x83\xa1t\xa3a/b\xa1c\xa1x\xa2id\xa1a"),
		"deep":              append(append([]byte{}, head...), deep...),
		"a huge list":       append(append([]byte{}, head...), 0xdd, 0xff, 0xff, 0xff, 0xff, 1, 1),
		"a huge bin":        append(append([]byte{}, head...), 0xc6, 0xff, 0xff, 0xff, 0xff, 1, 1),
		"an extension":      append(append([]byte{}, head...), 0xd4, 1, 1),
	} {
		if got, err := NewReader(bytes.NewReader(b)).Next(); !errors.Is(err, ErrWire) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestNames(t *testing.T) {
	id := jami.LongID{1, 2, 3}
	if got, err := parseName(Name(id)); err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "msg", "msg:", "msg:12", "sip", "msg:" + strings.Repeat("g", 64), Name(id) + "/x"} {
		if _, err := parseName(s); !errors.Is(err, ErrWire) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzTexts(f *testing.F) {
	b, err := hex.DecodeString(wire)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(append(b, b...))
	f.Add([]byte("\x83\xa1t\xa3a/b\xa1c\xa1x\xa3req\x81\xa1a\x92\x01\xc4\x01a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for range 16 {
			x, err := r.Next()
			if err != nil {
				return
			}
			packed, err := x.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := NewReader(bytes.NewReader(packed)).Next(); err != nil || *back != *x {
				t.Fatalf("%+v comes back as %+v, %v", x, back, err)
			}
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add("msg:" + strings.Repeat("ab", 32))
	f.Add("msg:x")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := parseName(s); err == nil && !strings.EqualFold(Name(id), s) {
			t.Errorf("%q is %v", s, id)
		}
	})
}

func TestInbox(t *testing.T) {
	came := make(chan string, 8)
	busy := make(chan error, 8)
	in := NewInbox(func(_ context.Context, account jami.ID, from channel.Peer, x *Text) error {
		select {
		case err := <-busy:
			return err
		default:
		}
		came <- account.String() + " " + from.DeviceLong + " " + x.Body
		return nil
	}, zap.NewNop())
	in.again = time.Millisecond
	defer in.Close()
	peer := channel.Peer{Account: jami.ID{7}, DeviceLong: jami.LongID{8}.String()}
	open := func(name string) (*channeltest.Channel, error) {
		near, far := channeltest.Pipe(name, peer)
		return far, in.Accept(jami.ID{1}, near)
	}
	if _, err := open("msg:me"); !errors.Is(err, ErrWire) {
		t.Errorf("a bad name: %v", err)
	}
	far, err := open(Name(jami.LongID{9}))
	if err != nil {
		t.Fatal(err)
	}
	busy <- errors.New("identity does not run") // it is tried again
	for _, body := range []string{"one", "two"} {
		b, err := (&Text{ID: 1, Type: "text/plain", Body: body}).Pack()
		if err != nil {
			t.Fatal(err)
		}
		for half := range bytes.SplitSeq(b, []byte("plain")) { // no message of the channel is a whole text
			if !bytes.HasSuffix(b, half) {
				half = append(append([]byte{}, half...), "plain"...)
			}
			if _, err := far.Write(half); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := <-came, (jami.ID{1}).String()+" "+peer.DeviceLong+" "+body; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	second, err := open(Name(jami.LongID{9}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(Name(jami.LongID{9})); !errors.Is(err, channel.ErrMany) {
		t.Errorf("a third channel: %v", err)
	}
	// Who breaks the protocol loses the channel.
	if _, err := second.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := second.ReadMessage(); err != io.EOF {
		t.Errorf("after what is no text: %v", err)
	}
	in.Close()
	if _, err := far.ReadMessage(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if _, err := open(Name(jami.LongID{9})); !errors.Is(err, channel.ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
}
