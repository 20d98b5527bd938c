package bench

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Weather is what happens to datagrams between the legs and the node, in both directions.
type Weather struct {
	Loss   float64       `json:"loss"`   // share that is lost, 0 to 1
	Jitter time.Duration `json:"jitter"` // each is held for 0 to so long, without one passing another of the same leg
}

// weather makes it at the generator's own socket: what a leg sends is dropped or held before it is sent, and
// what comes is dropped, or counts as come so much later.
type weather struct {
	Weather
	mu  sync.Mutex
	out map[*leg]time.Time // when the last one was sent, or will be
	in  map[*leg]int64     // of the goroutine that receives: when the last one came, unix ns
	end bool               // nothing is held any more
	wg  sync.WaitGroup
}

func newWeather(w Weather) *weather {
	return &weather{Weather: w, out: map[*leg]time.Time{}, in: map[*leg]int64{}}
}

func (b *weather) held() time.Duration {
	if b.Jitter <= 0 {
		return 0
	}
	return rand.N(b.Jitter)
}

// apart keeps two datagrams of one leg in their order.
const apart = 100 * time.Microsecond

// send sends a packet, or does not.
func (b *weather) send(g *generator, l *leg, w *way, pkt []byte) {
	if rand.Float64() < b.Loss {
		return
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end {
		return
	}
	at := now.Add(b.held())
	if last := b.out[l].Add(apart); last.After(at) {
		at = last
	}
	b.out[l] = at
	kept := append([]byte(nil), pkt...)
	b.wg.Add(1)
	time.AfterFunc(at.Sub(now), func() {
		defer b.wg.Done()
		_ = g.sock.write(kept, l.addr, w.to) // one more that is lost
	})
}

// came says when a packet counts as come, or that it never does.
func (b *weather) came(l *leg, at int64) (later int64, lost bool) {
	if rand.Float64() < b.Loss {
		return 0, true
	}
	at = max(at+int64(b.held()), b.in[l]+int64(apart))
	b.in[l] = at
	return at, false
}

// change has the weather be another one; nil: fair. It returns when what was held is sent.
func (g *generator) change(w *weather) {
	if was := g.weather.Swap(w); was != nil {
		was.mu.Lock()
		was.end = true
		was.mu.Unlock()
		was.wg.Wait()
	}
}
