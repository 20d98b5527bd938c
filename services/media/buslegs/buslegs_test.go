package buslegs

import (
	"encoding/binary"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/mix"
)

type published struct {
	subject string
	header  Header
	data    []byte
}

// fakeBus is the bus of a test.
type fakeBus struct {
	logs *observer.ObservedLogs
	mu   sync.Mutex
	subs map[string]func(*Message)
	out  chan published
}

func (b *fakeBus) Publish(subject string, h Header, data []byte) error {
	c := Header{}
	for k, v := range h {
		c[k] = v
	}
	b.out <- published{subject, c, append([]byte(nil), data...)}
	return nil
}

func (b *fakeBus) Subscribe(subject string, _ int, fn func(*Message)) (func(), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[subject] = fn
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subs, subject)
	}, nil
}

// say delivers a message as the bus does and returns the answer.
func (b *fakeBus) say(t *testing.T, subject string, h Header, data []byte) (queued, refused int) {
	t.Helper()
	b.mu.Lock()
	fn := b.subs[subject]
	b.mu.Unlock()
	if fn == nil {
		t.Fatalf("nobody listens on %s", subject)
	}
	fn(&Message{Subject: subject, Header: h, Data: data, Reply: func(q, r int) { queued, refused = q, r }})
	return queued, refused
}

func setup(t *testing.T) (*fakeBus, *mix.Room, *Legs) {
	core, logs := observer.New(zap.InfoLevel)
	b := &fakeBus{subs: map[string]func(*Message){}, out: make(chan published, 10000), logs: logs}
	room := mix.NewRoom(mix.Config{Name: "r"})
	legs := New(b, Subjects{
		Mix:  func(room, f string) string { return "mix." + room + "." + f },
		From: func(room, p, f string) string { return "from." + room + "." + p + "." + f },
		Say:  func(room, bot string) string { return "say." + room + "." + bot },
	}, zap.New(core))
	t.Cleanup(func() {
		legs.Close()
		room.Close()
	})
	return b, room, legs
}

func tone16(rate int, hz float64, ms int) []byte {
	var out []byte
	for i := range rate * ms / 1000 {
		out = binary.LittleEndian.AppendUint16(out, uint16(int16(8000*math.Sin(2*math.Pi*hz*float64(i)/float64(rate)))))
	}
	return out
}

func open(t *testing.T, l *Legs, room *mix.Room, id string) *Leg {
	t.Helper()
	g, err := l.Open(id, "r", room, true, false)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestABotIsHeardByAnother(t *testing.T) {
	b, room, legs := setup(t)
	open(t, legs, room, "talker")
	ear := open(t, legs, room, "ear")
	if err := ear.SetListen(Listen{Mix: "s16le-16000", Speakers: "opus", TTL: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	queued, refused := b.say(t, "say.r.talker", Header{headerFormat: {"s16le-24000"}}, tone16(24000, 500, 400))
	if queued != 400 || refused != 0 {
		t.Errorf("%d ms queued, %d refused", queued, refused)
	}
	var mixed, apart int
	var peak int16
	deadline := time.After(5 * time.Second)
	for mixed < 15 || apart < 15 {
		select {
		case p := <-b.out:
			switch p.subject {
			case "mix.r.s16le-16000":
				mixed++
				if len(p.data) != 640 {
					t.Fatalf("a frame of %d bytes", len(p.data))
				}
				for i := 0; i < len(p.data); i += 2 {
					peak = max(peak, int16(binary.LittleEndian.Uint16(p.data[i:])))
				}
			case "from.r.talker.opus":
				apart++
				if p.header.get(headerSpeaker) != "talker" || codec.Samples(codec.Opus, p.data) != codec.FrameSamples {
					t.Fatalf("%+v, %d bytes", p.header, len(p.data))
				}
			default:
				t.Fatalf("published on %s", p.subject)
			}
			if _, err := strconv.ParseUint(p.header.get(headerSeq), 10, 64); err != nil {
				t.Error(err)
			}
		case <-deadline:
			t.Fatalf("%d frames of the mix and %d of the speaker", mixed, apart)
		}
	}
	if peak < 6000 || peak > 10000 {
		t.Errorf("the mix peaks at %d, said was 8000", peak)
	}
}

func TestAFloodIsTold(t *testing.T) {
	b, room, legs := setup(t)
	open(t, legs, room, "talker")
	second := tone16(16000, 500, 1000)
	for i := range 42 { // 10 s are queued, so about 32 are refused: told at 500, and at 1000 frames
		b.say(t, "say.r.talker", Header{headerFormat: {"s16le-16000"}}, second)
		if n := b.logs.Len(); i < 19 && n != 0 {
			t.Errorf("told after %d s", i+1)
		}
	}
	if n := b.logs.FilterField(zap.String("leg", "talker")).Len(); n != 2 {
		t.Errorf("told %d times, want 2: %v", n, b.logs.All())
	}
}

func TestTheQueueHoldsTenSecondsAndClears(t *testing.T) {
	b, room, legs := setup(t)
	g := open(t, legs, room, "talker")
	second := tone16(16000, 500, 1000)
	h := Header{headerFormat: {"s16le-16000"}}
	for range 9 {
		b.say(t, "say.r.talker", h, second)
	}
	// What the mixer played meanwhile makes room for less than a second.
	b.say(t, "say.r.talker", h, second)
	queued, refused := b.say(t, "say.r.talker", h, second)
	if queued > 10000 || queued < 9000 || refused < 50 {
		t.Errorf("%d ms queued, %d frames refused", queued, refused)
	}
	queued, _ = b.say(t, "say.r.talker", Header{headerClear: {"1"}}, nil)
	if queued > 5 {
		t.Errorf("%d ms are left after clear", queued)
	}
	g.SetMuted(true)
	if queued, _ = b.say(t, "say.r.talker", h, second); queued > 5 { // the fade of what sounded
		t.Errorf("%d ms queued of a muted bot", queued)
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	b, room, legs := setup(t)
	open(t, legs, room, "talker")
	for i, c := range []struct {
		h    Header
		data []byte
		ok   bool
	}{
		{Header{headerFormat: {"s16le-16000"}}, make([]byte, 639), false},
		{Header{headerFormat: {"mp3"}}, make([]byte, 640), false},
		{Header{headerFormat: {"opus"}}, []byte{0xff, 0xff}, false},
		{Header{headerFormat: {"s16le-48000"}, headerEpoch: {"7"}}, make([]byte, 1920), true},
		{Header{headerFormat: {"s16le-48000"}, headerEpoch: {"6"}}, make([]byte, 1920), false},
		{Header{headerFormat: {"s16le-48000"}, headerEpoch: {"x"}}, make([]byte, 1920), false},
		{Header{headerFormat: {"s16le-48000"}, headerEpoch: {"8"}}, make([]byte, 1920), true},
		{Header{headerFormat: {"s16le-48000"}}, make([]byte, 8<<20), false},
	} {
		_, before := b.say(t, "say.r.talker", Header{}, nil)
		if _, after := b.say(t, "say.r.talker", c.h, c.data); (after == before) != c.ok {
			t.Errorf("message %d: refused %d, then %d", i, before, after)
		}
	}
	g := open(t, legs, room, "ear")
	for _, w := range []Listen{{Mix: "mp3"}, {Speakers: "x"}, {Mix: "opus", TTL: time.Hour}} {
		if err := g.SetListen(w); err == nil {
			t.Errorf("%+v is taken", w)
		}
	}
}

func TestListeningEnds(t *testing.T) {
	b, room, legs := setup(t)
	g := open(t, legs, room, "ear")
	if err := g.SetListen(Listen{Mix: "opus"}); err != nil {
		t.Fatal(err)
	}
	if !g.out.WantOpus() {
		t.Error("nothing is wanted")
	}
	g.out.mu.Lock()
	g.out.refreshLocked(time.Now().Add(11 * time.Second))
	g.out.mu.Unlock()
	if g.out.WantOpus() {
		t.Error("a wish outlives its time")
	}
	g.Close()
	if len(legs.rooms) != 0 || len(b.subs) != 0 {
		t.Errorf("%d rooms and %d subscriptions are left", len(legs.rooms), len(b.subs))
	}
}

// TestASlowBusLosesTicks has nobody reading what is published.
func TestASlowBusLosesTicks(t *testing.T) {
	o := newOutlet(nil, Subjects{}, "r", nil)
	o.wants.Store(1 << pcm16)
	f := &mix.TapFrame{Mix: make([]float32, codec.FrameSamples)}
	for range 3 * ringSize {
		o.WriteTap(f)
	}
	if got := o.lost.Load(); got != 2*ringSize {
		t.Errorf("%d lost of %d with room for %d", got, 3*ringSize, ringSize)
	}
}

func BenchmarkFlood(b *testing.B) {
	q := &queue{open: true}
	data, h := tone16(48000, 500, 20), Header{headerFormat: {"s16le-48000"}}
	m := &Message{Header: h, Data: data}
	b.ReportAllocs()
	for b.Loop() {
		q.take(m)
	}
}

// FuzzSay gives a queue what any bot may publish.
func FuzzSay(f *testing.F) {
	f.Add("s16le-16000", "1", "", make([]byte, 640))
	f.Add("opus", "", "7", []byte{0x78, 1, 2, 3})
	f.Add("", "x", "-1", []byte{0xff})
	f.Fuzz(func(t *testing.T, format, clear, epoch string, data []byte) {
		q := &queue{open: true}
		m := &Message{Header: Header{headerFormat: {format}, headerClear: {clear}, headerEpoch: {epoch}}, Data: data}
		dst := make([]float32, codec.FrameSamples)
		for range 3 {
			q.take(m)
			q.Read(dst)
			if n := q.queued(); n < 0 || n > maxQueued {
				t.Fatalf("%d samples queued", n)
			}
		}
	})
}
