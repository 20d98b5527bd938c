package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/parley-jami/parley/bus/contract"
)

// getConnections returns how all participants of a room are connected.
func getConnections(ctx context.Context, s *session, room string) ([]contract.Connection, error) {
	all := []contract.Connection{}
	var q contract.ConnectionQuery
	for {
		page, err := call(ctx, s, contract.RoomConnections, &q, room, contract.Operator)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Connections...)
		if !page.More || len(page.Connections) == 0 {
			return all, nil
		}
		q.After = all[len(all)-1].Participant
	}
}

// showConnections prints a paragraph for each.
func showConnections(w io.Writer, all []contract.Connection) {
	for i := range all {
		c := &all[i]
		fmt.Fprintf(w, "\n%s\t%s\n", c.Participant, printable(c.Name))
		fmt.Fprintf(w, "  audio\t%s\n", words(c.Transport, c.Codec, map[bool]string{true: "connected", false: "nothing was received"}[c.Connected]))
		if p := c.Path; p != nil {
			if p.Protocol == "bus" {
				fmt.Fprintf(w, "  path\tthe bus\n")
			} else {
				fmt.Fprintf(w, "  path\t%s\n", path(p))
			}
			if p.RTCP != "" {
				fmt.Fprintf(w, "  reports to\t%s\n", p.RTCP)
			}
			if p.DTLS != "" {
				fmt.Fprintf(w, "  keys by\t%s\n", words(p.DTLS, p.Suite))
			}
			if p.Protocol != "bus" {
				q := &c.Quality
				fmt.Fprintf(w, "  cipher\t%s\n", cipher(c))
				fmt.Fprintf(w, "  loss\t%.1f %% here, %.1f %% there\n", q.LostPct, q.FarLostPct)
				fmt.Fprintf(w, "  jitter\t%.0f ms\n", q.JitterMs)
				fmt.Fprintf(w, "  round trip\t%s\n", known(q.RTTMs))
			}
		}
		if s := c.Signalled; s != nil {
			line := words(s.Over, cmp.Or(words(s.TLS, s.Suite), "without TLS"))
			if s.Local != "" {
				line = words(line, s.Local)
			}
			fmt.Fprintf(w, "  signalling\t%s ← %s\n", line, s.Remote)
		}
	}
}

// cipher says what protects the audio. Only plain RTP is known to be in clear before the connection
// stands.
func cipher(c *contract.Connection) string {
	switch {
	case c.Quality.Cipher != "":
		return c.Quality.Cipher
	case c.Connected || c.Transport == string(contract.TransportRTP):
		return "none: in clear"
	}
	return "not agreed yet"
}

// path is a candidate pair as it is read: ours, theirs.
func path(p *contract.LegPath) string {
	if p.Remote == "" {
		return words(p.Protocol, p.Local, typed(p.LocalType), "to nobody yet")
	}
	out := words(p.Protocol, p.Local, typed(p.LocalType)) + " → " + words(p.Remote, typed(p.RemoteType))
	if p.RemoteType == "relay" {
		out += ", by the far end's relay"
	}
	return out
}

func typed(t string) string {
	if t == "" {
		return ""
	}
	return "(" + t + ")"
}

func known(ms float64) string {
	if ms == 0 {
		return "not known"
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// words joins what is not empty.
func words(s ...string) string { return strings.Join(strings.Fields(strings.Join(s, " ")), " ") }
