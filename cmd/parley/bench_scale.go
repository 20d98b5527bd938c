package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/internal/bench"
)

func newBenchScale(a *app) *cobra.Command {
	cfg := bench.ScaleConfig{}
	file, inside := "", ""
	cmd := &cobra.Command{
		Use: "scale", Short: "Measure one room over several workers, each on a network of its own (root)",
		Long: `Measure one room over several workers, each on a network of its own.

A node of its own is started, with data in a temporary directory, and workers (parley join), each in
a network namespace of its own that a virtual Ethernet pair joins to a bridge: this needs root, and
ip of iproute2. Nothing of it is left at the end. The legs are in the namespace of the bridge. Each
worker takes --legs legs; those who speak are all at one of them. Printed are, for each number of
workers, the CPU of the workers' processes and what it is for each leg against one worker's,
packets on trunks, and the delay at the speakers' worker and at the others; then what a room of
1,000 to 100,000 would cost by that, with what is taken for granted.

The workers, the node and the load generator share this machine's CPUs: with more workers than those
bear, frames are late, and generator_skipped says that the run is worth nothing.`,
		Example: "  parley bench scale --workers 1,2,4,8 --legs 200 --html scale.html",
		Args:    takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Check(); err != nil {
				return usagef("%w", err)
			}
			if inside == "" {
				return a.apart(cmd.Context(), "bench scale", "plyscale")
			}
			cfg.Progress = a.benchProgress()
			r, err := a.scale(cmd, cfg, inside)
			if err := measured(cmd.Context(), cfg.Progress, err); err != nil {
				return err
			}
			if err := writePage(file, r.HTML); err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { showScale(w, r) })
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&cfg.Workers, "workers", []int{1, 2, 4, 8}, "over how many workers, rising from 1")
	f.IntVar(&cfg.Legs, "legs", 200, "legs of each worker")
	f.IntVar(&cfg.Speakers, "speakers", 3, "how many of the legs speak, all at one worker")
	f.IntVar(&cfg.Seconds, "seconds", 20, "how long to measure each")
	f.StringVar(&cfg.Transport, "transport", bench.RTP, transportsHelp)
	f.StringVar(&file, "html", "", "write a page with plots to this file")
	insideFlag(cmd, &inside)
	return cmd
}

func showScale(w io.Writer, r *bench.ScaleReport) {
	fmt.Fprintln(w, "WORKERS\tLEGS\tCORES\tMS/S A LEG\tAGAINST ONE\tON TIME\tTRUNKS OUT\tIN\tDELAY THERE P50\tP99\tELSEWHERE P50\tP99")
	for _, x := range append([]bench.ScaleRow{r.Part}, r.Rows...) {
		fmt.Fprintf(w, "%d\t%d\t%.3f\t%.3f\t%s\t%.3f %%\t%.0f/s\t%.0f/s\t%s\t%s\t%s\t%s\n",
			x.Workers, x.Legs, x.Cores, x.MsPerLeg, x.AgainstOne(), 100*x.OnTime, x.TrunkOut, x.TrunkIn, ms(x.Same.Median()), ms(x.Same.Most()), ms(x.Other.Median()), ms(x.Other.Most()))
		if x.Skipped > 0 || x.Dropped > 0 {
			fmt.Fprintf(w, "\tthe generator was held up: %d frames of each speaker left out, %d packets lost\n", x.Skipped, x.Dropped)
		}
	}
	m := r.Model
	fmt.Fprintf(w, "\nA room takes %.3f cores at the speakers' worker and %.3f at each other one, a leg %.3f ms/s, a trunk %.2f ms/s; %d legs fill a worker.\n\n", m.Room, m.Mix, 1000*m.Leg, 1000*m.Trunk, m.Full)
	fmt.Fprintln(w, "LEGS\tWORKERS\tCORES\tMS/S A LEG\tAGAINST ONE\tTRUNKS\tTHEIR MBIT/S\tLEGS' MBIT/S\tHOPS\tDELAY P50")
	for _, g := range m.Rooms {
		fmt.Fprintf(w, "%d\t%d\t%.1f\t%.3f\t%.2f\t%d\t%.1f\t%.0f\t%d\t%.0f ms\n", g.Legs, g.Workers, g.Cores, g.MsPerLeg, g.Against, g.Peers, g.TrunkMbit, g.LegMbit, g.Hops, g.DelayMs)
	}
	fmt.Fprintln(w)
	for _, s := range m.Assumptions {
		fmt.Fprintln(w, "- "+s)
	}
}

// ms adds the unit to a figure that is known.
func ms(figure string) string {
	if figure == bench.Unknown {
		return figure
	}
	return figure + " ms"
}
