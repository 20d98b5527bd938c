package mix

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
)

const tickNs = int64(TickLength)

// leg is a member of a test with a voice of its own, and what it heard.
type leg struct {
	t     testing.TB
	m     *Member
	codec CodecID
	enc   codec.Encoder
	dec   codec.Decoder
	heard []float32
	count int
	last  Frame
	marks int
	seq   uint16
	ts    uint32
}

func (l *leg) WriteFrame(f *Frame) {
	l.count++
	l.last = *f
	if f.Marker {
		l.marks++
	}
	if l.dec == nil {
		return
	}
	buf := make([]float32, codec.MaxSamples)
	n, err := l.dec.Decode(buf, f.Payload)
	if err != nil {
		l.t.Error(err)
	}
	l.heard = append(l.heard, buf[:n]...)
}

// say pushes 20 ms.
func (l *leg) say(pcm []float32, level int8, now int64) {
	buf := make([]byte, codec.MaxPayload)
	n, err := l.enc.Encode(buf, pcm)
	if err != nil {
		l.t.Fatal(err)
	}
	l.m.Push(&Packet{Seq: l.seq, Timestamp: l.ts, Level: level, Payload: buf[:n], Arrival: now})
	l.seq++
	l.ts += l.codec.RTPSamples()
}

func newLeg(t testing.TB, r *Room, id string, c CodecID) *leg {
	t.Helper()
	dec, err := codec.NewDecoder(c)
	if err != nil {
		t.Fatal(err)
	}
	return join(t, r, id, &leg{t: t, codec: c, dec: dec})
}

// join makes l a member: from then on the room's goroutine writes to it.
func join(t testing.TB, r *Room, id string, l *leg) *leg {
	t.Helper()
	var err error
	if l.enc, err = codec.NewEncoder(l.codec); err != nil {
		t.Fatal(err)
	}
	if l.m, err = r.Add(id, l.codec, l.codec, l, true, false); err != nil {
		t.Fatal(err)
	}
	return l
}

// manual makes a room whose ticks the test gives.
func manual(cfg Config) *Room {
	r := NewRoom(cfg)
	r.running = true
	return r
}

func tone(hz, amp float64, frame int) []float32 {
	pcm := make([]float32, frameSamples)
	for i := range pcm {
		pcm[i] = float32(amp * math.Sin(2*math.Pi*hz*float64(frame*frameSamples+i)/codec.Rate))
	}
	return pcm
}

// at returns the level of one frequency, in dBFS.
func at(pcm []float32, hz float64) float64 {
	var re, im float64
	for i, v := range pcm {
		w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(len(pcm)))
		a := 2 * math.Pi * hz * float64(i) / codec.Rate
		re += w * float64(v) * math.Cos(a)
		im += w * float64(v) * math.Sin(a)
	}
	n := float64(len(pcm)) / 2
	return 10 * math.Log10(2*(re*re+im*im)/(n*n)+1e-20)
}

// TestEveryoneHearsTheOthersAndNotHimself has four callers, each with a codec and
// a tone of his own.
func TestEveryoneHearsTheOthersAndNotHimself(t *testing.T) {
	for _, level := range []int8{-1, 20} {
		r := manual(Config{Loudest: 4})
		hz := []float64{400, 700, 1000, 1300}
		var legs []*leg
		for i, c := range []CodecID{Opus, G722, PCMU, PCMA} {
			legs = append(legs, newLeg(t, r, fmt.Sprint(i), c))
		}
		for tick := range 150 {
			now := int64(tick) * tickNs
			for i, l := range legs {
				l.say(tone(hz[i], 0.2, tick), level, now)
			}
			r.tick(now+int64(12*time.Millisecond), uint64(tick))
		}
		for i, l := range legs {
			heard := l.heard[len(l.heard)-50*frameSamples:]
			row := ""
			low := 0.0
			for j := range legs {
				v := at(heard, hz[j])
				row += fmt.Sprintf(" %6.1f", v)
				if j != i {
					low = min(low, v)
					if v < -30 {
						t.Errorf("%v hears %v at %.1f dBFS", l.codec, legs[j].codec, v)
					}
				}
			}
			t.Logf("level %d, %v hears:%s", level, l.codec, row)
			if self := at(heard, hz[i]); self > low-35 {
				t.Errorf("%v hears himself at %.1f dBFS, others at %.1f", l.codec, self, low)
			}
		}
	}
}

func TestFirstSyllableIsWhole(t *testing.T) {
	r := manual(Config{})
	a, b := newLeg(t, r, "a", PCMU), newLeg(t, r, "b", PCMU)
	said := 5
	for tick := range 30 {
		now := int64(tick) * tickNs
		if tick < said {
			a.say(tone(500, 0.5, tick), 10, now)
		}
		r.tick(now+int64(12*time.Millisecond), uint64(tick))
	}
	var energy, sent float64
	for _, v := range b.heard {
		energy += float64(v) * float64(v)
	}
	for tick := range said {
		for _, v := range tone(500, 0.5, tick) {
			sent += float64(v) * float64(v)
		}
	}
	if energy < 0.9*sent {
		t.Errorf("of the energy said, %.0f %% was heard", 100*energy/sent)
	}
}

func TestSilenceEndsTheFlowAndItBeginsWithAMarker(t *testing.T) {
	r := manual(Config{})
	a, b := newLeg(t, r, "a", Opus), newLeg(t, r, "b", Opus)
	tick := 0
	run := func(n int, talk bool) {
		for range n {
			now := int64(tick) * tickNs
			if talk {
				a.say(tone(500, 0.2, tick), -1, now)
			}
			r.tick(now+int64(12*time.Millisecond), uint64(tick))
			tick++
		}
	}
	run(50, true)
	if b.count < 48 {
		t.Fatalf("%d frames in a second of speech", b.count)
	}
	run(150, false)
	before := b.count
	run(10, false)
	if b.count != before {
		t.Error("frames go on in silence")
	}
	if len(r.sending) != 0 || len(r.loud) != 0 || r.tail != 0 {
		t.Errorf("the room doesn't sleep: %d sending, %d heard", len(r.sending), len(r.loud))
	}
	run(5, true)
	if b.marks != 2 {
		t.Errorf("%d markers for two talk spurts", b.marks)
	}
	if b.last.Tick != uint64(tick-1) {
		t.Errorf("tick %d in a pause-proof count of %d", b.last.Tick, tick-1)
	}
}

func TestLoudestAreHeardWithoutFlapping(t *testing.T) {
	var mu sync.Mutex
	voices := map[string]int{}
	r := manual(Config{Loudest: 2, OnVoice: func(id string, on bool, _ int) {
		mu.Lock()
		defer mu.Unlock()
		voices[id]++
	}})
	var legs []*leg
	for i := range 5 {
		legs = append(legs, newLeg(t, r, fmt.Sprint(i), Opus))
	}
	changes, last := 0, ""
	for tick := range 300 {
		now := int64(tick) * tickNs
		for i, l := range legs {
			lv := int8(30 + (tick*7+i*5)%5) // all alike, within 4 dB
			if i == 4 && tick > 150 {
				lv = 12
			}
			l.say(tone(300+100*float64(i), 0.1, tick), lv, now)
		}
		r.tick(now+int64(12*time.Millisecond), uint64(tick))
		names := ""
		for _, m := range r.loud {
			names += m.id
		}
		if names != last {
			changes++
			last = names
		}
	}
	if len(r.loud) != 2 || changes > 2 {
		t.Errorf("%d are heard after %d changes", len(r.loud), changes)
	}
	if !legs[4].m.t.heard.taken {
		t.Error("the loudest isn't heard")
	}
	for id, n := range voices {
		if n != 1 {
			t.Errorf("voice of %s changed %d times", id, n)
		}
	}
}

func TestMutedAreNotHeardAtOnce(t *testing.T) {
	r := manual(Config{})
	a, b := newLeg(t, r, "a", PCMU), newLeg(t, r, "b", PCMU)
	for tick := range 60 {
		now := int64(tick) * tickNs
		if tick == 30 {
			a.m.SetMuted(true)
			b.heard = nil
		}
		a.say(tone(500, 0.5, tick), 10, now)
		r.tick(now+int64(12*time.Millisecond), uint64(tick))
	}
	loud := 0
	for _, v := range b.heard {
		if v > 0.02 || v < -0.02 {
			loud++
		}
	}
	if loud > frameSamples {
		t.Errorf("%d samples were heard after the mute", loud)
	}
	if s := a.m.Stats(); s.Dropped != 30 {
		t.Errorf("%d packets dropped", s.Dropped)
	}
}

func TestLimiterHoldsTheCeiling(t *testing.T) {
	var l limiter
	l.reset()
	for tick := range 50 {
		pcm := tone(440, 0.5, tick)
		if tick%7 == 3 {
			for i := range pcm {
				pcm[i] *= 6
			}
		}
		l.process(pcm)
		for i, v := range pcm {
			if v > ceiling+1e-4 || v < -ceiling-1e-4 {
				t.Fatalf("sample %d of frame %d is %v", i, tick, v)
			}
		}
	}
}

// TestRoomRunsByItself uses the real clock: a speaker is heard, and the room sleeps after.
func TestRoomRunsByItself(t *testing.T) {
	var mu sync.Mutex
	flushes := 0
	r := NewRoom(Config{Flush: func() { mu.Lock(); flushes++; mu.Unlock() }})
	a, b := newLeg(t, r, "a", Opus), newLeg(t, r, "b", Opus)
	if _, err := r.Add("a", Opus, Opus, nil, true, false); err != ErrDuplicate {
		t.Errorf("a second member of the same id: %v", err)
	}
	ticker := time.NewTicker(TickLength)
	defer ticker.Stop()
	for i := range 25 {
		a.say(tone(440, 0.2, i), -1, Now())
		<-ticker.C
	}
	r.Close()
	if b.count < 20 || flushes < 20 {
		t.Errorf("%d frames and %d flushes in 25 ticks", b.count, flushes)
	}
	before := b.count
	b.m.Close()
	if _, err := r.Add("c", Opus, Opus, nil, true, false); err != ErrClosed {
		t.Errorf("joining a closed room: %v", err)
	}
	if b.count != before {
		t.Error("frames after the end")
	}
}

func TestMembersComeAndGo(t *testing.T) {
	r := NewRoom(Config{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				l := join(t, r, fmt.Sprint(i, "-", j), &leg{t: t, codec: Opus}) // which decodes nothing
				for k := range 5 {
					l.say(tone(440, 0.2, k), 20, Now())
				}
				_ = l.m.Stats()
				if err := l.m.SetCodecs(Opus, PCMU); err != nil {
					t.Error(err)
				}
				l.m.Close()
			}
		})
	}
	wg.Wait()
	if n := r.Len(); n != 0 {
		t.Errorf("%d members are left", n)
	}
	r.Close()
}

// sinkCount is a listener that only counts.
type sinkCount struct{ n int }

func (s *sinkCount) WriteFrame(*Frame) { s.n++ }

// crowd makes a room with n listeners, of which three speak; step runs a tick.
func crowd(t testing.TB, n int) (r *Room, step func()) {
	r = manual(Config{})
	var speakers []*leg
	for i := range 3 {
		l := newLeg(t, r, fmt.Sprint("s", i), Opus)
		l.dec = nil
		speakers = append(speakers, l)
	}
	for i := range n - 3 {
		if _, err := r.Add(fmt.Sprint(i), Opus, Opus, &sinkCount{}, false, false); err != nil {
			t.Fatal(err)
		}
	}
	var packets [3][50][]byte
	for i, l := range speakers {
		for k := range 50 {
			buf := make([]byte, codec.MaxPayload)
			m, err := l.enc.Encode(buf, tone(300+200*float64(i), 0.2, k))
			if err != nil {
				t.Fatal(err)
			}
			packets[i][k] = buf[:m]
		}
	}
	tick := 0
	return r, func() {
		now := int64(tick) * tickNs
		for i, l := range speakers {
			l.m.Push(&Packet{Seq: uint16(tick), Timestamp: uint32(tick * frameSamples), Level: 20, Payload: packets[i][tick%50], Arrival: now})
		}
		r.tick(now+int64(12*time.Millisecond), uint64(tick))
		tick++
	}
}

func TestATickDoesNotAllocate(t *testing.T) {
	_, step := crowd(t, 100)
	for range 20 {
		step()
	}
	if n := testing.AllocsPerRun(100, step); n != 0 {
		t.Errorf("%v allocations a tick", n)
	}
}

func BenchmarkTick(b *testing.B) {
	for _, n := range []int{4, 16, 128, 1024, 8192} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, step := crowd(b, n)
			for range 20 {
				step()
			}
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)*50/1e6/float64(n), "ms/s/listener")
		})
	}
}

// humming is a source that never ends.
type humming struct{}

func (humming) Read(dst []float32) bool {
	for i := range dst {
		dst[i] = 0.1
	}
	return true
}

// A tick that is late by less than its length is done, an older one is left out.
func TestLateTicks(t *testing.T) {
	r := &Room{epoch: 1000}
	const ms = int64(time.Millisecond)
	for _, c := range []struct{ late, want int64 }{
		{0, 100}, {1 * ms, 100}, {20 * ms, 100}, {20*ms + 1, 101}, {39 * ms, 101}, {40 * ms, 102}, {1000 * ms, 150},
	} {
		now := r.epoch + 100*int64(TickLength) + c.late
		if got := r.turn(100, now); got != c.want || r.until(got, now) > 0 {
			t.Errorf("%d ms late: tick %d, want %d", c.late/ms, got, c.want)
		}
	}
	if got := r.until(100, r.epoch); got != 100*TickLength {
		t.Errorf("%v until tick 100", got)
	}
}

// TestMissedTicksAreCounted: a room that is held up for longer than a tick says how many went by.
func TestMissedTicksAreCounted(t *testing.T) {
	ticks := new(Ticks)
	r := NewRoom(Config{Ticks: ticks, Flush: func() { <-time.After(2*TickLength + TickLength/2) }})
	defer r.Close()
	m, err := r.AddSource("a", humming{}, true, false)
	if err != nil {
		t.Fatal(err)
	}
	m.Wake()
	for end := time.Now().Add(10 * time.Second); ticks.Done.Load() < 4; <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the room has no ticks")
		}
	}
	if done, missed, spent := ticks.Done.Load(), ticks.Missed.Load(), time.Duration(ticks.Spent.Load()); missed < done || spent < time.Duration(done)*2*TickLength {
		t.Errorf("%d done in %v, %d missed", done, spent, missed)
	}
}
