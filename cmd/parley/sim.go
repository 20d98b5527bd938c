package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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

What happens is printed as it happens: of the script, and, marked, how others in the
room join, leave, begin and stop to speak, and chat. All leave at the end and on an
interrupt.`,
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
	completeFlag(cmd, "room", completeRoomFlag(a))
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
	as := func(name string) (*sdk.Room, error) {
		return sdk.Connect(sdk.Options{Creds: host.CredsFile(t.cfg, "cli"), URL: node.NATS().ConnectedUrl(), Account: node.acc.ID, Room: room,
			Name: name, NATS: []nats.Option{nats.CustomInboxPrefix(bus.InboxPrefix("cli"))}})
	}
	eyes, err := as(contract.Operator)
	if err != nil {
		return err
	}
	defer eyes.Close()
	now, err := call(cmd.Context(), node, contract.RoomGet, &contract.None{}, room, contract.Operator)
	if err != nil {
		return err
	}
	// One run's ids are its own: two may play in one room.
	ids := "sim-" + nuid.Next()[16:] + "-"
	began := time.Now()
	out := &simOutput{a: a}
	o := &others{own: ids, names: map[string]string{}, tell: func(e simroom.Event) {
		e.At = time.Since(began)
		out.tell(e)
	}}
	for _, p := range now.Room.Participants {
		o.names[p.ID] = p.Name
	}
	ctx, stop := context.WithCancel(cmd.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := eyes.Events(ctx, now.Seq+1, o.see); err != nil && ctx.Err() == nil {
			fmt.Fprintln(a.err, "parley: what others do is not shown any more:", err)
		}
	})
	defer wg.Wait()
	defer stop()
	return simroom.Play(ctx, s, d, func(i int) (simroom.Person, error) {
		r, err := as(ids + fmt.Sprint(i+1))
		if err != nil {
			return nil, err
		}
		return &simPerson{room: r}, nil
	}, out.tell)
}

// simOutput prints from several goroutines.
type simOutput struct {
	mu sync.Mutex
	a  *app
}

func (o *simOutput) tell(e simroom.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.a.json {
		if err := json.NewEncoder(o.a.out).Encode(e); err != nil {
			fmt.Fprintln(o.a.err, "parley:", err)
		}
		return
	}
	mark := ""
	if e.Other {
		mark = "  [others] "
	}
	line := fmt.Sprintf("%7.1f s  %s%s: %s %s", e.At.Seconds(), mark, printable(e.Who), e.What, printable(e.Text))
	fmt.Fprintln(o.a.out, strings.TrimRight(line, " "))
}

// others tells what those do who are not of the script, in its words.
type others struct {
	own   string            // what ids of the script begin with
	names map[string]string // by id
	tell  func(simroom.Event)
}

func (o *others) see(e contract.RoomEvent) {
	what, id, text := "", "", ""
	if e.Participant != nil {
		id = e.Participant.ID
		o.names[id] = e.Participant.Name
	}
	switch e.Type {
	case contract.EventJoined:
		what = "join"
	case contract.EventLeft:
		what, text = "leave", e.Reason
	case contract.EventVoice:
		what = "pause"
		if e.Participant != nil && e.Participant.Speaking {
			what = "speak"
		}
	case contract.EventChat:
		if e.Chat == nil {
			return
		}
		what, id, text = "chat", e.Chat.From, e.Chat.Body
		o.names[id] = cmp.Or(e.Chat.Name, o.names[id])
	default:
		return
	}
	if !strings.HasPrefix(id, o.own) {
		o.tell(simroom.Event{Who: cmp.Or(o.names[id], id), What: what, Text: text, Other: true, ID: id})
	}
}

// simPerson is a person who speaks over the bus, as a bot does.
type simPerson struct {
	room *sdk.Room
	in   bool // has joined
}

// simJoinWait is how long a join is repeated that the node refuses for now.
const simJoinWait = 10 * time.Second

// Join returns what the node refused with last, also where the play's end cut the wait short.
func (p *simPerson) Join(ctx context.Context, name string) error {
	tries, cancel := context.WithTimeout(ctx, simJoinWait)
	defer cancel()
	_, err := p.room.Join(tries, name)
	p.in = err == nil
	if refusal, ok := errors.AsType[*contract.Error](err); ok && !errors.Is(ctx.Err(), context.Canceled) {
		return refusal
	}
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
	if !p.in && errors.Is(err, contract.ErrNotFound) {
		return nil // the join that nobody waited for was not done
	}
	return err
}
