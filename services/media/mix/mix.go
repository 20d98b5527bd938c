// Package mix is the mixer of a room. It takes the packets of everyone who
// sends, decodes only the loudest few, and gives every listener one packet each
// 20 ms: the same one for all who only listen with the same codec, and one
// without his own voice for each who is heard.
//
// Concurrency: a room has one goroutine, which runs only while somebody sends.
// Everything here may be called from any goroutine unless it says otherwise.
// Callbacks (Sink, OnVoice, Flush, tap) come from the room's goroutine; they must
// not block and must not call [Member.Close], [Member.SetCodecs] or [Room.Close].
//
// Lengths: 48 kHz mono, frames of 20 ms (960 samples). Levels are in -dBov as in
// RFC 6464: 0 is the loudest, 127 digital silence.
package mix

import (
	"errors"
	"sync/atomic"

	"github.com/parley-jami/parley/services/media/codec"
)

// CodecID names a codec; see package codec.
type CodecID = codec.ID

// The codecs of a leg.
const (
	Opus = codec.Opus
	G722 = codec.G722
	PCMU = codec.PCMU
	PCMA = codec.PCMA
)

// Packet is a received RTP packet of audio.
type Packet struct {
	SSRC      uint32 // a change starts the stream anew
	Seq       uint16
	Timestamp uint32 // of the codec's RTP clock
	Marker    bool
	Level     int8   // RFC 6464, 0 to 127; -1: not given
	Voice     bool   // the V bit of RFC 6464
	Payload   []byte // valid during the call only
	Arrival   int64  // monotonic nanoseconds, as by [Now]
}

// Frame is 20 ms of sound for one listener; where the room does not keep its time, 40 or 60.
type Frame struct {
	Codec   CodecID
	Payload []byte // valid during the call only, shared between listeners: read-only
	Samples uint32 // advance of the codec's RTP clock in 20 ms: 960 for Opus, else 160
	// Tick counts 20 ms of the room's clock; it is that of the beginning. It may jump: ticks that were missed
	// and pauses count too, so the RTP timestamp is base + Tick*Samples + Shift*Samples/960.
	Tick uint64
	// Shift is how far the room's ticks lie behind those of its clock, in samples at 48 kHz: 0 to 954, a multiple of 6. It changes in
	// pauses only.
	Shift uint32
	// Marker says that this frame is the first after a pause of this listener.
	Marker bool
}

// Sink takes a listener's frames, in the room's goroutine.
type Sink interface{ WriteFrame(f *Frame) }

// Source is a member that brings PCM instead of packets: a bot.
type Source interface {
	// Read fills dst (960 samples at 48 kHz) and reports whether there was
	// anything; it is called in the room's goroutine and must not block.
	// A source that has nothing is asked again after [Member.Wake].
	Read(dst []float32) bool
}

// Config makes a room.
type Config struct {
	Name    string
	Loudest int // how many are heard at once, 1 to 8; 3 when 0
	// OnVoice says that a member began or stopped speaking, with the level in -dBov.
	OnVoice func(member string, speaking bool, level int)
	// Flush comes once at the end of each tick that wrote frames.
	Flush func()
	// OnPace says that the room's listeners get longer packets from now on, or shorter ones, since
	// it does not keep its time, or does again. It comes from the room's goroutine.
	OnPace func(Pace)
	// Keep has the room never do that.
	Keep bool
	// Ticks counts those of all rooms that share it; nil: nobody asks.
	Ticks *Ticks
}

// Ticks counts how the mixer keeps its time.
type Ticks struct {
	Done   atomic.Uint64
	Missed atomic.Uint64 // whose time had passed when the room was woken
	Spent  atomic.Uint64 // ns, in those that were done
	// Shedding is how many rooms give their listeners longer packets now.
	Shedding atomic.Int32
	Over     atomic.Int32 // and of these those that does not help
}

// Errors of [Room.Add].
var (
	ErrClosed    = errors.New("mix: the room is closed")
	ErrDuplicate = errors.New("mix: the room has a member of that id; close it first")
	ErrCodec     = errors.New("mix: unknown codec")
)

// Stats is what a member's receive side counted since it was added.
type Stats struct {
	Received  uint64 // packets accepted
	Lost      uint64 // never came, or too late
	Late      uint64 // came after their turn
	Duplicate uint64
	Dropped   uint64  // muted, not allowed to speak, malformed
	Concealed uint64  // 20 ms frames made up
	FEC       uint64  // packets recovered from the redundancy in the next one
	JitterMs  float64 // RFC 3550 §6.4.1
	BufferMs  float64 // time between arrival and playing, smoothed
	Level     int     // -dBov, 127 silence
	Speaking  bool
	FramesOut uint64 // frames handed to the sink
}
