package main

import (
	"context"
	"fmt"
	"io"

	"github.com/parley-jami/parley/bus/contract"
)

// roomLinks asks how people reach a room. Without an answer the room is shown
// without its links.
func (a *app) roomLinks(ctx context.Context, s *session, r *contract.Room) contract.RoomLinks {
	eps, err := call(ctx, s, contract.ConnectStatus, &contract.None{})
	if err != nil {
		fmt.Fprintf(a.err, "parley: the room's links are not known: %v\n", err)
		return contract.RoomLinks{}
	}
	return eps.Links.Room(r.Name, r.ModeratorToken)
}

func showLinks(w io.Writer, l contract.RoomLinks) {
	for _, x := range []struct{ name, link string }{{"join", l.Join}, {"others", l.Others}, {"SIP", l.SIP}, {"moderator", l.Moderator}} {
		if x.link != "" {
			fmt.Fprintf(w, "%s\t%s\n", x.name, x.link)
		}
	}
}
