package main

import (
	"context"
	"time"

	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"
)

const dhtKeyHelp = `KEY is 40 hex digits, such as a Jami Id; any other text is hashed with SHA-1, as
OpenDHT's proxy does.`

// dhtTime bounds a command that searches in the DHT; the node gives it 4 s.
const dhtTime = 10 * time.Second

func newDHT(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "dht", Short: "Put, get and watch values in the DHT, and look at its network",
		Long: `Put, get and watch values in the distributed hash table that the node takes part in
(dht.overlay), and look at its network.

` + dhtKeyHelp,
		Example: `  parley dht put greeting "good morning"
  parley dht get greeting
  parley dht listen greeting
  parley dht stats
  parley dht ping bootstrap.jami.net`,
	}
	group(cmd)
	cmd.AddCommand(newDHTPut(a), newDHTGet(a), newDHTListen(a), newDHTCancel(a), newDHTPing(a), newDHTStats(a), newDHTScan(a))
	return cmd
}

// inDHT does fn with a connection to the node's bus; the node needs no account for it.
func (a *app) inDHT(cmd *cobra.Command, fn func(ctx context.Context, s *session) error) error {
	t, err := a.find(cmd)
	if err != nil {
		return err
	}
	conn, err := t.dial(cmd.Context(), a)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(cmd.Context(), &session{Conn: conn, key: nuid.Next()})
}

func accountFlag(cmd *cobra.Command, a *app) {
	cmd.Flags().StringVar(&a.account, "account", "", "id or name of the account that is meant (default: the main one)")
}
