package leg

import (
	"sync"

	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/sdp"
	"github.com/parley-jami/parley/services/media/srtp"
	"github.com/parley-jami/parley/services/media/wire"
)

// resumeSkip is how many sequence numbers a new process leaves out beyond the time
// that passed: an SRTP index is never used twice, even by packets that the dead
// process had counted but not sent.
const resumeSkip = 64

// outbound is what the far end gets.
type outbound struct {
	mu      sync.Mutex
	on      bool // there is an address, keys where needed, and the far end wants to hear
	secure  bool
	clear   bool // RTCP is not protected
	port    *port
	to      wire.Sockaddr
	srtp    *srtp.Out
	keys    srtp.Keys
	pt      uint8
	index   uint64 // roll-over counter and sequence number of the last packet
	ts      uint32
	tick    uint64
	shift   uint32
	running bool  // tick, shift and ts belong together
	resumed bool  // index was another process's
	lastAt  int64 // unix microseconds of the last packet
	clock   uint32
	packets uint64
	octets  uint64
	rtcp    uint32 // last SRTCP index
}

// WriteFrame sends a frame: header, protection, a slot of the socket's batch. The
// mixer calls it in the room's goroutine.
func (l *Leg) WriteFrame(f *mix.Frame) {
	o := &l.out
	now := l.room.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.on || (o.secure && o.srtp == nil) || len(f.Payload) > wire.SlotSize-wire.HeaderSize-srtp.Overhead {
		o.running = false
		return
	}
	marker := f.Marker
	switch {
	case o.running && f.Tick > o.tick:
		o.ts += uint32(f.Tick-o.tick)*f.Samples + uint32((int32(f.Shift)-int32(o.shift))*int32(f.Samples)/960)
		o.index++
	case o.lastAt == 0: // the very first one
		o.index++
		marker = true
	default: // after a pause of the leg or of the process, the time that passed counts
		steps := max(1, (now-o.lastAt)/20_000)
		o.ts += uint32(steps) * f.Samples
		o.index++
		if o.resumed {
			o.index += uint64(min(steps, 1<<13)) + resumeSkip
			o.resumed = false
		}
		marker = true
	}
	o.running, o.tick, o.shift, o.lastAt, o.clock = true, f.Tick, f.Shift, now, f.Samples*50
	l.slot.Sent.Store(o.index)
	l.slot.Timestamp.Store(uint64(o.ts))
	l.slot.SentAt.Store(uint64(now))

	w := l.room.writer(o.port)
	b := w.Slot()
	wire.PutHeader(b, o.pt, marker, uint16(o.index), o.ts, l.ssrc)
	n := wire.HeaderSize + copy(b[wire.HeaderSize:], f.Payload)
	if o.secure {
		n = o.srtp.RTP(b, n, wire.HeaderSize, uint32(o.index>>16))
	}
	w.Queue(n, &o.to)
	o.packets++
	o.octets += uint64(len(f.Payload))
}

// configureLocked takes what was negotiated into the sending and receiving
// halves. Keys that did not change keep their replay windows. The caller holds
// l.mu.
func (l *Leg) configureLocked() error {
	st := &l.st
	port, _ := l.outLocked()
	to, ok := port.sock.Sockaddr(st.Remote)
	l.remote.Store(&hop{port, st.Remote})
	l.latched.Store(l.mayAddressLocked())

	o := &l.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if st.Out != nil && !st.Out.Equal(o.keys) {
		s, err := srtp.NewOut(*st.Out)
		if err != nil {
			return err
		}
		o.srtp, o.keys = s, *st.Out
	}
	o.secure, o.clear, o.pt, o.to = st.Secure, st.Jami, st.PT, to
	o.port = port
	o.on = ok && st.Negotiated && st.Far&sdp.Recv != 0 && l.maySendLocked()

	in := &l.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if st.In != nil && !st.In.Equal(in.keys) {
		s, err := srtp.NewIn(*st.In)
		if err != nil {
			return err
		}
		in.srtp, in.keys = s, *st.In
	}
	in.clear = st.Jami
	in.secure, in.pt, in.dtmf, in.level, in.dtmfClock = st.Secure, st.PT, st.DTMF, st.Level, st.DTMFClock
	in.codec, in.also, in.clock = st.Codec, st.Also, 50*int(st.Codec.RTPSamples())
	return nil
}

// mayAddressLocked: audio goes only to an address that the far end has proved to
// be its own, by ICE, by sending from it, or by signalling from the same host;
// else an SDP could aim the node at a stranger.
func (l *Leg) mayAddressLocked() bool {
	return l.st.WebRTC || l.st.Jami || l.st.Latched
}

// maySendLocked: plain datagrams, signalling and RTP alike, can come with
// somebody else's address, and the node must not be made to send a stream there.
// So nothing is sent before the far end has repeated something that only it was
// told: for SIP the ACK does, with the tag of the answer.
func (l *Leg) maySendLocked() bool {
	return l.mayAddressLocked() && !l.st.Unproved
}

// prove notes that the far end is where its signalling says.
func (l *Leg) prove() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.st.Unproved || l.closed {
		return nil
	}
	l.st.Unproved = false
	l.h.dirty(l)
	return l.configureLocked()
}
