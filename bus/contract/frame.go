package contract

import (
	"strconv"
	"time"
)

// Frame is what the headers of an audio message say about its 20 ms.
type Frame struct {
	Speaker string // participant id, empty for the mix
	Format  string
	Seq     uint64    // +1 each 20 ms of this source
	RTPTime uint32    // at 48 kHz
	Wall    time.Time // when it was heard or mixed, to the microsecond
	Level   int       // -dBov: 0 loudest, 127 silence
	Voice   bool      // somebody speaks
	Lost    int       // frames that were lost directly before this one
}

// ParseFrame reads the headers of an audio message; what is absent or no number is
// zero.
func ParseFrame(h map[string][]string) Frame {
	get := func(k string) string {
		if v := h[k]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	num := func(k string) int64 {
		n, err := strconv.ParseInt(get(k), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	return Frame{Speaker: get(HeaderSpeaker), Format: get(HeaderFormat), Seq: uint64(num(HeaderSeq)), RTPTime: uint32(num(HeaderRTPTime)),
		Wall: time.UnixMicro(num(HeaderWall)), Level: int(num(HeaderLevel)), Voice: get(HeaderVoice) == "1", Lost: int(num(HeaderLost))}
}
