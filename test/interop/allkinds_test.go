//go:build interop

package interop

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEveryKindInOneRoom: three stock daemons, Chromium, two phones and a bot are in one room;
// each hears all the others and not itself. All but the daemons are in the namespace of what
// is tested.
func TestEveryKindInOneRoom(t *testing.T) {
	r, inside := startRigInside(t, 3)
	if !inside {
		return
	}
	n := r.startNodeInside()
	p := n.party()
	for i, hz := range []float64{1570, 1930, 2390} {
		p.daemon(r, n, i+1, fmt.Sprintf("jamid %d", i+1), hz)
	}
	n.wait("seven in the room", 15*time.Second, func() bool { return n.participants() == len(p.names) })
	var m [][]float64
	for limit := time.Now().Add(40 * time.Second); ; {
		m = p.matrix(2500)
		if quieter(m) == "" || time.Now().After(limit) {
			break
		}
	}
	p.print("every kind in one room", m)
	if wrong := quieter(m); wrong != "" {
		t.Error(wrong)
	}
	for _, part := range n.status().Rooms[0].Participants {
		fmt.Printf("ear: %-10s %-8s %-8s %s\n", part.Name, part.Kind, part.Transport, part.Codec)
	}
}

// startNodeInside starts a node in the namespace of what is tested, which the rig's daemons can call.
func (r *rig) startNodeInside() *node {
	r.t.Helper()
	n := startNodeWith(r.t, func(n *node) {
		n.more = []string{"PARLEY_DHT_OVERLAY=opendht", "PARLEY_DHT_OPENDHT_BOOTSTRAP=10.77.0.254:4222", "PARLEY_MEDIA_LOUDEST=8"}
	})
	n.wait("its device is announced", 30*time.Second, func() bool { return strings.Contains(n.out.String(), "device announced") })
	return n
}

// daemon has a stock daemon of the rig call the node and say a tone, as one of the party. It returns
// what it plays.
func (p *party) daemon(r *rig, n *node, i int, name string, hz float64) speaker {
	r.t.Helper()
	peer := r.peer(i)
	acc, _ := peer.account(name, nil)
	peer.talkTo(acc, n.status().Account.ID, "")
	r.speaks(peer, hz, 240)
	heard := speaker{filepath.Join(r.state, fmt.Sprintf("p%d", i), "heard.raw")}
	p.names, p.freqs = append(p.names, name), append(p.freqs, hz)
	p.hear = append(p.hear, func(ms int) ([]int16, error) { return fresh(heard, ms) })
	return heard
}

// quieter is [good] where some speak more quietly than others: each hears itself at least 30 dB
// below what the others hear of it.
func quieter(m [][]float64) string {
	var wrong []string
	for i, row := range m {
		for j, v := range row {
			if i != j && (v < -40 || row[i] > m[j][i]-30) {
				wrong = append(wrong, fmt.Sprintf("%d hears %d at %.1f dBFS, itself at %.1f; %d hears %d at %.1f", i, j, v, row[i], j, i, m[j][i]))
			}
		}
	}
	return strings.Join(wrong, "; ")
}

// speaker is what a stock daemon plays.
type speaker struct{ path string }

func (s speaker) length() (int, error) {
	st, err := os.Stat(s.path)
	if err != nil {
		return 0, err
	}
	return int(st.Size() / 2), nil
}

func (s speaker) from(at int) ([]int16, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.NewSectionReader(f, int64(2*at), 1<<30))
	if err != nil {
		return nil, err
	}
	out := make([]int16, len(raw)/2)
	for i := range out {
		out[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
	}
	return out, nil
}
