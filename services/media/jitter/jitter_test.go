package jitter

import (
	"encoding/binary"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/parley-jami/parley/services/media/codec"
)

// fake is a codec whose packets hold their number; it plays as that number.
type fake struct{ size int }

func (d fake) Decode(dst []float32, p []byte) (int, error) {
	for i := range d.size {
		dst[i] = float32(binary.BigEndian.Uint32(p))
	}
	return d.size, nil
}
func (fake) DecodeFEC(dst []float32, p []byte) error {
	for i := range dst {
		dst[i] = float32(binary.BigEndian.Uint32(p)) - 1
	}
	return nil
}
func (fake) Conceal(dst []float32) error { clear(dst); return nil }
func (fake) Reset() error                { return nil }

// event is a packet on its way.
type event struct {
	at  int64
	num int
}

// network makes the arrivals of n packets of the given length in ms, sent on a
// clock that is ppm fast.
func network(n, ptime int, ppm float64, delay func(i int) (ms float64, lost bool)) []event {
	var out []event
	for i := range n {
		d, lost := delay(i)
		if !lost {
			at := float64(i) * float64(ptime) * (1 - ppm/1e6)
			out = append(out, event{int64((at + d) * 1e6), i})
		}
	}
	sort.SliceStable(out, func(a, b int) bool { return out[a].at < out[b].at })
	return out
}

// result is what was heard.
type result struct {
	gaps    int       // ticks made up or silent between the first and the last sound
	delays  []float64 // ms from arrival to playing, one a tick
	backs   int       // numbers that went backwards
	numbers map[int]bool
	stats   Stats
}

func (r result) p(q float64) float64 {
	s := append([]float64{}, r.delays...)
	sort.Float64s(s)
	return s[int(q*float64(len(s)-1))]
}

// play runs the arrivals through a buffer for the given ticks, which are offset
// against the sender's.
func play(events []event, ptime, ticks int, offset int64) result {
	b, dec, dst := New(false), fake{ptime * 48}, make([]float32, frame)
	res := result{numbers: map[int]bool{}}
	arrived := map[int]int64{}
	last, pending := -1, 0
	for t := range ticks {
		now := offset + int64(t)*frameNs
		for len(events) > 0 && events[0].at <= now {
			e := events[0]
			events = events[1:]
			if _, dup := arrived[e.num]; !dup {
				arrived[e.num] = e.at
			}
			b.Put(codec.Opus, 7, uint16(65500+e.num), uint32(4294960000+e.num*ptime*48), binary.BigEndian.AppendUint32(nil, uint32(e.num+1)), ptime*48, e.at)
		}
		f := b.Pull(now, codec.Opus, dec, dst)
		num := int(dst[0]) - 1
		if num >= 0 {
			res.numbers[num] = true
			if num < last {
				res.backs++
			}
			if at, ok := arrived[num]; ok && num > last {
				res.delays = append(res.delays, float64(now-at)/1e6)
			}
			last = num
			res.gaps += pending
			pending = 0
		} else if last >= 0 {
			pending++
		}
		_ = f
	}
	res.stats = b.Stats()
	return res
}

func TestNetworks(t *testing.T) {
	rnd := func() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
	r1, r2, r3, r4 := rnd(), rnd(), rnd(), rnd()
	cases := []struct {
		name    string
		ptime   int
		ppm     float64
		delay   func(i int) (float64, bool)
		maxGaps int     // of 1500 ticks
		maxP50  float64 // ms
		minHave float64 // share of the packets that were heard
	}{
		{"calm", 20, 0, func(int) (float64, bool) { return 5, false }, 0, 25, 0.99},
		{"little jitter", 20, 0, func(int) (float64, bool) { return 5 + 4*r1.Float64(), false }, 2, 30, 0.99},
		{"much jitter", 20, 0, func(int) (float64, bool) { return 5 + 60*r2.Float64(), false }, 40, 90, 0.97},
		{"one in ten lost", 20, 0, func(i int) (float64, bool) { return 5, i%10 == 5 }, 20, 45, 0.97},
		{"bursts lost", 20, 0, func(i int) (float64, bool) { return 5, i%50 > 44 }, 170, 30, 0.88},
		{"pairs swapped", 20, 0, func(i int) (float64, bool) { return 5 + 25*float64(i&1^1), false }, 30, 50, 0.95},
		{"fast clock", 20, 500, func(int) (float64, bool) { return 5, false }, 2, 30, 0.97},
		{"slow clock", 20, -500, func(int) (float64, bool) { return 5 + r3.Float64(), false }, 4, 35, 0.99},
		{"stall of 400 ms", 20, 0, func(i int) (float64, bool) {
			if i >= 200 && i < 220 {
				return 5 + 20*float64(220-i), false
			}
			return 5, false
		}, 22, 30, 0.96},
		{"10 ms packets", 10, 0, func(int) (float64, bool) { return 5 + 2*r4.Float64(), false }, 1, 35, 0.45},
		{"30 ms packets", 30, 0, func(int) (float64, bool) { return 5, false }, 1, 40, 0.95},
		{"60 ms packets", 60, 0, func(int) (float64, bool) { return 5, false }, 1, 70, 0.95},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := 30000 / c.ptime
			for _, offset := range []int64{0, 7e6, 13e6} {
				r := play(network(n, c.ptime, c.ppm, c.delay), c.ptime, 1500, offset)
				if r.gaps > c.maxGaps || r.p(0.5) > c.maxP50 || r.backs > 0 || float64(len(r.numbers)) < c.minHave*float64(n) {
					t.Errorf("offset %d: %d gaps, p50 %.1f ms, p95 %.1f, %d backwards, %d of %d heard, %+v",
						offset/1e6, r.gaps, r.p(0.5), r.p(0.95), r.backs, len(r.numbers), n, r.stats)
				}
				t.Logf("offset %d: %d gaps, p50 %.1f ms, p95 %.1f, %d heard, %+v", offset/1e6, r.gaps, r.p(0.5), r.p(0.95), len(r.numbers), r.stats)
			}
		})
	}
}

func TestDelayComesBackAfterAStall(t *testing.T) {
	r := play(network(1500, 20, 0, func(i int) (float64, bool) {
		if i >= 200 && i < 205 {
			return 5 + 20*float64(205-i), false
		}
		return 5, false
	}), 20, 1500, 3e6)
	if end := r.delays[len(r.delays)-1]; end > 30 {
		t.Errorf("25 s after a stall of 100 ms a packet still waits %.0f ms", end)
	}
}

func TestPausesAreSilentAndResumeWhole(t *testing.T) {
	b, dec, dst := New(false), fake{frame}, make([]float32, frame)
	heard := map[int]bool{}
	active := 0
	for tick := range 400 {
		now := int64(tick)*frameNs + 9e6
		if tick%100 < 50 { // talks for a second, is silent for one
			b.Put(codec.Opus, 1, uint16(tick%100+tick/100*50), uint32(tick*frame), binary.BigEndian.AppendUint32(nil, uint32(tick+1)), frame, int64(tick)*frameNs)
		}
		if b.Pull(now, codec.Opus, dec, dst).Active {
			active++
		}
		heard[int(dst[0])-1] = true
	}
	for tick := range 400 {
		if tick%100 < 50 && !heard[tick] {
			t.Errorf("frame %d was not heard", tick)
		}
	}
	if active > 4*(50+6) {
		t.Errorf("%d ticks had sound, 200 were sent", active)
	}
}

func TestRestartsAndOddNumbers(t *testing.T) {
	put := func(b *Buffer, ssrc uint32, seq uint16, at int64) Result {
		return b.Put(codec.Opus, ssrc, seq, uint32(seq)*frame, []byte{0, 0, 0, 1}, frame, at)
	}
	b := New(false)
	for i, c := range []struct {
		ssrc uint32
		seq  uint16
		want Result
	}{
		{1, 65534, Accepted}, {1, 65535, Accepted}, {1, 0, Accepted}, {1, 0, Duplicate},
		{1, 30000, Dropped}, {1, 1, Accepted}, // a stray
		{1, 40000, Dropped}, {1, 40001, Restarted}, // two in a row
		{2, 5, Restarted},
	} {
		if got := put(b, c.ssrc, c.seq, int64(i)*frameNs); got != c.want {
			t.Errorf("packet %d (ssrc %d, seq %d): %v, want %v", i, c.ssrc, c.seq, got, c.want)
		}
	}
	if got := b.Put(codec.Opus, 2, 6, 0, make([]byte, MaxPayload+1), frame, 0); got != Dropped {
		t.Errorf("an oversized payload: %v", got)
	}
	if got := b.Put(codec.Opus, 2, 6, 0, nil, 0, 0); got != Dropped {
		t.Errorf("an unreadable payload: %v", got)
	}
}

func TestWhoIsDecodedLateStartsWhole(t *testing.T) {
	b, dst := New(false), make([]float32, frame)
	var dec codec.Decoder
	for tick := range 50 {
		b.Put(codec.Opus, 1, uint16(tick), uint32(tick*frame), binary.BigEndian.AppendUint32(nil, uint32(tick+1)), frame, int64(tick)*frameNs)
		if tick == 30 {
			dec = fake{frame}
		}
		f := b.Pull(int64(tick)*frameNs+9e6, codec.Opus, dec, dst)
		if tick >= 30 && (int(dst[0]) != tick+1 || f.Concealed || len(f.Packets) != 1) {
			t.Fatalf("tick %d plays %v, %+v", tick, dst[0], f)
		}
	}
}

func TestNothingAllocates(t *testing.T) {
	b, dst, p := New(false), make([]float32, frame), []byte{0, 0, 0, 1}
	var dec codec.Decoder = fake{frame}
	tick := 0
	step := func() {
		b.Put(codec.Opus, 1, uint16(tick), uint32(tick*frame), p, frame, int64(tick)*frameNs)
		b.Pull(int64(tick)*frameNs+9e6, codec.Opus, dec, dst)
		tick++
	}
	for range 10 {
		step()
	}
	if n := testing.AllocsPerRun(200, step); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// FuzzBuffer feeds any packets at any times, in each of which it must keep its
// place and its memory.
func FuzzBuffer(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 1, 1, 20, 0, 2, 2, 20})
	f.Add([]byte{255, 250, 1, 9, 0, 1, 200, 3, 7, 7, 7, 7, 128, 0, 128, 255})
	f.Fuzz(func(t *testing.T, in []byte) {
		b, dst := New(false), make([]float32, frame)
		var decs [codec.Count]codec.Decoder
		for _, id := range []codec.ID{codec.Opus, codec.G722, codec.PCMU} {
			var err error
			if decs[id], err = codec.NewDecoder(id); err != nil {
				t.Fatal(err)
			}
		}
		now := int64(0)
		for i := 0; len(in) >= 4; i++ {
			seq, ts := binary.BigEndian.Uint16(in), uint32(in[2])*uint32(in[2])*40
			now += int64(in[3]) * 1e6
			id := codec.PCMU - codec.ID(in[3]>>7) // or G.722, whose packets are of the same length
			b.Put(id, uint32(in[2]>>6), seq, ts, make([]byte, 160+int(in[3]&3)*80), (160+int(in[3]&3)*80)*6, now)
			in = in[4:]
			var d codec.Decoder
			of := b.Next()
			if i%7 < 5 {
				d = decs[of]
			}
			b.Pull(now, of, d, dst)
			if b.count < 0 || b.count > slotCount || b.have < 0 || b.have > pcmSize {
				t.Fatalf("%d packets and %d samples wait", b.count, b.have)
			}
			if (b.firstLocked() == nil) != (b.count == 0) {
				t.Fatalf("%d packets wait and none is the first", b.count)
			}
		}
		b.Reset()
	})
}
