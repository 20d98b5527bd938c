package supervise

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// waveDeadlines are counted from the beginning of the stop. Time that one wave
// leaves goes to the next; all of it ends within the 5 s that a node promises.
var waveDeadlines = []time.Duration{2200 * time.Millisecond, 3 * time.Second, 3900 * time.Millisecond, 4600 * time.Millisecond}

// Options say what to run. They are fixed.
type Options struct {
	Specs   []Spec
	Path    string                     // the program
	Args    func(name string) []string // without the program's name
	Env     []string
	EnvOf   map[string][]string // what one process has beside, by its name
	Inherit []*os.File          // given to every child after its sockets, e.g. the data lock
	Out     *Output             // gets what the children print
	Log     *zap.Logger
}

// Supervisor runs children. Its methods are safe for concurrent use.
type Supervisor struct {
	o        Options
	spawn    *spawner
	children []*child
	began    time.Time

	mu       sync.Mutex
	watchers []chan struct{}
}

// New makes a supervisor; nothing starts before Run.
func New(o Options) *Supervisor {
	s := &Supervisor{o: o, began: time.Now()}
	for _, spec := range o.Specs {
		s.children = append(s.children, &child{Spec: spec, s: s, log: o.Log.With(zap.String("process", spec.Name)),
			client: unixClient(spec.Health), stop: make(chan struct{}), ended: make(chan struct{})})
	}
	return s
}

// Run starts every child and keeps it running until ctx ends; then it stops them
// in waves. Closing kill ends them at once. The error names who had to be killed.
func (s *Supervisor) Run(ctx context.Context, kill <-chan struct{}) error {
	s.spawn = newSpawner()
	defer s.spawn.close()
	health, endHealth := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, c := range s.children {
		wg.Go(c.run)
		wg.Go(func() { c.watch(health) })
	}
	select {
	case <-ctx.Done():
	case <-kill:
	}
	err := s.stop(kill)
	endHealth()
	wg.Wait()
	return err
}

func (s *Supervisor) stop(kill <-chan struct{}) error {
	began := time.Now()
	var killed []string
	for wave, limit := range waveDeadlines {
		deadline := time.NewTimer(time.Until(began.Add(limit)))
		var in []*child
		for _, c := range s.children {
			if c.Wave == wave {
				c.signal(syscall.SIGTERM)
				in = append(in, c)
			}
		}
		for _, c := range in {
			why := ""
			select {
			case <-c.ended:
				continue
			case <-deadline.C:
				deadline.Reset(0) // the others of this wave are late too
				why = "it did not end in time"
			case <-kill:
				why = "asked to"
			}
			select {
			case <-c.ended: // it was in time; an earlier one of the wave was not
				continue
			default:
			}
			c.log.Warn("process is killed", zap.String("why", why))
			c.signal(syscall.SIGKILL)
			<-c.ended
			killed = append(killed, c.Name)
		}
		deadline.Stop()
	}
	s.o.Log.Info("all processes have ended", zap.Duration("took", time.Since(began)))
	if killed != nil {
		return fmt.Errorf("killed since it did not end in time: %s", strings.Join(killed, ", "))
	}
	return nil
}

// Joinable reports whether every needed child is ready.
func (s *Supervisor) Joinable() bool {
	for _, c := range s.children {
		if c.Needed && !c.ready.Load() {
			return false
		}
	}
	return true
}

// WaitJoinable returns when the node is joinable, or with ctx's error.
func (s *Supervisor) WaitJoinable(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	s.mu.Lock()
	s.watchers = append(s.watchers, changed)
	s.mu.Unlock()
	for !s.Joinable() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	return nil
}

// notify wakes who waits for a change of readiness.
func (s *Supervisor) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}
