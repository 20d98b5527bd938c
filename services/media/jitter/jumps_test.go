package jitter

import (
	"encoding/binary"
	"testing"

	"github.com/parley-jami/parley/services/media/codec"
)

// TestJumps has a sender whose numbers jump in the middle of a voice: what is missing of the
// sound until it goes on.
func TestJumps(t *testing.T) {
	const at, ticks = 100, 400
	for _, c := range []struct {
		name    string
		seq     int    // added to the sequence number
		ts      uint32 // added to the timestamp
		ssrc    uint32
		maxGaps int // ticks made up or silent
	}{
		{"none", 0, 0, 1, 0},
		{"forward 50", 50, 0, 1, 2},
		{"forward 400", 400, 400 * frame, 1, 2},
		{"forward 1,000", 1000, 1000 * frame, 1, 3},
		{"forward 1,000, the clock goes on", 1000, 0, 1, 3},
		{"forward 30,000", 30000, 30000 * frame, 1, 3},
		{"forward 32,768", 32768, 12345678, 1, 3},
		{"backward 30", -30, 0, 1, 12},
		{"backward 63", -63, 0, 1, 12},
		{"backward 100", -100, 0, 1, 5},
		{"backward 100, the clock too", -100, ^uint32(100*frame - 1), 1, 5},
		{"backward 499", -499, 1 << 30, 1, 5},
		{"backward 1,000", -1000, 1 << 30, 1, 3},
		{"backward 30,000", -30000, 5, 1, 3},
		{"the clock alone, forward", 0, 1 << 30, 1, 3},
		{"the clock alone, backward", 0, 3 << 30, 1, 3},
		{"another sender", 12345, 1 << 20, 2, 2},
		{"another sender with the same numbers", 0, 0, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, dec, dst := New(false), fake{frame}, make([]float32, frame)
			gaps, last, wrong := 0, 0, 0
			for i := range ticks {
				seq, ts, ssrc := 60000+i, uint32(i*frame), uint32(1)
				if i >= at {
					seq, ts, ssrc = seq+c.seq, ts+c.ts, c.ssrc
				}
				b.Put(codec.Opus, ssrc, uint16(seq), ts, binary.BigEndian.AppendUint32(nil, uint32(i+1)), frame, int64(i)*frameNs)
				b.Pull(int64(i)*frameNs+9e6, codec.Opus, dec, dst)
				switch n := int(dst[0]); {
				case n == 0 && i >= at:
					gaps++
				case n > 0 && n < last:
					wrong++
				case n > 0:
					last = n
				}
			}
			t.Logf("%d ms missing, %+v", gaps*20, b.Stats())
			if gaps > c.maxGaps || wrong > 0 || last < ticks-3 {
				t.Errorf("%d ticks without sound, %d went back, the last heard is %d of %d", gaps, wrong, last, ticks)
			}
		})
	}
}

// TestReorderingIsNoRestart has a network in which a few packets take a path that is longer by up to a
// quarter of a second: they are late, and nothing is said twice for that.
func TestReorderingIsNoRestart(t *testing.T) {
	for _, slow := range []int{2, 5, 9} {
		r := play(network(500, 20, 0, func(i int) (float64, bool) {
			if k := i % 100; k >= 50 && k < 50+slow {
				return 5 + 250, false
			}
			return 5, false
		}), 20, 500, 9e6)
		if r.backs > 0 {
			t.Errorf("%d on the slow path: %d went backwards", slow, r.backs)
		}
	}
}
