package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

const (
	// drainLook is how often a drain that is waited for is looked at.
	drainLook = 500 * time.Millisecond
	// drainStuck is the time without anybody leaving after which it is said who is left: who is told to go is told
	// again after ten seconds.
	drainStuck = 15 * time.Second
)

func newWorkerDrain(a *app) *cobra.Command {
	var undo, nowait bool
	cmd := &cobra.Command{
		Use: "drain WORKER", Short: "Have a worker's participants go to the others", Args: takes("WORKER"),
		Long: `Have a worker's participants go to the others, and send nobody to it any more, also after the
node starts again. Each negotiates its sound anew: browsers and Jami apps by themselves, phones by re-INVITE;
what they had goes on until the new one is there. The command says how many are left, ends when the worker
has nobody left, and it may then be stopped. Where no other worker has room, nobody is moved. Those whom no
process signals for, such as the legs of "parley bench", stay until they leave. Ctrl-C ends the command alone: the
worker stays drained until --undo.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error {
				all, err := listWorkers(ctx, s)
				if err != nil {
					return err
				}
				if err := drainable(all, args[0], undo); err != nil {
					return err
				}
				w, err := call(ctx, s, contract.WorkerDrain, &contract.Drain{Undo: undo}, args[0])
				if err != nil {
					return err
				}
				if !undo && !takesAnybody(all, args[0]) {
					fmt.Fprintf(a.err, "parley: no other worker takes participants: nobody can join until one does (`parley worker list`; `parley worker drain %s --undo` takes it back)\n", args[0])
				}
				if !undo && !nowait {
					if w, err = a.drained(ctx, s, w); err != nil {
						return err
					}
				}
				return a.print(w, func(out io.Writer) {
					switch name := printable(w.Worker); {
					case undo:
						fmt.Fprintf(out, "%s takes participants again\n", name)
					case !w.Alive:
						fmt.Fprintf(out, "%s is drained; it is not there now, and nobody is at it\n", name)
					default:
						fmt.Fprintf(out, "%s is drained, %s\n", name, left(w.Legs))
					}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "let it take participants again")
	cmd.Flags().BoolVar(&nowait, "no-wait", false, "do not wait until nobody is left")
	return cmd
}

// drainable says of a worker that nobody can be at why that is so.
func drainable(all *shownWorkers, name string, undo bool) error {
	i := slices.IndexFunc(all.Workers, func(w shownWorker) bool { return w.Worker.Worker == name })
	if i < 0 || undo {
		return nil // the node says so itself, or may be told
	}
	switch w := all.Workers[i]; {
	case w.Revoked != nil:
		return contract.ErrForbidden.With("worker %s was revoked on %s: nobody is at it, and nobody goes there", name, w.Revoked.Local().Format(time.DateOnly))
	case w.Service == "conference":
		return contract.ErrForbidden.With("worker %s stands by for the rooms and mixes nobody: there is nothing to drain, it may be stopped", name)
	case w.Started == "" && w.Added != nil:
		return contract.ErrNotFound.With("worker %s has not been here yet: nobody is at it. `parley join` on its machine brings it, `parley worker revoke %s` takes its credentials away", name, name)
	}
	return nil
}

// takesAnybody reports whether a worker other than the named one takes participants.
func takesAnybody(all *shownWorkers, name string) bool {
	return slices.ContainsFunc(all.Workers, func(w shownWorker) bool {
		return w.Worker.Worker != name && w.Alive && !w.Drain && !w.Other && w.Revoked == nil && w.Service != "conference"
	})
}

// drained waits until nobody is at a worker, and tells of each change.
func (a *app) drained(ctx context.Context, s *session, w *contract.Worker) (*contract.Worker, error) {
	name := w.Worker
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	told, since, named := -1, time.Now(), false
	for w.Alive && w.Legs > 0 {
		switch {
		case w.Legs != told:
			fmt.Fprintf(a.err, "%s: %s\n", printable(name), left(w.Legs))
			told, since, named = w.Legs, time.Now(), false
		case !named && time.Since(since) > drainStuck:
			named = true
			fmt.Fprintf(a.err, "%s: nobody has gone for %v; there are %s. Another worker may have no room (`parley worker list`); the legs of `parley bench` stay until it ends. Ctrl-C ends the wait\n",
				printable(name), drainStuck, s.whoIsAt(ctx, w))
		}
		select {
		case <-ctx.Done():
			// Not the context's error, for which "interrupted" alone is told.
			return nil, fmt.Errorf("interrupted: %s stays drained, %s; `parley worker drain %s --undo` lets it take participants again", name, left(w.Legs), name)
		case <-tick.C:
		}
		l, err := call(ctx, s, contract.WorkerList, &contract.None{})
		switch {
		case ctx.Err() != nil:
			continue
		case err != nil:
			return nil, err
		}
		i := slices.IndexFunc(l.Workers, func(x contract.Worker) bool { return x.Worker == name })
		if i < 0 {
			return w, nil // conference was started anew and has not heard of it
		}
		w = &l.Workers[i]
	}
	return w, nil
}

// left says how many are left.
func left(n int) string {
	switch n {
	case 0:
		return "nobody is left"
	case 1:
		return "1 participant is left"
	}
	return plural(n, "participant") + " are left"
}

// plural is a number of things.
func plural(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprint(n, " ", thing)
}

// whoIsAt counts the participants at a worker by what they are and how they come.
func (s *session) whoIsAt(ctx context.Context, w *contract.Worker) string {
	kinds := map[string]int{}
	for _, name := range w.Rooms {
		r, err := getRoom(ctx, s, name)
		if err != nil {
			continue // it is gone; who was in it is, too
		}
		for _, p := range r.Participants {
			if p.Worker == w.Worker {
				kinds[fmt.Sprintf("%s over %s", p.Kind, p.Transport)]++
			}
		}
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		out = append(out, fmt.Sprintf("%d %s", kinds[k], k))
	}
	if len(out) == 0 {
		return "some that no room knows"
	}
	return strings.Join(out, ", ")
}
