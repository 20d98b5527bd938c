package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// The node listens this long for a command line that does not renew it, which does so
// three times as often.
const listenTTL = time.Minute

// dhtEvent is one line of `dht listen --json`.
type dhtEvent struct {
	Event string    `json:"event"` // "there": from before; "new"; "gone": expired or cancelled
	Time  time.Time `json:"time"`
	Value *dhtValue `json:"value"`
}

func newDHTListen(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "listen KEY", Short: "Print the values of a key and then what changes, until Ctrl-C",
		Long: `Print the values of a key and then what changes: values that come ("+") and that expire
or are cancelled ("-"), until it is interrupted. With --json each is a line of JSON.

` + dhtKeyHelp,
		Example: `  parley dht listen greeting
  parley dht listen greeting --json | jq -r 'select(.event == "new").value.text'`,
		Args: takes("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inNode(cmd, func(ctx context.Context, s *session) error { return a.listenDHT(ctx, s, args[0]) })
		},
	}
	accountFlag(cmd, a)
	return cmd
}

func (a *app) listenDHT(ctx context.Context, s *session, key string) error {
	id, err := jami.ParseID(key)
	if err != nil {
		id = jami.HashKey(key)
	}
	came := make(chan contract.DHTChange, 256)
	// Before it listens: what comes between the two is not missed.
	sub, err := bus.Subscribe(s.Conn, contract.DHTChanged, func(_ context.Context, _ []string, c *contract.DHTChange) {
		select {
		case came <- *c:
		case <-ctx.Done():
		}
	}, id.String())
	if err != nil {
		return err
	}
	defer sub.Stop()
	q := &contract.DHTListen{Key: key, TTLMs: listenTTL.Milliseconds()}
	now, err := call(ctx, s, contract.DHTListenCmd, q)
	if err != nil {
		return err
	}
	r := &valueReader{s: s}
	seen := map[string]bool{} // values as they are: a change may be told by both
	tell := func(event string, v contract.DHTValue) error {
		k := fmt.Sprint(v.Writer, v.ID, string(v.Data))
		if event == "gone" {
			delete(seen, k)
		} else if seen[k] {
			return nil
		} else {
			seen[k] = true
		}
		return a.tellEvent(dhtEvent{event, time.Now().UTC(), r.read(ctx, v)})
	}
	for _, v := range now.Values {
		if err := tell("there", v); err != nil {
			return err
		}
	}
	renew := time.NewTicker(listenTTL / 3)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-came:
			event := "new"
			if c.Expired {
				event = "gone"
			}
			if err := tell(event, c.Value); err != nil {
				return err
			}
		case <-renew.C:
			again := &session{Conn: s.Conn, acc: s.acc} // the key of before would repeat its answer
			l, err := call(ctx, again, contract.DHTListenCmd, q)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				fmt.Fprintf(a.err, "parley: not renewed, trying again: %v\n", err)
			default:
				for _, v := range l.Values { // that came while dht was away
					if err := tell("new", v); err != nil {
						return err
					}
				}
			}
		}
	}
}

func (a *app) tellEvent(e dhtEvent) error {
	var text []byte
	if a.json {
		var err error
		if text, err = json.Marshal(e); err != nil {
			return err
		}
		text = append(text, '\n')
	} else {
		sign := map[string]string{"there": "=", "new": "+", "gone": "-"}[e.Event]
		text = fmt.Appendf(nil, "%s %s %s\n", e.Time.Local().Format(time.TimeOnly), sign, strings.Join(e.Value.line(), "  "))
	}
	if _, err := a.out.Write(text); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}
