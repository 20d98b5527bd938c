package mix

// Tap takes a room's sound for others than its members' sinks: bots, recorders.
type Tap interface {
	// WantOpus says whether TapFrame.MixOpus is needed; the room then encodes
	// with Opus even when no listener does.
	WantOpus() bool
	// WriteTap comes from the room's goroutine in each tick that has sound. It
	// must not block and must not keep anything of t.
	WriteTap(t *TapFrame)
}

// TapFrame is a tick as a [Tap] sees it.
type TapFrame struct {
	Tick     uint64
	Mix      []float32 // 960 samples, limited
	MixOpus  []byte    // one packet, when wanted
	Level    int       // of the mix, -dBov
	Speakers []TapSpeaker
}

// TapSpeaker is somebody who is heard in this tick.
type TapSpeaker struct {
	ID      string
	PCM     []float32 // 960 samples, as decoded
	Others  []float32 // the mix without this speaker, limited; of sources that hear it, else nil
	Source  bool      // brings PCM: no packets
	Codec   CodecID
	Packets [][]byte // as received: those that began to play in this tick
	Lost    int      // packets lost directly before Packets
	Level   int      // -dBov
	Voice   bool
}

// SetTap sets the room's tap in place of another.
func (r *Room) SetTap(t Tap) {
	r.tapMu.Lock()
	defer r.tapMu.Unlock()
	r.tap = t
}

// ClearTap takes the tap away if it is t. After it returned, t is not called any more.
func (r *Room) ClearTap(t Tap) {
	r.tapMu.Lock()
	defer r.tapMu.Unlock()
	if r.tap == t {
		r.tap = nil
	}
}

// runTap gives this tick to the tap.
func (r *Room) runTap(tick uint64) {
	r.tapMu.Lock()
	defer r.tapMu.Unlock()
	if r.tap == nil {
		return
	}
	t := &r.tapFrame
	*t = TapFrame{Tick: tick, Mix: r.shared.pcm[:], Level: level(power(r.shared.pcm[:])), Speakers: t.Speakers[:0]}
	if r.tap.WantOpus() {
		if f := r.shared.frame(Opus, tick, false); f != nil {
			t.MixOpus = f.Payload
		}
	}
	for _, m := range r.loud {
		if m.t.pcm != nil {
			var others []float32
			if m.source != nil && m.t.own != nil {
				others = m.t.own.pcm[:]
			}
			t.Speakers = append(t.Speakers, TapSpeaker{ID: m.id, PCM: m.t.pcm[:], Others: others, Source: m.source != nil, Codec: m.t.codec, Packets: m.t.frame.Packets,
				Lost: m.t.frame.Lost, Level: silence - m.t.last, Voice: m.t.talks})
		}
	}
	r.tap.WriteTap(t)
}
