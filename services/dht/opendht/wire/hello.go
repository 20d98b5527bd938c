package wire

import (
	"fmt"

	"github.com/parley-jami/parley/internal/jami"
)

// helloName is what nodes of OpenDHT are called among others who announce themselves there.
const helloName = "dht"

// helloFields bounds what later versions may append, and who else may announce itself.
const helloFields = 16

// Hello is what a node says of itself in the local network (§1.6).
type Hello struct {
	ID      jami.ID
	Port    uint16 // UDP; it answers at the address that the announcement came from
	Network uint32
}

// Append appends the announcement: map "dht" → [id, port, network].
func (h Hello) Append(b []byte) []byte {
	b = AppendStr(appendMap(b, 1), helloName)
	b = AppendBin(appendArray(b, 3), h.ID[:])
	return AppendUint(AppendUint(b, uint64(h.Port)), uint64(h.Network))
}

// HelloQuestion asks all who hear it for their announcement.
func HelloQuestion() []byte { return AppendStr(nil, "q") }

// ParseHello reads an announcement; asks is set for a question. Anything else is an
// [ErrPacket]. It makes nothing: ten bytes of a stranger can announce gigabytes.
func ParseHello(b []byte) (h Hello, asks bool, err error) {
	r := reader{b: b}
	k, n := r.next()
	switch {
	case k == kindStr:
		if string(r.take(n)) == "q" {
			return h, true, nil
		}
		return h, false, fmt.Errorf("announcement: %w", ErrPacket)
	case k != kindMap || n > helloFields:
		return h, false, fmt.Errorf("announcement: %w", ErrPacket)
	}
	found := false
	for ; n > 0 && !r.bad && !found; n-- {
		if string(r.bytes(len(b))) != helloName {
			r.skip()
			continue
		}
		found = true
		fields := r.count(kindArray, helloFields)
		copy(h.ID[:], r.bin(len(h.ID)))
		h.Port, h.Network = uint16(r.uint(1<<16-1)), uint32(r.uint(1<<32-1))
		if fields < 3 {
			r.fail()
		}
	}
	if r.bad || !found {
		return Hello{}, false, fmt.Errorf("announcement: %w", ErrPacket)
	}
	return h, false, nil
}
