package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/internal/bench"
)

func newBenchSoak(a *app) *cobra.Command {
	cfg := bench.SoakConfig{}
	room, file := "", ""
	cmd := &cobra.Command{
		Use: "soak", Short: "Have generated legs come and go, and watch memory, goroutines and late frames",
		Long: `Have generated legs come and go, and watch memory, goroutines and late frames.

A few speakers stay. Each of the other legs stays for a random time (exponential, 2 s at least)
and leaves, and another one comes for it, with another address. Printed are

  late      frames that their listener got more than 20 ms off his clock (the median of arrival
            minus RTP time in 30 s), or not at all, from his first frame until he wished to leave
  unheard   legs that were there for 2 s or more and got no frame
  join_ms   from the wish to join to the answer; sound_ms: from then to the first frame
  growth    of memory and goroutines of each process, by a straight line through the samples
            after the first quarter of the run; not told of a run of less than 150 s

and, with --json and in the page that --html writes, a sample each --every: legs, frames due and
late, CPU, memory, goroutines, ticks that the mixer missed. A join that is refused is counted, and
the run goes on. After the end all leave, and the processes are looked at once more. Ctrl-C ends the
run early, and what was measured until then is printed.`,
		Example: "  parley bench soak --legs 300 --stay 60s --duration 60m --html soak.html",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d, err := cmd.Flags().GetDuration("duration"); err == nil {
				cfg.Seconds = int(d / time.Second)
			}
			node, done, err := a.bench(cmd, room)
			if err != nil {
				return err
			}
			defer done()
			cfg.Progress = a.benchProgress()
			r, err := bench.RunSoak(cmd.Context(), cfg, node)
			if err := measured(cmd.Context(), cfg.Progress, err); err != nil {
				return err
			}
			if err := writePage(file, r.HTML); err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { showSoak(w, r) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Legs, "legs", 300, "how many are in the room beside the speakers who stay")
	f.IntVar(&cfg.Speakers, "speakers", 3, "who stay and speak")
	f.IntVar(&cfg.Talk, "talk", 10, "per cent of those who come that speak too")
	f.DurationVar(&cfg.Stay, "stay", time.Minute, "how long each is there on average")
	f.Duration("duration", 3*time.Minute, "how long to measure")
	f.DurationVar(&cfg.Every, "every", 10*time.Second, "time between two samples")
	f.StringSliceVar(&cfg.Transports, "transport", []string{bench.RTP, bench.SRTP}, "with several the legs take turns: "+transportsHelp)
	f.StringVar(&file, "html", "", "write a page with plots to this file")
	f.StringVar(&room, "room", "main", "room to join")
	completeFlag(cmd, "room", completeRoomFlag(a))
	return cmd
}

// showSoak prints a run.
func showSoak(w io.Writer, r *bench.SoakReport) {
	if r.Interrupted {
		fmt.Fprintf(w, "interrupted\tafter %d s\n", r.Seconds)
	}
	fmt.Fprintf(w, "came\t%d, left %d; %d joins or leaves failed %s\n", r.Joined, r.Left, r.Failed, r.Failure)
	fmt.Fprintf(w, "late\t%.4f %% of %d frames, %.4f %% in the worst %g s; %d heard nothing\n", r.LatePct, r.Frames, r.WorstPct, r.EveryS, r.Unheard)
	join, sound := r.JoinMs.Figures(), r.SoundMs.Figures()
	fmt.Fprintf(w, "join\tp50 %s, p99 %s, at most %s; sound after p50 %s, p99 %s\n", ms(join[0]), ms(join[1]), ms(join[2]), ms(sound[0]), ms(sound[1]))
	fmt.Fprintln(w)
	fmt.Fprintln(w, "PROCESS\tMIB BEFORE\tAT THE END\tALL LEFT\tGROWTH/H\tGOROUTINES BEFORE\tAT THE END\tALL LEFT\tGROWTH/H")
	for _, p := range r.Processes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", p.Name, p.MiB(p.RSSBefore), p.MiB(p.RSSEnd), p.MiB(p.RSSAfter), p.GrowthMiB(),
			p.GoroutinesBefore, p.GoroutinesEnd, p.GoroutinesAfter, p.GrowthGoroutines())
	}
}
