package mix

import "github.com/parley-jami/parley/services/media/codec"

// history is what a stream was encoded to in the last ticks, by codec, so that several frames can go in one packet.
type history struct {
	buf   [maxSpan][codec.MaxPayload]byte
	size  [maxSpan]int
	ticks [maxSpan]uint64
	next  int
	pack  Frame
	data  [maxSpan * codec.MaxPayload]byte
	upTo  uint64 // tick of the last frame in pack
	count int    // frames in pack; 0: nothing is
}

func (h *history) keep(tick uint64, payload []byte) {
	h.size[h.next], h.ticks[h.next] = copy(h.buf[h.next][:], payload), tick
	h.next = (h.next + 1) % maxSpan
}

// at returns the payload of a tick, nil when it is not there.
func (h *history) at(tick uint64) []byte {
	for i := range h.ticks {
		if h.ticks[i] == tick && h.size[i] > 0 {
			return h.buf[i][:h.size[i]]
		}
	}
	return nil
}

// packed returns one packet with the n frames up to a tick, nil when they don't go into one.
func (h *history) packed(id CodecID, tick uint64, n int, marker bool, shift uint32) *Frame {
	if h.upTo != tick || h.count != n {
		var parts [maxSpan][]byte
		for i := range n {
			if parts[i] = h.at(tick - uint64(n-1-i)); parts[i] == nil {
				return nil
			}
		}
		size := codec.Join(id, h.data[:], parts[:n])
		if size == 0 {
			return nil
		}
		h.pack = Frame{Codec: id, Payload: h.data[:size:size], Samples: id.RTPSamples(), Tick: tick - uint64(n-1), Shift: shift}
		h.upTo, h.count = tick, n
	}
	h.pack.Marker = marker
	return &h.pack
}
