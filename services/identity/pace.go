package identity

import (
	"sync"

	"golang.org/x/time/rate"

	"github.com/parley-jami/parley/internal/jami"
)

// maxPaced bounds the devices whose rate is remembered. While there are more, no new one is heard.
const maxPaced = 1024

// pace bounds how much each device may do. It is safe for concurrent use.
type pace struct {
	limit rate.Limit // a second
	burst int

	mu sync.Mutex
	of map[jami.ID]*rate.Limiter
}

func newPace(limit rate.Limit, burst int) *pace {
	return &pace{limit: limit, burst: burst, of: map[jami.ID]*rate.Limiter{}}
}

// may reports whether a device may do one thing more now.
func (p *pace) may(device jami.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.of[device]
	if l == nil {
		if len(p.of) >= maxPaced {
			for d, old := range p.of {
				if old.Tokens() >= float64(p.burst) {
					delete(p.of, d)
				}
			}
		}
		if len(p.of) >= maxPaced {
			return false
		}
		l = rate.NewLimiter(p.limit, p.burst)
		p.of[device] = l
	}
	return l.Allow()
}
