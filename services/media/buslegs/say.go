package buslegs

import (
	"encoding/binary"
	"strconv"
	"sync"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/media/codec"
)

const (
	// maxQueued is what a bot may say ahead: 10 s.
	maxQueued = 10 * codec.Rate
	// sayPending bounds the messages that wait for say; a bot that floods loses
	// the rest before they cost anything.
	sayPending = 256
	// prebuffer is what waits before a bot begins to sound, so that its own
	// unsteadiness isn't heard: 40 ms, or whatever came in two ticks.
	prebuffer = 2 * codec.FrameSamples
	// tellRefused is how many refused frames are a flood (10 s beyond the 10 s that
	// may wait) and no slip: it is logged then, and each time they have doubled.
	tellRefused = 500
	// fadeOut is how a cleared queue ends: 5 ms.
	fadeOut = codec.Rate / 200
)

// queue is what a bot said and the mixer hasn't played. It is the bot's
// [mix.Source].
type queue struct {
	leg *Leg

	mu      sync.Mutex // guards what follows
	open    bool
	pcm     []int16 // 48 kHz; from head on
	head    int
	armed   bool // enough has come to begin
	waited  int
	epoch   uint64
	taken   uint64 // frames
	refused uint64 // frames of 20 ms
	told    uint64 // of them in the log
	format  int
	up      *codec.Up
	dec     codec.Decoder

	in, out [codec.MaxSamples]float32 // of say alone
}

func (q *queue) queued() int { return len(q.pcm) - q.head }

// counts returns the milliseconds queued, and the frames refused and taken.
func (q *queue) counts() (ms int, refused, taken uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.queued() / 48, q.refused, q.taken
}

// setOpen lets speak or not; what is queued of a bot that may not is dropped.
func (q *queue) setOpen(open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = open
	if !open {
		q.clearLocked()
	}
}

// clearLocked drops what is queued, but for a fade of what is sounding.
func (q *queue) clearLocked() {
	n := 0
	if q.armed {
		n = min(fadeOut, q.queued())
	}
	for i, v := range q.pcm[q.head : q.head+n] {
		q.pcm[q.head+i] = int16(int(v) * (n - i) / (n + 1))
	}
	q.pcm = q.pcm[:q.head+n]
}

// say takes a message of the bot. Its calls don't overlap.
func (q *queue) say(m *Message) {
	wake := q.take(m)
	if wake {
		q.leg.member.Wake()
	}
	if n := q.flood(); n > 0 {
		q.leg.legs.log.Warn("frames of a bot refused: too many, or it may not speak", zap.String("leg", q.leg.id), zap.Uint64("total", n))
	}
	if m.Reply != nil {
		ms, refused, _ := q.counts()
		m.Reply(ms, int(refused))
	}
}

// flood returns how many frames were refused when that is to be told, else 0.
func (q *queue) flood() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.refused < max(tellRefused, 2*q.told) {
		return 0
	}
	q.told = q.refused
	return q.told
}

// take queues a message and reports whether there is something to play.
func (q *queue) take(m *Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e := m.Header.get(headerEpoch); e != "" {
		n, err := strconv.ParseUint(e, 10, 64)
		if err != nil || n < q.epoch { // a replica whose lease has gone to another
			q.refused++
			return false
		}
		q.epoch = n
	}
	if m.Header.get(headerClear) == "1" {
		q.clearLocked()
	}
	if len(m.Data) == 0 {
		return false
	}
	f := opus
	if name := m.Header.get(headerFormat); name != "" {
		f = formatOf(name)
	}
	length := lengthOf(f, m.Data)
	if length <= 0 {
		q.refused++
		return false
	}
	if !q.open || q.queued()+length > maxQueued {
		q.refused += uint64((length + codec.FrameSamples - 1) / codec.FrameSamples)
		return false
	}
	if !q.appendLocked(f, m.Data) {
		q.refused++
		return false
	}
	q.taken += uint64((length + codec.FrameSamples - 1) / codec.FrameSamples)
	return true
}

// lengthOf returns how much sound a payload holds, in samples at 48 kHz; 0 when it
// is malformed.
func lengthOf(f int, data []byte) int {
	switch {
	case f < 0:
		return 0
	case f == opus:
		return codec.Samples(codec.Opus, data)
	case len(data)%2 != 0:
		return 0
	}
	return len(data) / 2 * factors[f]
}

// appendLocked decodes a payload to the end of the queue.
func (q *queue) appendLocked(f int, data []byte) bool {
	if q.head > codec.Rate { // the front is played
		q.pcm = q.pcm[:copy(q.pcm, q.pcm[q.head:])]
		q.head = 0
	}
	if f == opus {
		if q.dec == nil {
			d, err := codec.NewDecoder(codec.Opus)
			if err != nil {
				return false
			}
			q.dec = d
		}
		n, err := q.dec.Decode(q.out[:], data)
		q.addLocked(q.out[:n])
		return err == nil
	}
	if q.up == nil || q.format != f {
		q.up, q.format = codec.NewUp(factors[f], codec.MaxSamples/factors[f]), f
	}
	for len(data) > 0 {
		n := min(len(data)/2, codec.MaxSamples/factors[f])
		for i := range n {
			q.in[i] = float32(int16(binary.LittleEndian.Uint16(data[2*i:]))) / 32768
		}
		q.addLocked(q.out[:q.up.Process(q.out[:], q.in[:n])])
		data = data[2*n:]
	}
	return true
}

func (q *queue) addLocked(pcm []float32) {
	for _, v := range pcm {
		q.pcm = append(q.pcm, clip(v))
	}
}

// Read is the mixer's turn.
func (q *queue) Read(dst []float32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.queued()
	if n == 0 {
		q.armed, q.waited = false, 0
		q.pcm, q.head = q.pcm[:0], 0
		if cap(q.pcm) > 2*codec.Rate { // 10 s are 960 KB
			q.pcm = nil
		}
		return false
	}
	if !q.armed {
		if q.waited++; n < prebuffer && q.waited <= 2 {
			return false
		}
		q.armed = true
	}
	n = min(n, len(dst))
	for i, v := range q.pcm[q.head : q.head+n] {
		dst[i] = float32(v) / 32768
	}
	clear(dst[n:])
	q.head += n
	return true
}
