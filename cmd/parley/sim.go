package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/bus/host"
	"github.com/parley-jami/parley/internal/simroom"
	sdk "github.com/parley-jami/parley/sdk/go"
)

func init() { extraCommands = append(extraCommands, newSim) }

func newSim(a *app) *cobra.Command {
	var room, script string
	speakers, seconds := 0, 0
	cmd := &cobra.Command{
		Use: "sim", Short: "Play a room with scripted speakers, to test a bot without people",
		Long: `Play a room with scripted speakers, to test a bot without people.

Without a script, --speakers people take turns of 4 s, each with a tone of its own.
A script says who does what, when:

  people:
    - name: Ann
      speak:
        - {from: 2s, to: 6s, tone: 440}              # Hz
        - {from: 8s, to: 20s, wav: ann.wav}          # again and again
      chat: [{at: 3s, text: "hello"}]
      hand: [{at: 5s, raised: true}, {at: 9s, raised: false}]
    - name: Bob
      join: 1s
      leave: 30s
      speak: [{from: 4s, to: 9s, noise: true, level: -5}]   # dBFS, -20 by default

What happens is printed as it happens; all leave at the end and on an interrupt.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := word("room", room); err != nil {
				return err
			}
			s, d, err := simScript(script, speakers, seconds)
			if err != nil {
				return err
			}
			return a.sim(cmd, room, s, d)
		},
	}
	f := cmd.Flags()
	f.StringVar(&room, "room", "main", "room to play in")
	f.StringVar(&script, "script", "", "YAML file that says who does what")
	f.IntVar(&speakers, "speakers", 3, "without a script: how many take turns")
	f.IntVar(&seconds, "seconds", 0, "how long to play (default: until the script's last step, 60 without one)")
	cmd.MarkFlagsMutuallyExclusive("script", "speakers")
	return cmd
}

// simScript returns what to play and for how long.
func simScript(path string, speakers, seconds int) (*simroom.Script, time.Duration, error) {
	if seconds < 0 || seconds > 24*3600 {
		return nil, 0, usagef("--seconds is 1 to 86400")
	}
	d := time.Duration(seconds) * time.Second
	if path == "" {
		if d == 0 {
			d = time.Minute
		}
		s, err := simroom.Turns(speakers, d)
		if err != nil {
			return nil, 0, usagef("--speakers: %w", err)
		}
		return s, d, nil
	}
	s, err := simroom.Load(path)
	if err != nil {
		return nil, 0, usagef("%w", err)
	}
	if d == 0 {
		d = s.End() + time.Second
	}
	return s, d, nil
}

func (a *app) sim(cmd *cobra.Command, room string, s *simroom.Script, d time.Duration) error {
	node, err := a.open(cmd) // tells what is wrong when there is no node
	if err != nil {
		return err
	}
	defer node.Close()
	t, err := a.find(cmd)
	if err != nil {
		return err
	}
	// One run's ids are its own: two may play in one room.
	run := nuid.Next()[16:]
	var mu sync.Mutex
	return simroom.Play(cmd.Context(), s, d, func(i int) (simroom.Person, error) {
		r, err := sdk.Connect(sdk.Options{Creds: host.CredsFile(t.cfg, "cli"), URL: node.NATS().ConnectedUrl(), Account: node.acc.ID, Room: room,
			Name: fmt.Sprintf("sim-%s-%d", run, i+1), NATS: []nats.Option{nats.CustomInboxPrefix(bus.InboxPrefix("cli"))}})
		if err != nil {
			return nil, err
		}
		return &simPerson{room: r}, nil
	}, func(e simroom.Event) {
		mu.Lock()
		defer mu.Unlock()
		if a.json {
			if err := json.NewEncoder(a.out).Encode(e); err != nil {
				fmt.Fprintln(a.err, "parley:", err)
			}
			return
		}
		fmt.Fprintf(a.out, "%7.1f s  %s: %s %s\n", e.At.Seconds(), e.Who, e.What, e.Text)
	})
}

// simPerson is a person who speaks over the bus, as a bot does.
type simPerson struct{ room *sdk.Room }

func (p *simPerson) Join(ctx context.Context, name string) error {
	_, err := p.room.Join(ctx, name)
	return err
}

// Say passes over a node that restarts its media: people go on talking too.
func (p *simPerson) Say(ctx context.Context, pcm []byte) error {
	_, _, err := p.room.Say(ctx, contract.FormatPCM48, pcm)
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (p *simPerson) Chat(ctx context.Context, text string) error {
	_, err := p.room.Chat(ctx, text)
	return err
}

func (p *simPerson) Hand(ctx context.Context, raised bool) error {
	_, err := sdk.Call(ctx, p.room, contract.RoomHand, contract.HandChange{Raised: raised})
	return err
}

func (p *simPerson) Leave(ctx context.Context) error {
	defer p.room.Close()
	_, err := sdk.Call(ctx, p.room, contract.RoomLeave, contract.Leave{})
	return err
}
