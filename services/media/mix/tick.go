package mix

import (
	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/jitter"
)

const (
	// tailTicks of silence are sent after the last sound, so that a receiver's
	// concealment doesn't go on with a voice; then nothing until somebody speaks.
	tailTicks = 10
	// goneTicks without a packet end a member's place among those who send.
	goneTicks = 50
	// maxProbes bounds how many members are decoded in a tick only to learn how
	// loud they are; with more, they take turns.
	maxProbes = 12
	// edge is the fade of who is chosen or leaves, in samples: 5 ms.
	edge = 240
)

// tick does 20 ms. It allocates only when somebody is chosen for the first time.
func (r *Room) tick(now int64, tick uint64) {
	r.merge()
	r.measure(now)
	r.choose()
	r.carry()
	sounding := false
	for _, m := range r.loud {
		if !m.t.pulled {
			r.pull(m, now, true)
		}
		sounding = sounding || m.t.pcm != nil
	}
	for _, m := range r.sending {
		if !m.t.pulled {
			r.pull(m, now, false)
		}
	}
	if sounding {
		r.tail = tailTicks
	}
	if r.tail > 0 {
		r.tail--
		r.mix()
		r.send(tick)
		r.sent = tick
	}
	r.silent.Store(r.tail == 0)
	r.carrySources(tick)
	r.settle()
	r.lastTick = tick
}

// measure learns how loud each sender is, decoding those who don't say it.
func (r *Room) measure(now int64) {
	probes := 0
	for i := range r.sending {
		// The rotation makes the bound fair.
		m := r.sending[(i+r.probe)%len(r.sending)]
		m.t.pulled, m.t.pcm = false, nil
		if !m.open.Load() {
			m.peak.Store(-1)
			r.update(m, 0, false)
			continue
		}
		peak, flag := m.t.honest(int(m.peak.Swap(-1))), m.vflag.Swap(false)
		if m.source != nil || peak == unknownPeak || m.t.dec != nil && peak < 0 {
			if probes < maxProbes || m.t.heard.taken {
				if !m.t.heard.taken {
					probes++
				}
				r.pull(m, now, true)
				if peak < 0 || peak == unknownPeak {
					if m.t.pcm == nil {
						peak = -1
					} else {
						peak = silence - level(power(m.t.pcm[:]))
					}
				}
			} else {
				peak = m.t.last
			}
		}
		r.update(m, peak, flag)
	}
	if probes == maxProbes {
		r.probe += maxProbes
	}
	if r.probe >= len(r.sending) {
		r.probe = 0
	}
}

// update takes the tick's loudness of a member and says when his voice begins or ends.
func (r *Room) update(m *Member, peak int, flag bool) {
	turned := m.t.update(peak, flag)
	m.level.Store(int32(silence - m.t.last))
	if turned {
		m.speaking.Store(m.t.talks)
		if r.cfg.OnVoice != nil && !m.remote {
			r.cfg.OnVoice(m.id, m.t.talks, silence-m.t.last)
		}
	}
}

// choose decides who is heard.
func (r *Room) choose() { r.loud = r.elect(r.loud, heard, anybody) }

func heard(m *Member) *seat { return &m.t.heard }

func anybody(*Member) bool { return true }

// elect brings the list of those who have a seat up to date: who has one keeps it for
// his hold; a newcomer takes a free one; who speaks takes that of somebody who does not, or
// who is quieter by the hysteresis. Those who lose theirs stay in the list, as leaving.
func (r *Room) elect(seated []*Member, of func(*Member) *seat, may func(*Member) bool) []*Member {
	free := r.cfg.Loudest
	for _, m := range seated {
		s := of(m)
		s.since++
		if !m.open.Load() || m.t.quiet > holdTicks || !m.active.Load() {
			s.leaving = true
		} else {
			free--
		}
	}
	for range r.cfg.Loudest {
		var best *Member
		for _, m := range r.sending {
			if !of(m).taken && m.t.quiet == 0 && m.open.Load() && may(m) && (best == nil || m.t.before(&best.t.loudness)) {
				best = m
			}
		}
		if best == nil {
			return seated
		}
		if free > 0 {
			free--
		} else if !best.t.stirs {
			return seated // only noise
		} else if idle := idlest(seated, of); idle != nil {
			of(idle).leaving = true
		} else if weak := weakest(seated, of); weak != nil && best.t.loud > weak.t.loud+hysteresis {
			of(weak).leaving = true
		} else {
			return seated
		}
		*of(best) = seat{taken: true}
		seated = append(seated, best)
	}
	return seated
}

// before reports whether a newcomer comes before another one: who begins to speak before who does not, then the louder.
func (l *loudness) before(o *loudness) bool {
	if l.stirs != o.stirs {
		return l.stirs
	}
	return l.loud > o.loud
}

// idlest is who has a seat and has not spoken for longest; nil when all have.
func idlest(seated []*Member, of func(*Member) *seat) (idle *Member) {
	for _, m := range seated {
		if !of(m).leaving && m.t.still > idleTicks && (idle == nil || m.t.still > idle.t.still) {
			idle = m
		}
	}
	return idle
}

// weakest is the quietest of those with a seat who may be displaced.
func weakest(seated []*Member, of func(*Member) *seat) *Member {
	var weak *Member
	for _, m := range seated {
		if s := of(m); !s.leaving && (s.since > firmTicks || m.t.quiet > 0) && (weak == nil || m.t.loud < weak.t.loud) {
			weak = m
		}
	}
	return weak
}

// pull moves a member's stream on by a tick, with or without decoding.
func (r *Room) pull(m *Member, now int64, decode bool) {
	m.t.pulled = true
	var dst []float32
	if decode {
		if len(r.buffers) == 0 {
			r.buffers = append(r.buffers, new([frameSamples]float32))
		}
		m.t.pcm = r.buffers[len(r.buffers)-1]
		r.buffers = r.buffers[:len(r.buffers)-1]
		dst = m.t.pcm[:]
	}
	ok := false
	if m.source != nil {
		if ok = dst == nil && m.open.Load(); dst != nil { // who isn't asked is not gone
			ok = m.source.Read(dst)
		}
		m.t.frame = jitter.Frame{Active: ok}
	} else if buf := m.buf.Load(); buf != nil {
		if !m.open.Load() && !m.t.heard.leaving { // muted: what waits isn't for others' ears
			buf.Reset()
		}
		id := buf.Next()
		if id != m.t.codec {
			r.dropDecoder(m)
			m.t.codec = id
		}
		if decode && m.t.dec == nil {
			m.t.dec = r.decoder(id)
		}
		if !decode {
			r.dropDecoder(m)
		}
		m.t.frame = buf.Pull(now, id, m.t.dec, dst)
		ok = m.t.frame.Active
	}
	if m.t.missing++; ok {
		m.t.missing = 0
	} else if m.t.pcm != nil {
		r.buffers = append(r.buffers, m.t.pcm)
		m.t.pcm = nil
	}
}

// decoder takes a fresh decoder; nil when none can be made.
func (r *Room) decoder(id CodecID) codec.Decoder {
	if n := len(r.decoders[id]); n > 0 {
		d := r.decoders[id][n-1]
		r.decoders[id] = r.decoders[id][:n-1]
		if d.Reset() == nil {
			return d
		}
	}
	d, err := codec.NewDecoder(id)
	if err != nil {
		return nil
	}
	return d
}

func (r *Room) dropDecoder(m *Member) {
	if m.t.dec == nil {
		return
	}
	if len(r.decoders[m.t.codec]) < maxProbes {
		r.decoders[m.t.codec] = append(r.decoders[m.t.codec], m.t.dec)
	}
	m.t.dec = nil
}

// mix sums who is heard, and for each of them the others.
func (r *Room) mix() {
	r.shared.next(r.shifted())
	sum := r.shared.pcm[:]
	for _, m := range r.loud {
		if (m.sink != nil || m.hearsOthers.Load()) && m.t.own == nil {
			m.t.own = r.takeStream()
		}
		if m.t.own != nil {
			m.t.own.next(r.shifted())
		}
	}
	for _, m := range r.loud {
		if m.t.pcm == nil {
			continue
		}
		p := power(m.t.pcm[:])
		m.t.heardAs(p)
		from, to := m.t.gain, m.t.target(p)
		n := frameSamples
		if m.t.heard.since == 0 {
			from, n = 0, edge
		}
		if m.t.heard.leaving {
			to, n = 0, edge
		}
		m.t.gain = to
		ramp(sum, m.t.pcm[:], from, to, n)
		for _, o := range r.loud {
			if o != m && o.t.own != nil {
				ramp(o.t.own.pcm[:], m.t.pcm[:], from, to, n)
			}
		}
	}
	r.shared.limit.process(sum)
	for _, m := range r.loud {
		if m.t.own != nil {
			m.t.own.limit.process(m.t.own.pcm[:])
		}
	}
}

// send gives every listener his frame.
func (r *Room) send(tick uint64) {
	if r.pace.span > 1 && r.shared.past == nil {
		if r.past == nil {
			r.past = new([codec.Count]history)
		}
		r.shared.past = r.past
	}
	for i, m := range r.listeners {
		id := CodecID(m.out.Load())
		if r.shared.past != nil && r.held(m, id, tick, i) {
			continue
		}
		s := r.shared
		if m.t.own != nil {
			s = m.t.own
		}
		marker := m.t.lastTick+1 != tick
		if f := s.frame(id, tick, marker); f != nil {
			m.write(f)
		}
		m.t.lastTick = tick
	}
	if r.pace.span == 1 { // nothing is held back any more
		r.shared.past = nil
	}
	r.runTap(tick)
	if r.cfg.Flush != nil {
		r.cfg.Flush()
	}
}

// held gives a listener what was held back for him and reports whether this tick's frame is dealt with: it went
// along, or waits for the next ones. Those who get packets of several frames take turns, so that each tick sends as much.
func (r *Room) held(m *Member, id CodecID, tick uint64, i int) bool {
	span := min(r.pace.span, int(m.maxFrames.Load()))
	waits := tick - 1 - m.t.lastTick // frames that he has not got, or a pause
	if m.t.own != nil {
		if waits > 0 && waits < maxSpan {
			r.writeHeld(m, id, tick-1, int(waits)) // of others, from when he was not heard
		}
		return false
	}
	if r.shared.frame(id, tick, false) == nil {
		return false
	}
	if span > 1 && (tick+uint64(i))%uint64(span) != 0 && waits+1 < maxSpan {
		return true
	}
	n := 1
	for n < maxSpan && uint64(n) <= waits && r.shared.past[id].at(tick-uint64(n)) != nil {
		n++
	}
	r.writeHeld(m, id, tick, n)
	return true
}

// writeHeld writes n frames up to that of a tick, in one packet where that is possible.
func (r *Room) writeHeld(m *Member, id CodecID, tick uint64, n int) {
	h := &r.shared.past[id]
	marker := m.t.lastTick+uint64(n) != tick
	if f := h.packed(id, tick, n, marker, r.shifted()); f != nil {
		m.write(f)
	} else {
		for k := tick - uint64(n-1); k <= tick; k++ {
			if f := h.packed(id, k, 1, marker && k == tick-uint64(n-1), r.shifted()); f != nil {
				m.write(f)
			}
		}
	}
	m.t.lastTick = tick
}

// settle lets go of who left and of who doesn't send any more.
func (r *Room) settle() {
	out := r.loud[:0]
	for _, m := range r.loud {
		if m.t.heard.leaving {
			r.retire(m)
		} else {
			out = append(out, m)
		}
	}
	clear(r.loud[len(out):])
	r.loud = out
	kept := r.sending[:0]
	for _, m := range r.sending {
		if m.t.pcm != nil {
			r.buffers = append(r.buffers, m.t.pcm)
			m.t.pcm = nil
		}
		if m.t.missing <= goneTicks || m.t.heard.taken {
			kept = append(kept, m)
			continue
		}
		m.active.Store(false)
		if buf := m.buf.Load(); buf != nil && buf.Waiting() > 0 && m.active.CompareAndSwap(false, true) {
			kept = append(kept, m) // a packet came just now
			continue
		}
		r.silence(m)
	}
	clear(r.sending[len(kept):])
	r.sending = kept
}

// retire takes a member from those who are heard.
func (r *Room) retire(m *Member) {
	m.t.heard = seat{}
	if m.t.own != nil {
		r.streams = append(r.streams, m.t.own)
		m.t.own = nil
	}
}

// silence frees what a member who doesn't send holds.
func (r *Room) silence(m *Member) {
	r.dropDecoder(m)
	if m.t.pcm != nil {
		r.buffers = append(r.buffers, m.t.pcm)
		m.t.pcm = nil
	}
	if buf := m.buf.Load(); buf != nil {
		buf.Reset()
	}
	m.t.loudness = loudness{}
	m.t.missing = 0
	if m.speaking.Swap(false) && r.cfg.OnVoice != nil && !m.remote {
		r.cfg.OnVoice(m.id, false, silence)
	}
	m.level.Store(silence)
}

// takeStream returns a stream for the mix without somebody.
func (r *Room) takeStream() *stream {
	for n := len(r.streams); n > 0; n = len(r.streams) {
		s := r.streams[n-1]
		r.streams = r.streams[:n-1]
		if s.begin() == nil {
			return s
		}
	}
	return newStream()
}
