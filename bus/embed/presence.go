package embed

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
)

// presence tells whether one machine uses a worker's credentials, or more: each start of a worker says hello by a
// name of its own again and again, and one that ended does not.
type presence struct {
	starts []greeter // in the order in which they came
	both   time.Time // when one went on after another one had come, last; zero: never
}

type greeter struct {
	instance string
	said     time.Time // last
}

const (
	// goneAfter is the silence after which a start of a worker is no longer one of two: it says hello each ten seconds.
	goneAfter = 35 * time.Second
	maxStarts = 16
)

// twice reports whether two use the credentials.
func (p *presence) twice(at time.Time) bool { return !p.both.IsZero() && at.Sub(p.both) < goneAfter }

// here reports whether somebody uses them.
func (p *presence) here(at time.Time) bool {
	return slices.ContainsFunc(p.starts, func(s greeter) bool { return at.Sub(s.said) < goneAfter })
}

// hello notes that a start of a worker is there.
func (p *presence) hello(instance string, at time.Time) {
	p.starts = slices.DeleteFunc(p.starts, func(s greeter) bool { return at.Sub(s.said) >= goneAfter })
	i := slices.IndexFunc(p.starts, func(s greeter) bool { return s.instance == instance })
	switch {
	case i >= 0:
		p.starts[i].said = at
		if i < len(p.starts)-1 {
			p.both = at
		}
	default:
		if len(p.starts) == maxStarts {
			p.starts = p.starts[1:]
		}
		p.starts = append(p.starts, greeter{instance, at})
	}
}

// hello notes a worker's hello and answers it. Its log names two machines once, until one of them is gone.
func (w *workers) hello(name, instance string, at time.Time) (*contract.WorkerWelcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.by[name]
	if f != nil && f.service() == "conference" && !w.leased {
		return nil, errUnleased
	}
	if f == nil || instance == "" {
		return &contract.WorkerWelcome{}, nil
	}
	p := w.here[name]
	if p == nil {
		p = new(presence)
		w.here[name] = p
	}
	was := p.twice(at)
	p.hello(instance, at)
	if p.twice(at) && !was {
		w.log.Warn("two machines use the credentials of one worker: its participants lose their sound; end one, and add another worker for it", zap.String("worker", name))
	}
	return &contract.WorkerWelcome{Twice: p.twice(at)}, nil
}
