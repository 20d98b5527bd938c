package core_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/core"
	"github.com/parley-jami/parley/services/dht/opendht/sim"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// FuzzHandle: packets of strangers, several in one input after their lengths, neither
// end a node nor keep it from working.
func FuzzHandle(f *testing.F) {
	b, err := os.ReadFile("../wire/testdata/packets.json")
	if err != nil {
		f.Fatal(err)
	}
	var vs []struct{ Hex string }
	if err := json.Unmarshal(b, &vs); err != nil {
		f.Fatal(err)
	}
	var all []byte
	for _, v := range vs {
		p, err := hex.DecodeString(v.Hex)
		if err != nil {
			f.Fatal(err)
		}
		p = append([]byte{byte(len(p) >> 8), byte(len(p))}, p...)
		f.Add(p)
		all = append(all, p...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		n := sim.New(1)
		x, y := n.Add(nil), n.Add(nil)
		y.Do(func() { y.Meet(x.Addr) })
		watch(x, jami.HashKey("k"))
		n.Run(2 * time.Second)
		from := netip.MustParseAddrPort("198.51.100.1:4222")
		tok := newAttacker(n, from, n.ID()).token(t, x.Addr, jami.HashKey("k"))
		for len(b) > 2 {
			size := min(int(b[0])<<8|int(b[1]), len(b)-2)
			p := bytes.Clone(b[2 : 2+size])
			b = b[2+size:]
			var m wire.Message
			if wire.Decode(p, &m) == nil && m.Has&wire.HasToken != 0 && m.Kind != wire.Legacy { // with a token that is good, too
				m.Token = tok
				n.Send(from, x.Addr, m.Append(nil))
			}
			n.Send(from, x.Addr, p)
			n.Send(y.Addr, x.Addr, p)
			n.Run(100 * time.Millisecond)
		}
		put(t, n, y, jami.HashKey("k"), plain(t, 77, "works"), core.PutOptions{})
		for _, v := range get(t, n, x, jami.HashKey("k")) {
			if string(v.Data) == "works" {
				return
			}
		}
		t.Error("the node does not work any more")
	})
}
