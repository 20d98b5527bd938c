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
	room, file, inside := "", "", ""
	loss := 5.0
	cmd := &cobra.Command{
		Use: "chaos", Short: "Kill the node's processes, cut its machines off, and see what generated legs lose",
		Long: `Join generated legs, kill the processes of the node one after the other as a crash does
(SIGKILL), cut machines off, have datagrams lost, and measure what everybody notices. The legs follow the node
to another worker as a phone and its signalling do. Of an existing node those processes are killed that are on
this machine. A room with real people in it notices as well: use a node that is there for this.

Steps are names of processes, and

  weather  --loss per cent of all datagrams to and from the legs are lost, and each is held for 0 to
           --jitter, without one passing another of the same leg. The load generator does that to what it
           sends and to what it gets, so nothing but RTP and RTCP is hit

and, for which a node of its own is started, with data in a temporary directory, a bus of three servers and two
machines more in network namespaces, each with a server and a worker (this needs root, and ip of iproute2; a third
of the legs is near to each worker; nothing is left at the end):

  leader   the server of the bus is killed that leads the others
  machine  a machine is cut off from everybody for some seconds: its legs go to the other workers
  split    a machine is cut off from the other machines, and the legs reach both sides

For each step, and before all for nothing at all, since a busy machine costs as well:

  back_ms           until another was ready in its place; of a cut, from its end until all machines worked
                    together; of bus and leader, until all servers had everything
  gap_ms            longest gap in the sound of any leg, of each time, beyond the 20 ms
                    between two frames
  legs_gap_ms       the same of all legs
  legs_lost         legs without sound at the end, or at the end of the cut, and participants that were gone
  legs_moved        went to another worker
  two_mixers_ms     for how long two mixers sent to a leg at a time; legs_two_mixers: more than a second
  frames            without a death: share of frames that came in time, alone and with the redundancy in
                    the next one, and the delay of the sound
  messages          written to the chat meanwhile, four a second, and acknowledged
  messages_refused  not acknowledged
  messages_lost     acknowledged, and not there afterwards`,
		Example: `  parley bench chaos --legs 200 --times 10
  parley bench chaos --only media,bus --transport srtp --json
  parley bench chaos --only media,leader,machine,split,weather --times 10 --html chaos.html`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			alone := bench.NeedsLab(c.Steps)
			if alone && inside == "" {
				return a.apart(cmd.Context(), "this", "plychaos")
			}
			c.Weather.Loss = loss / 100
			node, done, err := a.wrecked(cmd, room, inside, alone)
			if err != nil {
				return err
			}
			defer done()
			for _, p := range c.Steps {
				if !bench.IsProcess(p) {
					continue
				}
				if _, _, err := node.pid(cmd.Context(), p); err != nil {
					return err
				}
			}
			c.Progress = a.benchProgress()
			r, err := bench.Wreck(cmd.Context(), c, node)
			if err := measured(cmd.Context(), c.Progress, err); err != nil {
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
	f.IntVar(&c.Times, "times", 10, "how often each step is done")
	f.StringSliceVar(&c.Steps, "only", []string{"identity", "dht", "swarm", "conference", "connect", "bus", "media", bench.Bad}, "steps to do, in this order")
	f.Float64Var(&loss, "loss", loss, "of weather: how many per cent of datagrams are lost")
	f.DurationVar(&c.Weather.Jitter, "jitter", 50*time.Millisecond, "of weather: how late they come at most")
	f.StringVar(&c.Transport, "transport", bench.RTP, transportsHelp+"; with machines rtp or srtp")
	f.StringVar(&file, "html", "", "write a page with plots to this file")
	f.StringVar(&room, "room", "main", "room to join")
	completeFlag(cmd, "room", completeRoomFlag(a))
	insideFlag(cmd, &inside)
	return cmd
}

// wreck is a node whose processes can be found.
type wreck interface {
	bench.Ruin
	pid(ctx context.Context, process string) (pid int, ready bool, err error)
}

// wrecked is the node that is meant, or one of its own on several machines.
func (a *app) wrecked(cmd *cobra.Command, room, inside string, alone bool) (wreck, func(), error) {
	if alone {
		return a.lab(cmd, inside)
	}
	node, done, err := a.bench(cmd, room)
	if err != nil {
		return nil, nil, err
	}
	return &ruin{node}, done, nil
}

func showChaos(w io.Writer, r *bench.ChaosReport) {
	fmt.Fprintln(w, "STEP\tTIMES\tBACK\tGAP P50\tGAP MAX\tLEGS LOST\tMOVED\tTWO MIXERS\tAT MOST\tMESSAGES\tREFUSED\tLOST\tHEARD\tLOAD")
	for _, s := range r.Steps {
		heard := "-"
		if f := s.Frames; f != nil {
			heard = fmt.Sprintf("%.2f %%, %.2f %%", 100*f.Heard, 100*f.Whole)
		}
		fmt.Fprintf(w, "%s\t%d\t%.0f ms\t%.0f ms\t%.0f ms\t%d\t%d\t%d\t%.0f ms\t%d\t%d\t%d\t%s\t%.1f\n", s.Process, s.Times, s.BackMs.P50, s.GapMs.P50, s.GapMs.Max, s.Lost,
			s.Moved, s.Two, s.TwoMs.Max, s.Said, s.Refused, s.SaidLost, heard, s.Load)
		if s.Stuck > 0 {
			fmt.Fprintf(w, "\t%d could not move: %s\n", s.Stuck, s.StuckBy)
		}
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
	return 0, false, usagef("--only %s: the node has no such process; it has %s", process, strings.Join(names, ", "))
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

func (n *ruin) Moves(fn func(id string)) (stop func(), err error) {
	sub, err := bus.Subscribe(n.s.Conn, contract.RoomEvents, func(_ context.Context, _ []string, e *contract.RoomEvent) {
		if e.Type == contract.EventMedia && e.Room == n.room && e.Participant != nil {
			fn(e.Participant.ID)
		}
	})
	if err != nil {
		return nil, err
	}
	return sub.Stop, nil
}

func (n *ruin) Offer(ctx context.Context, id, offer, was string) (string, error) {
	a, err := bus.Call(ctx, n.s.Conn, contract.RoomNegotiate, &contract.Negotiate{SDP: offer, Was: was}, n.room, id)
	if err != nil {
		return "", err
	}
	return a.SDP, nil
}

func (n *ruin) Answer(ctx context.Context, id, answer string) error {
	_, err := bus.Call(ctx, n.s.Conn, contract.RoomNegotiate, &contract.Negotiate{SDP: answer, Answer: true}, n.room, id)
	return err
}
