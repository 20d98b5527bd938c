package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/bench"
)

func newBenchIdle(a *app) *cobra.Command {
	cfg := bench.IdleConfig{}
	room, file := "", ""
	cmd := &cobra.Command{
		Use: "idle", Short: "Measure what silence costs: legs while nobody speaks, and empty rooms",
		Long: `Measure what silence costs: legs while nobody speaks, and empty rooms.

Measured are, one after the other, the node with nobody; --silent legs that send encoded silence
all the time, as Jami apps do that are muted; --idle legs that only listen; and --rooms rooms
without anybody, which are made and removed. Printed are the CPU of all processes of the node in
cores, how much more that is than with nobody, and the memory that came to it.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, done, err := a.bench(cmd, room)
			if err != nil {
				return err
			}
			defer done()
			cfg.Progress = a.benchProgress()
			r, err := bench.RunIdle(cmd.Context(), cfg, node, node)
			if err := measured(cmd.Context(), cfg.Progress, err); err != nil {
				return err
			}
			if err := writePage(file, r.HTML); err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintln(w, "WHAT\tHOW MANY\tCORES\tMORE\tMEMORY MORE\tMEDIA\tCONFERENCE\tBUS")
				for _, p := range r.Phases {
					fmt.Fprintf(w, "%s\t%d\t%.4f\t%+.4f\t%s MiB\t%.4f\t%.4f\t%.4f\n", p.What, p.Count, p.Cores, p.More, p.MiB(p.MoreRSS), p.CPUPerS["media"], p.CPUPerS["conference"], p.CPUPerS["bus"])
				}
			})
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Silent, "silent", 300, "legs that send encoded silence")
	f.IntVar(&cfg.Idle, "idle", 1000, "legs that listen while nobody speaks")
	f.IntVar(&cfg.Rooms, "rooms", 5000, "rooms without anybody")
	f.IntVar(&cfg.Seconds, "seconds", 20, "how long to measure each")
	f.StringVar(&cfg.Transport, "transport", bench.RTP, transportsHelp)
	f.StringVar(&file, "html", "", "write a page to this file")
	f.StringVar(&room, "room", "main", "room to join")
	completeFlag(cmd, "room", completeRoomFlag(a))
	return cmd
}

// CreateRoom makes a room.
func (n *benchNode) CreateRoom(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, benchJoinWait)
	defer cancel()
	_, err := bus.Call(ctx, n.s.Conn, contract.RoomCreateCmd, &contract.RoomCreate{Name: name})
	return err
}

// RemoveRoom ends it.
func (n *benchNode) RemoveRoom(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, benchJoinWait)
	defer cancel()
	_, err := bus.Call(ctx, n.s.Conn, contract.RoomRemoveCmd, &contract.RoomRef{Room: name})
	return err
}
