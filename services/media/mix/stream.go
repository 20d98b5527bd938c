package mix

import (
	"github.com/parley-jami/parley/services/media/codec"
)

// stream is a mix on its way out: the limiter and an encoder for each codec that
// somebody listens with.
type stream struct {
	pcm    [frameSamples]float32
	limit  limiter
	enc    [codec.Count]codec.Encoder
	buf    [codec.Count][codec.MaxPayload]byte
	frames [codec.Count][2]Frame // the same packet without and with the marker
	made   [codec.Count]bool     // in this tick
	shift  uint32
	past   *[codec.Count]history // of the stream of all; nil: nobody gets several frames at once
}

func newStream() *stream {
	s := new(stream)
	s.limit.reset()
	return s
}

// begin makes the stream fit for a new listener.
func (s *stream) begin() error {
	s.limit.reset()
	for _, e := range s.enc {
		if e != nil {
			if err := e.Reset(); err != nil {
				return err
			}
		}
	}
	return nil
}

// next begins a tick: pcm is empty and nothing is encoded yet.
func (s *stream) next(shift uint32) {
	clear(s.pcm[:])
	s.shift = shift
	s.made = [codec.Count]bool{}
}

// frame returns the tick's packet for a codec, encoding it at its first use; nil
// when the encoder fails.
func (s *stream) frame(id CodecID, tick uint64, marker bool) *Frame {
	f := &s.frames[id]
	if !s.made[id] {
		s.made[id] = true
		if s.enc[id] == nil {
			e, err := codec.NewEncoder(id)
			if err != nil {
				f[0].Payload = nil
				return nil
			}
			s.enc[id] = e
		}
		n, err := s.enc[id].Encode(s.buf[id][:], s.pcm[:])
		if err != nil {
			n = 0
		}
		if s.past != nil {
			s.past[id].keep(tick, s.buf[id][:n])
		}
		for i := range f {
			f[i] = Frame{Codec: id, Payload: s.buf[id][:n:n], Samples: id.RTPSamples(), Tick: tick, Shift: s.shift, Marker: i == 1}
		}
	}
	if len(f[0].Payload) == 0 {
		return nil
	}
	if marker {
		return &f[1]
	}
	return &f[0]
}
