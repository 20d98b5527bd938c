package jitter

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/parley-jami/parley/services/media/codec"
)

// hum is a codec whose packets hold their number and play as a voice of 130 Hz.
type hum struct{ fake }

func (hum) Decode(dst []float32, p []byte) (int, error) {
	at := int(binary.BigEndian.Uint32(p)) * frame
	for i := range frame {
		a := 2 * math.Pi * 130 * float64(at+i) / 48000
		dst[i] = float32(0.3*math.Sin(a) + 0.1*math.Sin(3*a))
	}
	return frame, nil
}

// TestDelayAfterTrouble has packets come late for three seconds, and evenly then. What a splice can't take out at
// once, as it goes by the voice's periods, must go as well: in the end there is no more delay than a calm network has.
func TestDelayAfterTrouble(t *testing.T) {
	for _, extra := range []int64{7e6, 13e6, 30e6, 43e6, 60e6, 80e6} {
		b, dst := New(false), make([]float32, frame)
		next, waits := 0, 0.0
		for tick := range int64(1500) {
			now := tick*frameNs + 11e6
			for ; ; next++ {
				at := int64(next) * frameNs
				if next < 150 {
					at += extra * int64(next&1)
				}
				if at > now {
					break
				}
				b.Put(codec.Opus, 7, uint16(next), uint32(next*frame), binary.BigEndian.AppendUint32(nil, uint32(next)), frame, at)
			}
			b.Pull(now, codec.Opus, hum{}, dst)
			if tick >= 1400 {
				oldest := b.prev.seq // what plays: the end of it is b.have samples ahead
				waits += float64(now-(oldest-1<<16)*frameNs)/1e6 + float64(b.have)/48
			}
		}
		if got := waits / 100; got > 11+float64(minLag)/48 {
			t.Errorf("%d ms late for a while: at the end a packet waits %.1f ms until it is heard, want the 11 ms until the tick and what is shorter than a splice", extra/1e6, got)
		}
		if s := b.Stats(); s.Lost > 10 {
			t.Errorf("%d ms late: %d lost", extra/1e6, s.Lost)
		}
	}
}
