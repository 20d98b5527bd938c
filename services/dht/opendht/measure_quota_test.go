//go:build interop

package opendht

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// TestQuota has python3-opendht put 84 MB at the only other node that it knows, a dhtnode
// and one of ours in turn, whose room is 64 MiB (§1.6): what is dropped, and what is the
// putter told?
func TestQuota(t *testing.T) {
	if os.Getenv(measureEnv) == "" {
		t.Skipf("takes minutes; set %s", measureEnv)
	}
	t.Run("dhtnode", func(t *testing.T) {
		s := dhtnode(t, "")
		quota(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(s.port)), s.pid)
	})
	t.Run("ours", func(t *testing.T) {
		p := startProcess(t, processOptions{Listen: "127.0.0.1:0", Key: filepath.Join(t.TempDir(), "key.pem")})
		quota(t, netip.MustParseAddrPort(p.Addr), p.cmd.Process.Pid)
	})
}

func quota(t *testing.T, at netip.AddrPort, pid int) {
	const values, size, room = 1400, 60_000, 64 << 20
	key := func(i int) overlay.Key { return hashed(fmt.Sprint("quota", i)) }
	putter := startPython(t, int(at.Port()))
	data := make([]byte, size)
	var took spread
	told := 0 // that it is stored
	for i := range values {
		e := putter.do(t, "put", key(i), data)
		took = append(took, time.Duration(e.US*1e3))
		if e.OK {
			told++
		}
	}
	x := newTalker(t, at, 99)
	has := make([]bool, values)
	left := 0
	for i := range has {
		if i%500 == 499 {
			time.Sleep(time.Second) // it answers 1,024 a second (§1.6)
		}
		var r wire.Message
		ok := false
		for range 3 {
			if ok = x.ask(wire.Message{Kind: wire.Get, Target: jami.ID(key(i)), Has: wire.HasQuery, Query: wire.Query{}.Selecting(wire.FieldID)}, &r); ok {
				break
			}
		}
		if !ok {
			t.Fatalf("no answer for value %d", i)
		}
		if has[i] = r.Fields.V.Len() > 0; has[i] {
			left++
		}
	}
	t.Logf("%d values of %d bytes put, of %d the putter is told that they are stored (%s)", values, size, told, took)
	t.Logf("%d are there, %.1f of %d MiB: %s; it takes %.0f MiB; load %s",
		left, float64(left*size)/(1<<20), room>>20, runs(has), float64(usageOf(t, pid).rss)/1024, load())
	t.Logf("of the first one, which is dropped, the putter gets %d: from itself", len(putter.do(t, "get", key(0), nil).Values))
	if told == 0 || left == 0 || left*size > room+room/10 || !has[values-1] {
		t.Error("the newest are not what is kept, or too much is")
	}
}

// runs says which are set, as ranges.
func runs(set []bool) string {
	var out []string
	for i := 0; i < len(set); i++ {
		from := i
		for i < len(set) && set[i] {
			i++
		}
		if i > from {
			out = append(out, strconv.Itoa(from)+"–"+strconv.Itoa(i-1))
		}
	}
	return strings.Join(out, ", ")
}
