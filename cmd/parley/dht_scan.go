package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

func newDHTScan(a *app) *cobra.Command {
	var nodes, rate int
	var limit time.Duration
	var list bool
	cmd := &cobra.Command{
		Use: "scan", Short: "Walk through OpenDHT's network and count its nodes",
		Long: `Walk through OpenDHT's network from the node's own table: ask each node for others, and
those again, until nobody is left or a bound is met. It counts the nodes that answer, by family
of addresses and by what program they say they are. The node needs dht.overlay opendht or both.

Mind that each packet is work for a stranger: the default rate finds some thousands of nodes
in half a minute, which is enough for a picture.`,
		Example: `  parley dht scan
  parley dht scan --time 2m --rate 500 --nodes 50000
  parley dht scan --list --json | jq -r '.nodes[].addr'`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := &contract.DHTScan{Seconds: int(limit / time.Second), Nodes: nodes, Rate: rate, List: list}
			return a.inDHT(cmd, func(ctx context.Context, s *session) error {
				ctx, cancel := context.WithTimeout(ctx, limit+bus.DefaultTimeout)
				defer cancel()
				found, err := call(ctx, s, contract.DHTScanCmd, q)
				if err != nil {
					return err
				}
				return a.print(found, func(w io.Writer) { showScan(w, found) })
			})
		},
	}
	f := cmd.Flags()
	f.DurationVar(&limit, "time", 30*time.Second, "at most so long, 1s to 2m")
	f.IntVar(&nodes, "nodes", 10_000, "at most so many nodes, to 50000")
	f.IntVar(&rate, "rate", 200, "at most so many packets a second, to 1000")
	f.BoolVar(&list, "list", false, "list the nodes, up to 5000")
	return cmd
}

func showScan(w io.Writer, d *contract.DHTScanned) {
	for _, n := range d.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%.1f ms\t%s\n", n.ID, n.Addr, n.TimeMs, agentWords(n.Agent))
	}
	fmt.Fprintf(w, "answered\t%d nodes\n", d.Found)
	for _, f := range d.Families {
		fmt.Fprintf(w, "  %s\t%d\n", f.Name, f.N)
	}
	for _, f := range d.Agents {
		fmt.Fprintf(w, "  %s\t%d\n", agentWords(f.Name), f.N)
	}
	fmt.Fprintf(w, "silent\t%d that others named\n", d.Silent)
	fmt.Fprintf(w, "asked\t%d questions in %s\n", d.Asked, (time.Duration(d.TookMs) * time.Millisecond).Round(100*time.Millisecond))
	fmt.Fprintf(w, "network\tabout %.0f nodes, by this node's table\n", d.Estimate)
	if !d.Whole {
		fmt.Fprintf(w, "\tnot all of it was walked through: a bound was met\n")
	}
}
