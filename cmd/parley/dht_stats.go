package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

func newDHTStats(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "stats", Short: "Show routing tables, stored values, searches and traffic",
		Long: `Show what the node knows of its place in the DHT, for each overlay: the routing table
(good nodes answer, dubious ones were not heard of for long, failed ones did not answer, incoming
ones asked this node since they last answered), the network's size as it looks from there, what is
stored, who listens, what is searched, and the packets in and out by kind and those dropped by
reason. Counters are since the start of the process.`,
		Example: `  parley dht stats
  parley dht stats --json | jq '.overlays[].tables'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inDHT(cmd, func(ctx context.Context, s *session) error {
				st, err := call(ctx, s, contract.DHTStatsGet, &contract.None{})
				if err != nil {
					return err
				}
				return a.print(st, func(w io.Writer) { showDHT(w, st, time.Now()) })
			})
		},
	}
}

func showDHT(w io.Writer, st *contract.DHTStats, now time.Time) {
	for i := range st.Overlays {
		if i > 0 {
			fmt.Fprintln(w)
		}
		showOverlay(w, &st.Overlays[i], now)
	}
	if st.Leases > 0 {
		fmt.Fprintf(w, "\nlistened to for the bus\t%d keys\n", st.Leases)
	}
	for _, x := range st.Warnings {
		fmt.Fprintf(w, "\nwarning: %s\n", x)
	}
}

func showOverlay(w io.Writer, o *contract.DHTOverlay, now time.Time) {
	fmt.Fprintf(w, "overlay\t%s, up %s\n", o.Overlay, now.Sub(o.Started).Round(time.Second))
	if o.Network != 0 {
		fmt.Fprintf(w, "network\t%d\n", o.Network)
	}
	if o.NodeID != "" {
		fmt.Fprintf(w, "node id\t%s\n", o.NodeID)
	}
	fmt.Fprintf(w, "signs as\t%s\n", o.ID)
	if o.Via != nil {
		showVia(w, o, now)
		return
	}
	for _, a := range o.Addresses {
		fmt.Fprintf(w, "address\t%s\n", a)
	}
	if len(o.Public) > 0 {
		fmt.Fprintf(w, "seen from outside as\t%s\n", strings.Join(o.Public, ", "))
	}
	for _, b := range o.Bootstrap {
		fmt.Fprintf(w, "bootstrap\t%s  %s\n", b.Addr, map[bool]string{true: "answers", false: "does not answer"}[b.Answers])
	}
	fmt.Fprintln(w, "\nTABLE\tGOOD\tDUBIOUS\tFAILED\tINCOMING\tDEPTH\tNETWORK\tGOOD BY BUCKET")
	for _, t := range o.Tables {
		fill := make([]string, len(t.Buckets))
		for i, b := range t.Buckets {
			fill[i] = fmt.Sprint(b.Good)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t~%.0f\t%s\n", t.Family, t.Good, t.Dubious, t.Failed, t.Incoming, t.Depth, t.Estimate, strings.Join(fill, " "))
	}
	s := o.Store
	fmt.Fprintf(w, "\nstored\t%d values under %d keys; of others' %.1f of %d MiB\n", s.Values, s.Keys, float64(s.Bytes)/(1<<20), s.Quota>>20)
	fmt.Fprintf(w, "own values\t%d\nlisteners\t%d\nlistens\t%d\nsearches\t%d, %d queries on the way\n", s.Own, s.Listeners, o.Listens, o.Searches, o.Requests)
	fmt.Fprintln(w, "\nTRAFFIC\tIN\tKiB\tOUT\tKiB")
	for _, t := range o.Traffic {
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%d\t%.1f\n", t.Kind, t.In, float64(t.InBytes)/1024, t.Out, float64(t.OutBytes)/1024)
	}
	showCounts(w, "dropped", o.Dropped)
	showCounts(w, "events", o.Events)
}

// showVia says by which proxy the network is reached.
func showVia(w io.Writer, o *contract.DHTOverlay, now time.Time) {
	used := false
	for _, p := range o.Via.Proxies {
		state := map[bool]string{true: "answers", false: "does not answer"}[p.Answers]
		if p.InUse {
			used, state = true, fmt.Sprintf("in use for %s, knows %d nodes", now.Sub(o.Via.Since).Round(time.Second), o.Via.Peers)
		}
		fmt.Fprintf(w, "proxy\t%s  %s\n", p.URL, state)
	}
	if !used {
		fmt.Fprintf(w, "reaches\tnobody, for %s\n", now.Sub(o.Via.Since).Round(time.Second))
	}
	fmt.Fprintf(w, "own values\t%d\nlistens\t%d keys\n", o.Store.Own, o.Listens)
}

// showCounts prints the counters that are not zero, in one line.
func showCounts(w io.Writer, what string, cs []contract.DHTCount) {
	var some []string
	for _, c := range cs {
		if c.N > 0 {
			some = append(some, fmt.Sprintf("%d %s", c.N, c.Name))
		}
	}
	if cs != nil {
		fmt.Fprintf(w, "%s\t%s\n", what, dash(strings.Join(some, ", ")))
	}
}
