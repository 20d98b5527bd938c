package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/parley-jami/parley/internal/bench"
)

func init() { extraCommands = append(extraCommands, newBench) }

// benchJoinWait bounds a join under load; a node that takes longer is overloaded.
const benchJoinWait = 20 * time.Second

func newBench(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure what the node costs under load"}
	group(cmd)
	cmd.AddCommand(newBenchMix(a), newBenchSoak(a), newBenchIdle(a), newBenchChaos(a), newBenchScale(a))
	return cmd
}

func newBenchMix(a *app) *cobra.Command {
	cfg := bench.Config{}
	room, file := "", ""
	var listeners, speakers []int
	cmd := &cobra.Command{
		Use: "mix", Short: "Join generated listeners and speakers over loopback and measure the mixer",
		Long: `Join generated listeners and speakers over loopback and measure the mixer.

The speakers come on top of the listeners. Printed are, while all are in the room:

  cpu_per_s              CPU seconds a second, of each process of the node
  workers                the same of each media worker
  ms_per_s_per_listener  CPU of all media workers, in ms a second, divided by the listeners;
                         ms_per_s_per_leg divides it by all
  bytes_per_listener     growth of their memory since before the first joined, of each leg
  on_time                share of the 20 ms frames that reached their listener within
                         20 ms of his clock (the median of arrival minus RTP time);
                         a frame that never came counts as late, and absent is their share
  mixer                  its ticks of 20 ms, those it missed, how long one took on average, and
                         whether it sheds load, which costs less CPU and more delay; "untold"
                         are the workers on other machines, whose ticks are not counted: look
                         at their own /metrics (admin.listen)
  generator_dropped,     what the load generator itself lost or left out: such a run says
  generator_skipped      nothing about the node
  delay_ms               from a packet in to its sound out, by chirps in a speaker's
                         audio that are found again in what four listeners decode;
                         less 6.5 ms of look-ahead for each of the two Opus encoders

With several numbers of listeners the figures of each are printed in a table, and as "runs" in
JSON; --html writes a page with plots of them. The same goes for --speakers; how many of them
are heard at once is the node's media.loudest. --listeners 0 --speakers 300 is a room in which
everybody sends, and on_time is then that of the speakers.

The load generator runs on the same machine and takes CPU of its own.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, done, err := a.bench(cmd, room)
			if err != nil {
				return err
			}
			defer done()
			cfg.Progress = a.benchProgress()
			var runs []*bench.Report
			if len(listeners) > 1 && len(speakers) > 1 {
				return usagef("only one of --listeners and --speakers can be several numbers")
			}
			for i := range max(len(listeners), len(speakers)) {
				cfg.Listeners, cfg.Speakers = listeners[min(i, len(listeners)-1)], speakers[min(i, len(speakers)-1)]
				r, err := bench.Run(cmd.Context(), cfg, node)
				if err := measured(cmd.Context(), cfg.Progress, err); err != nil {
					return err
				}
				runs = append(runs, r)
			}
			if err := writePage(file, func(w io.Writer, node string) error { return bench.HTML(w, node, runs) }); err != nil {
				return err
			}
			if len(runs) == 1 {
				return a.print(runs[0], func(w io.Writer) { showRun(w, runs[0]) })
			}
			return a.print(map[string]any{"runs": runs}, func(w io.Writer) {
				fmt.Fprintln(w, "LISTENERS\tSPEAKERS\tMS/S A LEG\tCORES\tTICK\tON TIME\tP50\tP99\tMEMORY A LEG")
				for _, r := range runs {
					fmt.Fprintf(w, "%d\t%d\t%.3f\t%.3f\t%.2f ms\t%.3f %%\t%.1f ms\t%.1f ms\t%d KiB\n", r.Listeners, r.Speakers, r.MsPerSecondPerLeg, r.CPUPerS["media"], r.Mixer.TickMs, r.OnTimePct(), r.DelayMs.P50, r.DelayMs.P99, r.KiBPerListener())
				}
			})
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&listeners, "listeners", []int{100}, "how many only listen; several, as 100,500,1000, are measured one after the other")
	f.StringVar(&file, "html", "", "write a page with plots to this file")
	f.IntSliceVar(&speakers, "speakers", []int{3}, "how many speak; 0: nobody does; several as with --listeners")
	f.IntVar(&cfg.Silent, "silent", 0, "how many send encoded silence all the time and no level, as Jami apps do that are muted; listeners in the figures")
	f.IntVar(&cfg.Seconds, "seconds", 20, "how long to measure")
	f.StringVar(&cfg.Transport, "transport", bench.RTP, transportsHelp)
	f.StringVar(&room, "room", "main", "room to join")
	completeFlag(cmd, "room", completeRoomFlag(a))
	return cmd
}

const transportsHelp = "rtp; srtp or srtp-gcm: keys in SDP, AES_CM_128_HMAC_SHA1_80 or AEAD_AES_128_GCM; dtls or dtls-cm: ICE and DTLS as browsers do them, AEAD_AES_128_GCM or AES_CM_128_HMAC_SHA1_80"

// untold says whose ticks were not counted.
func untold(workers []string) string {
	if len(workers) == 0 {
		return ""
	}
	return "; without those of " + strings.Join(workers, ", ") + ", which only its own machine tells"
}

// showRun prints one run.
func showRun(w io.Writer, r *bench.Report) {
	fmt.Fprintf(w, "media\t%.3f ms/s a listener, %.3f a leg; %d bytes a leg\n", r.MsPerSecondPerListen, r.MsPerSecondPerLeg, r.BytesPerListener)
	fmt.Fprintf(w, "on time\t%.3f %%; %.3f %% never came\n", r.OnTimePct(), 100*r.Absent)
	fmt.Fprintf(w, "ticks\t%.0f of %.2f ms, %.0f missed%s\n", r.Mixer.Ticks, r.Mixer.TickMs, r.Mixer.Missed, untold(r.Mixer.Untold))
	if r.Mixer.Shedding > 0 {
		fmt.Fprintf(w, "shedding\tlisteners got packets of 40 or 60 ms, as 20 ms were too little for all of them (--media.shed)\n")
	}
	if r.Dropped+uint32(r.Skipped) > 0 {
		fmt.Fprintf(w, "generator\tlost %d packets and left out %d frames of each speaker: it had too little CPU\n", r.Dropped, r.Skipped)
	}
	fmt.Fprintf(w, "delay\tp50 %.1f ms, p99 %.1f ms (%d marks)\n", r.DelayMs.P50, r.DelayMs.P99, r.DelayMs.Found)
	for name, cpu := range r.Workers {
		if len(r.Workers) > 1 {
			fmt.Fprintf(w, "cpu of worker %s\t%.3f s/s\n", name, cpu)
		}
	}
	for name, cpu := range r.CPUPerS {
		fmt.Fprintf(w, "cpu of %s\t%.3f s/s\n", name, cpu)
	}
}

// writePage writes a page to a file; none is meant when it has no name.
func writePage(file string, fill func(w io.Writer, node string) error) error {
	if file == "" {
		return nil
	}
	var page bytes.Buffer
	if err := fill(&page, fmt.Sprintf("Parley %s on %d CPUs of %s", version, runtime.NumCPU(), runtime.GOARCH)); err != nil {
		return err
	}
	if err := os.WriteFile(file, page.Bytes(), 0o644); err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	return nil
}

// measured ends the line of progress, and tells a setting that is wrong, and an interrupt, from what failed.
func measured(ctx context.Context, progress func(string, int, int), err error) error {
	if progress != nil {
		progress("", 0, 0)
	}
	if errors.Is(err, bench.ErrConfig) {
		return usagef("%w", err)
	}
	if err != nil && ctx.Err() != nil {
		return errors.Join(ctx.Err(), err) // what failed did so because of that
	}
	return err
}

// benchProgress writes one line that is overwritten, on a terminal only.
func (a *app) benchProgress() func(string, int, int) {
	if f, ok := a.err.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	var mu sync.Mutex
	return func(what string, done, of int) {
		mu.Lock()
		defer mu.Unlock()
		if what == "" {
			fmt.Fprint(a.err, "\r\x1b[K")
			return
		}
		fmt.Fprintf(a.err, "\r\x1b[K%s %d/%d", what, done, of)
	}
}
