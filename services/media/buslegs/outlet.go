package buslegs

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-jami/parley/services/media/codec"
	"github.com/parley-jami/parley/services/media/mix"
)

// ringSize is how many ticks may wait for publishing: 320 ms.
const ringSize = 16

// outlet publishes one room's sound. It is the room's [mix.Tap] while somebody
// listens.
type outlet struct {
	conn Conn
	subj Subjects
	name string
	room *mix.Room
	legs map[*Leg]bool // guarded by Legs.mu

	wants atomic.Uint32 // bits of formats: mix, speakers above them, then wantOthers
	lost  atomic.Uint64 // ticks that found the ring full
	ring  chan *tick
	free  chan *tick
	done  chan struct{}
	ended sync.WaitGroup

	mu      sync.Mutex // guards what follows
	wanted  map[*Leg]want
	running bool

	// Of the publishing goroutine.
	mixConv  converter
	others   map[string]*converter // of the mix without a bot, by bot
	speakers map[string]*speaker
	told     uint64 // of lost
}

type want struct {
	bits   uint32
	others int // format, -1: not wanted
	end    time.Time
}

// wantOthers is the bit of [outlet.wants] that says that somebody wants the mix
// without himself.
const wantOthers = 1 << (2 * formats)

// tick is a copy of what the mixer handed over.
type tick struct {
	num      uint64
	wall     int64
	lost     uint64 // ticks lost until then
	mix      [codec.FrameSamples]float32
	mixOpus  []byte
	level    int
	speakers []spoken
}

type spoken struct {
	id      string
	pcm     [codec.FrameSamples]float32
	apart   bool // others is the mix without this speaker
	others  [codec.FrameSamples]float32
	opus    bool // sends Opus, which goes on as received
	packets [][]byte
	lost    int
	level   int
	voice   bool
}

// speaker is what is kept of who is heard apart.
type speaker struct {
	conv converter
	last uint64 // tick
}

func newOutlet(conn Conn, subj Subjects, name string, room *mix.Room) *outlet {
	return &outlet{
		conn: conn, subj: subj, name: name, room: room, legs: map[*Leg]bool{}, wanted: map[*Leg]want{},
		ring: make(chan *tick, ringSize), free: make(chan *tick, ringSize), done: make(chan struct{}), speakers: map[string]*speaker{}, others: map[string]*converter{},
	}
}

// listen notes what a bot wants.
func (o *outlet) listen(g *Leg, w Listen, now time.Time) {
	var bits uint32
	if w.Mix != "" {
		bits |= 1 << formatOf(w.Mix)
	}
	if w.Speakers != "" {
		bits |= 1 << (formats + formatOf(w.Speakers))
	}
	others := formatOf(w.Others)
	if others >= 0 {
		bits |= wantOthers
	}
	g.member.SetHearsOthers(others >= 0)
	o.mu.Lock()
	defer o.mu.Unlock()
	if g.isClosed() {
		return
	}
	o.wanted[g] = want{bits, others, now.Add(w.TTL)}
	o.refreshLocked(now)
}

func (g *Leg) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// forget ends what a bot wants.
func (o *outlet) forget(g *Leg) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.wanted, g)
	o.refreshLocked(time.Now())
}

// refreshLocked drops wishes that ended and joins the others.
func (o *outlet) refreshLocked(now time.Time) {
	var bits uint32
	for g, w := range o.wanted {
		if now.After(w.end) {
			g.member.SetHearsOthers(false)
			delete(o.wanted, g)
		} else {
			bits |= w.bits
		}
	}
	o.wants.Store(bits)
	if bits != 0 && !o.running {
		o.running = true
		o.ended.Add(1)
		go o.publish()
		o.room.SetTap(o)
	}
}

// close ends publishing and waits.
func (o *outlet) close() {
	o.mu.Lock()
	running := o.running
	o.mu.Unlock()
	if running {
		o.room.ClearTap(o)
	}
	close(o.done)
	o.ended.Wait()
}

// WantOpus is the mixer's question.
func (o *outlet) WantOpus() bool { return o.wants.Load()&(1<<opus) != 0 }

// WriteTap copies a tick into the ring, in the mixer's goroutine.
func (o *outlet) WriteTap(f *mix.TapFrame) {
	wants := o.wants.Load()
	if wants == 0 {
		return
	}
	var t *tick
	select {
	case t = <-o.free:
	default:
		if len(o.ring) == cap(o.ring) {
			o.lost.Add(1)
			return
		}
		t = new(tick)
	}
	t.num, t.wall, t.lost, t.level = f.Tick, time.Now().UnixMicro(), o.lost.Load(), f.Level
	copy(t.mix[:], f.Mix)
	t.mixOpus = append(t.mixOpus[:0], f.MixOpus...)
	t.speakers = t.speakers[:0]
	if wants>>formats != 0 {
		for i := range f.Speakers {
			t.add(&f.Speakers[i])
		}
	}
	select {
	case o.ring <- t:
	default:
		o.lost.Add(1)
	}
}

// add copies a speaker, into the memory of an earlier one where there is.
func (t *tick) add(s *mix.TapSpeaker) {
	if n := len(t.speakers); n < cap(t.speakers) {
		t.speakers = t.speakers[:n+1]
	} else {
		t.speakers = append(t.speakers, spoken{})
	}
	d := &t.speakers[len(t.speakers)-1]
	d.id, d.opus, d.lost, d.level, d.voice = s.ID, s.Codec == codec.Opus && !s.Source, s.Lost, s.Level, s.Voice
	copy(d.pcm[:], s.PCM)
	if d.apart = s.Others != nil; d.apart {
		copy(d.others[:], s.Others)
	}
	packets := d.packets[:0]
	for _, p := range s.Packets {
		if n := len(packets); n < cap(packets) {
			packets = packets[:n+1]
			packets[n] = append(packets[n][:0], p...)
		} else {
			packets = append(packets, append([]byte(nil), p...))
		}
	}
	d.packets = packets
}

// publish is the goroutine that sends what the ring holds.
func (o *outlet) publish() {
	defer o.ended.Done()
	var checked time.Time
	for {
		select {
		case <-o.done:
			return
		case t := <-o.ring:
			o.send(t)
			select {
			case o.free <- t:
			default: // there are enough
			}
			if now := time.Now(); now.Sub(checked) > 200*time.Millisecond {
				checked = now
				o.mu.Lock()
				o.refreshLocked(now)
				o.mu.Unlock()
			}
		}
	}
}

// speakerIdle is how many ticks somebody may be silent before his resampler is
// forgotten: 10 s.
const speakerIdle = 500

// send publishes a tick in all formats that are wanted.
func (o *outlet) send(t *tick) {
	wants := o.wants.Load()
	missed := int(t.lost - o.told)
	o.told = t.lost
	h := Header{
		headerSeq: {strconv.FormatUint(t.num, 10)}, headerRTPTime: {strconv.FormatUint(uint64(uint32(t.num*codec.FrameSamples)), 10)},
		headerWall: {strconv.FormatInt(t.wall, 10)}, headerLevel: {strconv.Itoa(t.level)}, headerLost: {strconv.Itoa(missed)},
	}
	for f := range formats {
		if wants&(1<<f) == 0 {
			continue
		}
		data := t.mixOpus
		if f != opus {
			data = o.mixConv.pcm(f, t.mix[:])
		}
		o.out(o.subj.Mix(o.name, formatNames[f]), h, f, data)
	}
	if wants&wantOthers != 0 {
		o.sendOthers(t, h)
	}
	apart := wants & (wantOthers - 1) >> formats
	if apart == 0 {
		return
	}
	for i := range t.speakers {
		o.sendSpeaker(&t.speakers[i], t, apart, missed)
	}
	for id, s := range o.speakers {
		if t.num-s.last > speakerIdle {
			delete(o.speakers, id)
		}
	}
}

// sendOthers publishes the mix without each bot that asked: its own when the bot
// speaks now, else what all hear.
func (o *outlet) sendOthers(t *tick, h Header) {
	o.mu.Lock()
	listeners := make(map[string]int, len(o.wanted))
	for g, w := range o.wanted {
		if w.others >= 0 {
			listeners[g.id] = w.others
		}
	}
	o.mu.Unlock()
	for id := range o.others {
		if _, ok := listeners[id]; !ok {
			delete(o.others, id)
		}
	}
	for id, f := range listeners {
		b := o.others[id]
		if b == nil {
			b = new(converter)
			o.others[id] = b
		}
		pcm := t.mix[:]
		for i := range t.speakers {
			if s := &t.speakers[i]; s.id == id && s.apart {
				pcm = s.others[:]
			}
		}
		if f != opus {
			o.out(o.subj.Others(o.name, id, formatNames[f]), h, f, b.pcm(f, pcm))
		} else if p, err := b.opus(pcm); err == nil {
			o.out(o.subj.Others(o.name, id, formatNames[f]), h, f, p)
		}
	}
}

func (o *outlet) sendSpeaker(s *spoken, t *tick, wants uint32, missed int) {
	sp := o.speakers[s.id]
	if sp == nil {
		sp = new(speaker)
		o.speakers[s.id] = sp
	}
	sp.last = t.num
	voice := "0"
	if s.voice {
		voice = "1"
	}
	h := Header{
		headerSeq: {strconv.FormatUint(t.num, 10)}, headerRTPTime: {strconv.FormatUint(uint64(uint32(t.num*codec.FrameSamples)), 10)},
		headerWall: {strconv.FormatInt(t.wall, 10)}, headerSpeaker: {s.id}, headerLevel: {strconv.Itoa(s.level)},
		headerVoice: {voice}, headerLost: {strconv.Itoa(missed + s.lost)},
	}
	for f := range formats {
		if wants&(1<<f) == 0 {
			continue
		}
		subject := o.subj.From(o.name, s.id, formatNames[f])
		switch {
		case f != opus:
			o.out(subject, h, f, sp.conv.pcm(f, s.pcm[:]))
		case s.opus:
			for _, p := range s.packets {
				o.out(subject, h, f, p)
			}
		default: // from a phone or a bot
			if p, err := sp.conv.opus(s.pcm[:]); err == nil {
				o.out(subject, h, f, p)
			}
		}
	}
}

// out publishes one message; one that can't be is counted as lost before the next.
func (o *outlet) out(subject string, h Header, f int, data []byte) {
	if len(data) == 0 {
		return
	}
	h[headerFormat] = []string{formatNames[f]}
	if o.conn.Publish(subject, h, data) != nil {
		o.lost.Add(1)
	}
}
