//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// party is four peers of different kinds in one room, each with a tone.
type party struct {
	names []string
	freqs []float64
	hear  []func(ms int) ([]int16, error)
	b     *browser
	bot   *bot
	phone [2]recording
}

func (n *node) party() *party {
	n.t.Helper()
	p := &party{names: []string{"chromium", "baresip udp", "baresip tcp", "bot"}, freqs: []float64{500, 700, 1100, 1300}}
	p.bot = n.startBot("tone", p.freqs[3])
	udp := n.call(phone{name: "udp", freq: p.freqs[1], codec: "opus/48000/1", transport: "udp"}, n.base+30)
	tcp := n.call(phone{name: "tcp", freq: p.freqs[2], codec: "PCMU/8000/1", transport: "tcp", srtp: true}, n.base+50)
	p.b = startBrowser(n.t, p.freqs[0])
	p.b.open(n.joinURL(), "Chromium")
	n.wait("four in the room", 15*time.Second, func() bool { return n.participants() == 4 })
	for i, b := range []*baresip{udp, tcp} {
		n.wait("the phones record", 15*time.Second, func() (ok bool) {
			var err error
			p.phone[i], err = b.recording()
			return err == nil
		})
	}
	of := func(r recording) func(int) ([]int16, error) {
		return func(ms int) ([]int16, error) { return fresh(r, ms) }
	}
	p.hear = []func(int) ([]int16, error){p.b.fresh, of(p.phone[0]), of(p.phone[1]), of(p.bot)}
	return p
}

// matrix returns how loud each (column) is at each (row), over ms from now on. Who
// hears nothing has a row of silence.
func (p *party) matrix(ms int) [][]float64 {
	m := make([][]float64, len(p.names))
	var wg sync.WaitGroup
	for i := range p.names {
		wg.Go(func() {
			s, err := p.hear[i](ms)
			if err != nil {
				s = nil
				fmt.Printf("%s: %v\n", p.names[i], err)
			}
			for _, f := range p.freqs {
				m[i] = append(m[i], levelOf(s, f))
			}
		})
	}
	wg.Wait()
	return m
}

func (p *party) print(title string, m [][]float64) {
	fmt.Printf("ear: %s: level in dBFS of each (columns) at each (rows)\near: %12s", title, "")
	for _, n := range p.names {
		fmt.Printf(" %12s", n)
	}
	for i, row := range m {
		fmt.Printf("\near: %12s", p.names[i])
		for _, v := range row {
			fmt.Printf(" %12.1f", v)
		}
	}
	fmt.Println()
}

// good says what of the matrix is wrong: each hears every other above -40 dBFS
// and itself at least 35 dB below the others.
func good(m [][]float64) string {
	var wrong []string
	for i, row := range m {
		weakest := 0.0
		for j, v := range row {
			if i == j {
				continue
			}
			weakest = min(weakest, v)
			if v < -40 {
				wrong = append(wrong, fmt.Sprintf("%d hears %d at %.1f dBFS", i, j, v))
			}
		}
		if row[i] > weakest-35 {
			wrong = append(wrong, fmt.Sprintf("%d hears itself at %.1f dBFS, the others at %.1f", i, row[i], weakest))
		}
	}
	return strings.Join(wrong, "; ")
}

func TestEachHearsTheOthers(t *testing.T) {
	n := startNode(t)
	p := n.party()
	var m [][]float64
	limit := time.Now().Add(30 * time.Second)
	for {
		m = p.matrix(2500)
		if good(m) == "" || time.Now().After(limit) {
			break
		}
	}
	p.print("four peers in one room", m)
	if wrong := good(m); wrong != "" {
		t.Error(wrong)
	}
	for _, part := range n.status().Rooms[0].Participants {
		fmt.Printf("ear: %-10s %-8s %-8s %s\n", part.Name, part.Kind, part.Transport, part.Codec)
	}
}

// A phone gives the PIN by digest; with a wrong one it does not get in.
func TestPhoneWithPIN(t *testing.T) {
	n := startNode(t)
	var made struct {
		PIN string `json:"pin"`
	}
	if err := json.Unmarshal([]byte(n.parley("room", "create", "standup", "--generate-pin", "--json")), &made); err != nil || made.PIN == "" {
		t.Fatalf("no PIN: %v", err)
	}
	in := func() (names []string) {
		for _, r := range n.status().Rooms {
			if r.Name == "standup" {
				for _, p := range r.Participants {
					names = append(names, p.Name)
				}
			}
		}
		return names
	}
	wrong := n.call(phone{name: "wrong", freq: 700, codec: "opus/48000/1", transport: "udp", room: "standup", pin: "0000"}, n.base+30)
	n.wait("the phone with a wrong PIN gives up", 15*time.Second, func() bool { return strings.Contains(wrong.out.String(), "session closed") })
	right := n.call(phone{name: "right", freq: 700, codec: "opus/48000/1", transport: "udp", room: "standup", pin: made.PIN}, n.base+50)
	n.wait("the phone with the right PIN is in", 15*time.Second, func() bool { return slices.Equal(in(), []string{"right"}) })
	n.wait("it has audio", 10*time.Second, func() bool { _, err := right.recording(); return err == nil })
	fmt.Println("ear: a phone with the PIN is in the room, one with another is not")
}
