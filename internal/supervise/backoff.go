package supervise

import (
	"math/rand/v2"
	"time"
)

// Back-off between an end and the next start. The first restart is immediate: a
// single crash should cost no more than the start itself. So should each of those of a process
// that dies again and again, but serves in between: a start takes some tenths of a second, and
// one every few seconds is little beside what its participants miss meanwhile.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 5 * time.Second
	backoffReset = 3 * time.Second // of running, after which it counts as healthy
	backoffCap   = 16              // steps; far beyond backoffMax
)

// backoff counts ends in a row. It belongs to one goroutine.
type backoff struct{ failures int }

// next returns how long to wait after a run that lasted up.
func (b *backoff) next(up time.Duration) time.Duration {
	if up >= backoffReset {
		b.failures = 0
	}
	b.failures = min(b.failures+1, backoffCap)
	if b.failures == 1 {
		return 0
	}
	d := min(backoffFirst<<(b.failures-2), backoffMax)
	// ±20 %, so that children which die together don't start together for ever.
	return min(time.Duration(float64(d)*(0.8+0.4*rand.Float64())), backoffMax)
}
