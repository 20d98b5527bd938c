// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/atomicfile"
)

// movesAtOnce is how many of a room are told in a second to leave a worker that is drained: each
// negotiates its sound anew.
const movesAtOnce = 50

// keeps reports whether a worker is there and keeps the legs that it has.
func (w *workers) keeps(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.by[name]
	return x != nil && !w.drained[name] && x.alive(w.now())
}

// drains returns the workers that are there and are drained.
func (w *workers) drains() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for name := range w.drained {
		if x := w.by[name]; x != nil && x.alive(w.now()) {
			out = append(out, name)
		}
	}
	return out
}

// drain has the room's members leave the given workers, where there is another one.
func (l *live) drain(now time.Time, from []string) {
	for _, w := range from {
		to, err := l.place(spot{bot: true})
		if err != nil {
			return // said by worker.drain and by joins
		}
		l.r.Move(now, w, to, movesAtOnce)
	}
}

// drainWorker serves worker.drain. What it says outlives the process.
func (s *Service) drainWorker(ctx context.Context, r *bus.Request[contract.Drain]) (*contract.Worker, error) {
	name := r.Param(1)
	w := s.workers
	s.drainMu.Lock()
	defer s.drainMu.Unlock()
	w.mu.Lock()
	_, known := w.by[name]
	next := maps.Clone(w.drained)
	w.mu.Unlock()
	if !known {
		return nil, contract.ErrNotFound.With("there is no media worker %q; `parley worker list` names them", name)
	}
	delete(next, name)
	if !r.Body.Undo {
		next[name] = true
	}
	raw, err := json.Marshal(slices.Sorted(maps.Keys(next)))
	if err == nil {
		err = atomicfile.Write(s.drainedFile, raw, 0o600)
	}
	if err != nil {
		return nil, contract.ErrStorage.With("which workers are drained cannot be kept: %v", err)
	}
	w.mu.Lock()
	w.drained = next
	w.mu.Unlock()
	s.log.Info("worker drained", zap.String("worker", name), zap.Bool("undone", r.Body.Undo))
	all, err := s.listWorkers(ctx, nil)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all.Workers, func(w contract.Worker) bool { return w.Worker == name })
	if i < 0 { // asked for at a start, and not heard of yet
		return &contract.Worker{WorkerBeat: contract.WorkerBeat{Worker: name}, Drain: !r.Body.Undo, Rooms: []string{}}, nil
	}
	return &all.Workers[i], nil
}

// loadDrained reads which workers the operator has drained.
func (s *Service) loadDrained(path string) error {
	s.drainedFile = path
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var names []string
	if err == nil {
		err = json.Unmarshal(raw, &names)
	}
	if err != nil {
		return fmt.Errorf("%s: %w; remove it, and drain the workers again", path, err)
	}
	for _, n := range names {
		s.workers.drained[n] = true
	}
	return nil
}
