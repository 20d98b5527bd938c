package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/bench"
)

// chaosAsk is how often the node is asked whether what was killed is there again.
const chaosAsk = 50 * time.Millisecond

func newBenchChaos(a *app) *cobra.Command {
	c := bench.Chaos{}
	room, file := "", ""
	cmd := &cobra.Command{
		Use: "chaos", Short: "Kill the node's processes while generated legs listen, and see what is lost",
		Long: `Join generated legs over loopback, kill the processes of the node one after the other as
a crash does (SIGKILL), and measure what everybody notices. Those of workers on other machines
(parley join) are not killed, so nobody may be at one. A room with real people in it
notices as well: use a node that is there for this.

For each process, and before all for nobody at all, since a busy machine costs as well:

  back_ms           until another was ready in its place
  gap_ms            longest gap in the sound of any leg, of each time, beyond the 20 ms
                    between two frames
  legs_gap_ms       the same of all legs
  legs_lost         legs without sound at the end, and participants that were gone
  messages          written to the chat meanwhile, four a second, and acknowledged
  messages_refused  not acknowledged
  messages_lost     acknowledged, and not there afterwards`,
		Example: `  parley bench chaos --legs 200 --times 10
  parley bench chaos --kill media,bus --transport srtp --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, done, err := a.bench(cmd, room)
			if err != nil {
				return err
			}
			defer done()
			n := &ruin{node}
			for _, p := range c.Kill {
				if _, _, err := n.pid(cmd.Context(), p); err != nil {
					return err
				}
			}
			c.Progress = a.benchProgress()
			r, err := bench.Wreck(cmd.Context(), c, n)
			if err := measured(c.Progress, err); err != nil {
				return err
			}
			if err := writePage(file, func(w io.Writer, node string) error { return bench.ChaosHTML(w, node, r) }); err != nil {
				return err
			}
			if err := a.print(r, func(w io.Writer) { showChaos(w, r) }); err != nil {
				return err
			}
			if last := r.Steps[len(r.Steps)-1]; last.Failed != "" {
				return contract.ErrUnavailable.With("ended early: %s", last.Failed)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&c.Legs, "legs", 200, "how many are in the room, the speakers among them")
	f.IntVar(&c.Speakers, "speakers", 3, "how many of them speak")
	f.IntVar(&c.Times, "times", 10, "how often each process is killed")
	f.StringSliceVar(&c.Kill, "kill", []string{"identity", "dht", "swarm", "conference", "connect", "bus", "media"}, "processes to kill, in this order")
	f.StringVar(&c.Transport, "transport", bench.RTP, transportsHelp)
	f.StringVar(&file, "html", "", "write a page with plots to this file")
	f.StringVar(&room, "room", "main", "room to join")
	completeFlag(cmd, "room", completeRoomFlag(a))
	return cmd
}

func showChaos(w io.Writer, r *bench.ChaosReport) {
	fmt.Fprintln(w, "KILLED\tTIMES\tBACK\tGAP P50\tGAP MAX\tLEGS LOST\tMESSAGES\tREFUSED\tLOST")
	for _, s := range r.Steps {
		fmt.Fprintf(w, "%s\t%d\t%.0f ms\t%.0f ms\t%.0f ms\t%d\t%d\t%d\t%d\n", s.Process, s.Times, s.BackMs.P50, s.GapMs.P50, s.GapMs.Max, s.Lost, s.Said, s.Refused, s.SaidLost)
	}
}

// ruin is the node as who kills its processes sees it.
type ruin struct{ *benchNode }

// pid finds a process of the node on this machine. ready: it serves.
func (n *ruin) pid(ctx context.Context, process string) (pid int, ready bool, err error) {
	st, err := bus.Call(ctx, n.s.Conn, contract.NodeStatus, &contract.None{})
	if err != nil {
		return 0, false, err
	}
	var names []string
	for _, p := range st.Processes {
		if p.Name == process {
			return p.PID, p.Ready, nil
		}
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return 0, false, usagef("--kill %s: the node has no such process; it has %s", process, strings.Join(names, ", "))
}

// ours refuses a process id that means something else on this machine.
func ours(pid int, process string) error {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if args := strings.Split(string(line), "\x00"); err != nil || len(args) < 3 || args[1] != "run" || args[2] != process {
		return usagef("process %d is not %s of the node: chaos runs on the node's own machine", pid, process)
	}
	return nil
}

func (n *ruin) Kill(ctx context.Context, process string) error {
	pid, _, err := n.pid(ctx, process)
	if err != nil {
		return err
	}
	if err := ours(pid, process); err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	tick := time.NewTicker(chaosAsk)
	defer tick.Stop()
	for {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		now, ready, err := n.pid(ask, process)
		cancel()
		if err == nil && ready && now != pid && now != 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it did not come back: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func (n *ruin) Say(ctx context.Context, participant, body string) (string, error) {
	m, err := bus.Call(ctx, n.s.Conn, contract.RoomChat, &contract.ChatPost{Body: body}, n.room, participant)
	if err != nil {
		return "", err
	}
	return m.ID, nil
}

func (n *ruin) Said(ctx context.Context, participant string, last int) (map[string]bool, error) {
	ids := map[string]bool{}
	q := &contract.ChatQuery{Limit: 200}
	for {
		h, err := bus.Call(ctx, n.s.Conn, contract.RoomHistory, q, n.room, contract.Operator)
		if err != nil {
			return nil, err
		}
		for _, m := range h.Messages {
			ids[m.ID] = true
		}
		if !h.More || len(h.Messages) == 0 || len(ids) >= last {
			return ids, nil
		}
		q.Before = h.Messages[0].ID
	}
}

func (n *ruin) People(ctx context.Context) (int, error) {
	r, err := getRoom(ctx, n.s, n.room)
	if err != nil {
		return 0, err
	}
	return max(r.Total, len(r.Participants)), nil
}
