package mix

import "github.com/parley-jami/parley/services/media/codec"

// Trunk takes the loudest of a room's members to the other workers that mix the same
// room, which mix them as members of their own ([Room.AddRemote]).
type Trunk interface {
	// Carry takes a packet of a member who is among the loudest, with its level as far as
	// that is known. It comes from the goroutine that pushed the packet, and does not
	// overlap for one member; it must not block and must not keep the payload.
	Carry(m *Member, id CodecID, p Packet)
}

// carrier is the trunk that a room has.
type carrier struct {
	Trunk
	relay bool // members that came by a trunk are carried on as well
}

// SetTrunk sets the room's trunk in place of another; nil takes it away. With relay, also
// who came by a trunk competes for being carried: the trunk must not bring it back.
func (r *Room) SetTrunk(t Trunk, relay bool) {
	if t == nil {
		r.trunk.Store(nil)
		return
	}
	r.trunk.Store(&carrier{t, relay})
}

// AddRemote takes in somebody who speaks at another worker. He hears nothing here, and what
// he says is told of by his own worker. Members of the same id may be here and, while he is
// moved, at two others.
func (r *Room) AddRemote(worker, id string, in CodecID) (*Member, error) {
	if in >= codec.Count {
		return nil, ErrCodec
	}
	return r.add(&Member{id: id, key: worker + "\x00" + id, remote: true, canSpeak: true}, in, Opus)
}

// Remote reports whether the member came by a trunk.
func (m *Member) Remote() bool { return m.remote }

func carriedSeat(m *Member) *seat { return &m.t.carried }

func local(m *Member) bool { return !m.remote }

// carry chooses who is carried to the other workers. They choose again among all that
// they get, so that the loudest of the whole room are heard everywhere.
func (r *Room) carry() {
	t := r.trunk.Load()
	if t == nil {
		for _, m := range r.carried {
			r.uncarry(m)
		}
		r.carried = r.carried[:0]
		return
	}
	may := local
	if t.relay {
		may = anybody
	}
	r.carried = r.elect(r.carried, carriedSeat, may)
	kept := r.carried[:0]
	for _, m := range r.carried {
		if m.t.carried.leaving || !may(m) {
			r.uncarry(m)
			continue
		}
		m.carried.Store(true)
		kept = append(kept, m)
	}
	clear(r.carried[len(kept):])
	r.carried = kept
	r.early.Store(int32(r.cfg.Loudest - len(kept)))
}

func (r *Room) uncarry(m *Member) {
	m.t.carried = seat{}
	m.carried.Store(false)
	if m.t.voice != nil {
		r.voices = append(r.voices, m.t.voice)
		m.t.voice = nil
	}
}

// carry gives a packet to the trunk. Of somebody who has no seat yet it does so while there
// are seats, before the next tick chooses, lest his first syllable be clipped there.
func (m *Member) carry(p *Packet, peak int32) {
	t := m.room.trunk.Load()
	if t == nil || m.remote && !t.relay {
		return
	}
	if !m.carried.Load() && (peak < hearable || m.room.early.Add(-1) < 0) {
		return
	}
	out := *p
	switch {
	case p.Level >= 0:
	case peak == unknownPeak:
		out.Level = int8(m.level.Load()) // as it was when it was decoded last
	default:
		out.Level = int8(silence - peak)
	}
	t.Carry(m, CodecID(m.in.Load()), out)
}

// voice is the encoder of a source that is carried.
type voice struct {
	enc codec.Encoder
	buf [codec.MaxPayload]byte
	pkt Packet
}

// carrySources encodes the sound of those who bring PCM, for the trunk.
func (r *Room) carrySources(tick uint64) {
	t := r.trunk.Load()
	if t == nil {
		return
	}
	for _, m := range r.carried {
		if m.source == nil || m.t.pcm == nil {
			continue
		}
		v := m.t.voice
		if v == nil {
			if v = r.takeVoice(); v == nil {
				continue
			}
			m.t.voice = v
		}
		n, err := v.enc.Encode(v.buf[:], m.t.pcm[:])
		if err != nil || n == 0 {
			continue
		}
		p := &v.pkt
		p.Seq, p.Timestamp, p.Payload = p.Seq+1, uint32(tick)*Opus.RTPSamples()+r.shifted(), v.buf[:n]
		p.Level, p.Voice = int8(silence-m.t.last), m.t.talks
		t.Carry(m, Opus, *p)
	}
}

// takeVoice returns an encoder that is fresh; nil when none can be made.
func (r *Room) takeVoice() *voice {
	for n := len(r.voices); n > 0; n = len(r.voices) {
		v := r.voices[n-1]
		r.voices = r.voices[:n-1]
		if v.enc.Reset() == nil {
			v.pkt.SSRC++ // another stream
			return v
		}
	}
	e, err := codec.NewEncoder(Opus)
	if err != nil {
		return nil
	}
	return &voice{enc: e, pkt: Packet{Level: -1}}
}
