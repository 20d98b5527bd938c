package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus/contract"
)

// dhtPings is what `dht ping --json` prints.
type dhtPings struct {
	Node      string             `json:"node"`
	Asked     int                `json:"asked"`
	Answered  int                `json:"answered"`
	Lost      int                `json:"lost"` // packets, or their answers
	LeastMs   float64            `json:"least_ms"`
	MeanMs    float64            `json:"mean_ms"`
	MostMs    float64            `json:"most_ms"`
	Deviation float64            `json:"deviation_ms"`
	Pongs     []contract.DHTPong `json:"pongs"`
}

func newDHTPing(a *app) *cobra.Command {
	var n int
	var every time.Duration
	cmd := &cobra.Command{
		Use: "ping HOST[:PORT]", Short: "Ask a node of OpenDHT for a sign of life",
		Long: `Ask a node of OpenDHT for a sign of life, from the node's own port: which node it is,
what program it says it is, how long the way there and back takes, and under which address it
sees this node. Without a port, 4222. The node needs dht.overlay opendht or both.

The exit code is 3 when nothing comes back.`,
		Example: `  parley dht ping bootstrap.jami.net
  parley dht ping 192.0.2.7:4222 --count 20 --interval 200ms`,
		Args: takes("HOST[:PORT]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n < 0 || every < 50*time.Millisecond {
				return usagef("--count is 0, without end, or more; --interval is 50ms or more")
			}
			return a.inDHT(cmd, func(ctx context.Context, s *session) error { return a.pings(ctx, s, args[0], n, every) })
		},
	}
	cmd.Flags().IntVar(&n, "count", 4, "how often; 0 is until Ctrl-C")
	cmd.Flags().DurationVar(&every, "interval", time.Second, "time between two questions")
	return cmd
}

func (a *app) pings(ctx context.Context, s *session, node string, n int, every time.Duration) error {
	sum := &dhtPings{Node: node, Pongs: []contract.DHTPong{}}
	t := time.NewTicker(every)
	defer t.Stop()
	for n == 0 || sum.Asked < n {
		p, err := call(ctx, &session{Conn: s.Conn}, contract.DHTPingCmd, &contract.DHTPing{Addr: node})
		if ctx.Err() != nil {
			break
		}
		sum.Asked++
		switch {
		case err == nil:
			sum.add(p)
		case !errors.Is(err, contract.ErrTimeout):
			return err
		default:
			sum.Lost++
		}
		if !a.json {
			if _, werr := fmt.Fprintln(a.out, pongLine(p, err)); werr != nil {
				return fmt.Errorf("writing the answer: %w", werr)
			}
		}
		if sum.Asked == n {
			break
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	sum.finish()
	if err := a.print(sum, sum.show); err != nil {
		return err
	}
	if sum.Answered == 0 && sum.Asked > 0 {
		return &codedError{exitUnavailable, fmt.Errorf("%s does not answer", node)}
	}
	return nil
}

func (d *dhtPings) add(p *contract.DHTPong) {
	d.Answered++
	d.Lost += p.Sendings - 1
	d.Pongs = append(d.Pongs, *p)
}

func (d *dhtPings) finish() {
	for i, p := range d.Pongs {
		if i == 0 || p.TimeMs < d.LeastMs {
			d.LeastMs = p.TimeMs
		}
		d.MostMs = max(d.MostMs, p.TimeMs)
		d.MeanMs += p.TimeMs / float64(len(d.Pongs))
	}
	for _, p := range d.Pongs {
		d.Deviation += (p.TimeMs - d.MeanMs) * (p.TimeMs - d.MeanMs) / float64(len(d.Pongs))
	}
	d.Deviation = math.Sqrt(d.Deviation)
}

func pongLine(p *contract.DHTPong, err error) string {
	if err != nil {
		return "no answer"
	}
	again := ""
	if p.Sendings > 1 {
		again = fmt.Sprintf("  (packet %d)", p.Sendings)
	}
	return fmt.Sprintf("%s  %.2f ms  node %s  %s  sees us at %s%s", p.Addr, p.TimeMs, p.ID, agentWords(p.Agent), dash(p.Seen), again)
}

// agentWords says what a program calls itself on the wire (§1.1).
func agentWords(agent string) string {
	switch agent {
	case "":
		return "says no program"
	case "RNG1":
		return "RNG1 (OpenDHT 2, or Parley)"
	case "o2":
		return "o2 (OpenDHT 3 or newer)"
	}
	return printable(agent)
}

func (d *dhtPings) show(w io.Writer) {
	fmt.Fprintf(w, "asked %d, answered %d, packets lost %d\n", d.Asked, d.Answered, d.Lost)
	if d.Answered > 0 {
		fmt.Fprintf(w, "round trip least %.2f, mean %.2f, most %.2f, deviation %.2f ms\n", d.LeastMs, d.MeanMs, d.MostMs, d.Deviation)
	}
}
