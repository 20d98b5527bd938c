package mix

import "time"

var start = time.Now()

// Now is the monotonic clock of [Packet].Arrival, in nanoseconds.
func Now() int64 { return int64(time.Since(start)) }

// Room mixes for its members.
type Room struct{ cfg Config }

// NewRoom makes an empty room. It costs nothing until somebody sends.
func NewRoom(cfg Config) *Room { return &Room{cfg: cfg} }

// Add takes a member in. in is the codec of the packets that it will push, out
// the codec of the frames that its sink gets; a nil sink gets none.
func (r *Room) Add(id string, in, out CodecID, sink Sink, canSpeak, muted bool) (*Member, error) {
	return &Member{room: r, id: id}, nil
}

// AddSource takes a member in that brings PCM and receives nothing.
func (r *Room) AddSource(id string, src Source, canSpeak, muted bool) (*Member, error) {
	return &Member{room: r, id: id}, nil
}

// Len returns the number of members.
func (r *Room) Len() int { return 0 }

// Close takes all members out and waits for the room's goroutine.
func (r *Room) Close() {}
