package mix

import (
	"sync"
	"sync/atomic"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/jitter"
)

// Member is one leg in a room.
type Member struct {
	room   *Room
	id     string
	key    string // in Room.members
	source Source // nil: packets
	remote bool   // spoken at another worker, and brought by a trunk

	in, out     atomic.Uint32 // CodecID
	open        atomic.Bool   // may speak, isn't muted, isn't closed
	hearsOthers atomic.Bool   // a source that is given the mix without itself, by the tap
	active      atomic.Bool   // in the room's list of those who send
	carried     atomic.Bool   // goes to the room's other workers
	maxFrames   atomic.Int32  // of 20 ms in a packet that it takes
	buf         atomic.Pointer[jitter.Buffer]

	peak  atomic.Int32 // loudness of the packets since the last tick, -1: none, unknownPeak: must be decoded
	vflag atomic.Bool

	received, late, duplicate, dropped, framesOut atomic.Uint64
	level                                         atomic.Int32
	speaking                                      atomic.Bool

	mu              sync.Mutex // guards what follows, and orders WriteFrame before Close
	sink            Sink
	canSpeak, muted bool
	closed          bool

	t tickState // of the room's goroutine
}

// tickState is what the room's goroutine keeps of a member.
type tickState struct {
	loudness
	agc
	codec    CodecID // of dec
	dec      codec.Decoder
	pcm      *[frameSamples]float32 // this tick's sound, nil when there is none
	frame    jitter.Frame
	own      *stream // the mix without this member
	voice    *voice  // of a source that is carried
	heard    seat
	carried  seat
	pulled   bool // in this tick
	missing  int  // ticks without anything to play
	lastTick uint64
}

// seat is a member's place among the loudest.
type seat struct {
	taken   bool
	leaving bool // this tick is the last one, and fades
	since   int  // ticks since it was taken
}

// unknownPeak marks packets whose level only decoding tells.
const unknownPeak = 1 << 8

// ID returns the id that the member was added with.
func (m *Member) ID() string { return m.id }

// Push hands over a received packet. It never blocks, copies the payload and
// doesn't allocate once the member has sent a packet. Packets of a member who is
// muted or may not speak are dropped at once. Calls must not overlap.
func (m *Member) Push(p *Packet) {
	if !m.open.Load() {
		m.dropped.Add(1)
		return
	}
	id := CodecID(m.in.Load())
	samples := codec.Samples(id, p.Payload)
	buf := m.buf.Load()
	if buf == nil {
		buf = jitter.New(m.remote)
		m.buf.Store(buf)
	}
	switch buf.Put(id, p.SSRC, p.Seq, p.Timestamp, p.Payload, samples, p.Arrival) {
	case jitter.Late:
		m.received.Add(1)
		m.late.Add(1)
		return
	case jitter.Duplicate:
		m.duplicate.Add(1)
		return
	case jitter.Dropped:
		m.dropped.Add(1)
		return
	}
	m.received.Add(1)
	peak := peakOf(id, p, samples)
	m.notePeak(peak)
	m.carry(p, peak)
	if p.Voice {
		m.vflag.Store(true)
	}
	m.Wake()
	if peak >= hearable && m.room.silent.Load() && buf.Starts() > 0 {
		m.room.rouse() // its ticks follow who breaks the silence
	}
}

// peakOf reads a packet's loudness: what the sender says, else what can be told
// without decoding.
func peakOf(id CodecID, p *Packet, samples int) int32 {
	if p.Level >= 0 {
		return int32(silence - int(p.Level))
	}
	if pw, ok := codec.Power(id, p.Payload); ok {
		return int32(silence - level(pw))
	}
	if id == Opus && len(p.Payload)*frameSamples <= silentOpus*samples {
		return 0
	}
	return unknownPeak
}

func (m *Member) notePeak(v int32) {
	for {
		old := m.peak.Load()
		if v <= old || m.peak.CompareAndSwap(old, v) {
			return
		}
	}
}

// Wake says that the member's [Source] has something to read.
func (m *Member) Wake() {
	if !m.active.Load() && m.active.CompareAndSwap(false, true) {
		m.room.activate(m)
	}
}

// SetMuted mutes or unmutes.
func (m *Member) SetMuted(muted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.muted = muted
	m.openLocked()
}

// SetCanSpeak lets speak or not.
func (m *Member) SetCanSpeak(can bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.canSpeak = can
	m.openLocked()
}

func (m *Member) openLocked() { m.open.Store(m.canSpeak && !m.muted && !m.closed) }

// SetMaxFrames says how many frames of 20 ms a packet may have that the member gets, 1 to 3, which is the default.
func (m *Member) SetMaxFrames(n int) { m.maxFrames.Store(int32(min(max(n, 1), maxSpan))) }

// SetIn changes what the member sends, from the next packet that is pushed. It costs next to nothing
// when that is the same.
func (m *Member) SetIn(id CodecID) error {
	if id >= codec.Count {
		return ErrCodec
	}
	if m.in.Load() != uint32(id) {
		m.in.Store(uint32(id))
	}
	return nil
}

// SetCodecs changes what the member sends, from the next packet that is pushed, and receives.
func (m *Member) SetCodecs(in, out CodecID) error {
	if in >= codec.Count || out >= codec.Count {
		return ErrCodec
	}
	m.in.Store(uint32(in))
	if m.out.Swap(uint32(out)) != uint32(out) {
		m.room.changed()
	}
	return nil
}

// Stats returns what was counted.
func (m *Member) Stats() Stats {
	s := Stats{
		Received: m.received.Load(), Late: m.late.Load(), Duplicate: m.duplicate.Load(), Dropped: m.dropped.Load(),
		Level: int(m.level.Load()), Speaking: m.speaking.Load(), FramesOut: m.framesOut.Load(),
	}
	if b := m.buf.Load(); b != nil {
		js := b.Stats()
		s.Lost, s.Concealed, s.FEC, s.JitterMs, s.BufferMs = js.Lost, js.Concealed, js.FEC, js.JitterMs, js.BufferMs
	}
	return s
}

// Close takes the member out. After it returned nothing more is written to its sink.
func (m *Member) Close() {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.closed = true
	m.openLocked()
	m.mu.Unlock()
	m.room.remove(m)
}

// write hands a frame to the sink.
func (m *Member) write(f *Frame) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.sink.WriteFrame(f)
		m.framesOut.Add(1)
	}
}

func (m *Member) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// SetHearsOthers has the room make the mix without this source for the tap.
func (m *Member) SetHearsOthers(on bool) { m.hearsOthers.Store(on) }
