package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// status is what `status --json` prints. Scripts rely on it: fields may be added,
// never renamed, and lists are never null.
type status struct {
	Account   statusAccount      `json:"account"`
	Links     contract.Links     `json:"links"`
	Listeners map[string]string  `json:"listeners"`
	Processes []contract.Process `json:"processes"`
	Rooms     []statusRoom       `json:"rooms"`
	Joinable  bool               `json:"joinable"`
	Missing   []statusMissing    `json:"missing,omitempty"`
}

type statusAccount struct {
	ID         string `json:"id"`
	Alias      string `json:"alias"`
	Rendezvous bool   `json:"rendezvous"`
}

type statusRoom struct {
	Name         string              `json:"name"`
	Title        string              `json:"title,omitempty"`
	Locked       bool                `json:"locked"`
	Participants []statusParticipant `json:"participants"`
	Total        int                 `json:"total"` // of more than contract.RosterMax only some are listed
}

// statusParticipant is a participant without what only moderators need.
type statusParticipant struct {
	ID        string                   `json:"id"`
	Name      string                   `json:"name"`
	Kind      contract.ParticipantKind `json:"kind"`
	JamiID    string                   `json:"jami_id,omitempty"`
	Role      contract.Role            `json:"role"`
	Muted     bool                     `json:"muted"`
	Speaking  bool                     `json:"speaking"`
	Transport string                   `json:"transport"`
	Codec     string                   `json:"codec"`
	Connected bool                     `json:"connected"`
}

// statusMissing names a part that could not be asked, and why.
type statusMissing struct {
	What string `json:"what"` // "bus", "account", "links", "rooms", "processes"
	Why  string `json:"why"`
}

// statusWait bounds each question of status: what is away is shown as missing.
const statusWait = 1500 * time.Millisecond

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the node: account, links, processes, rooms",
		Long: `Show the node: account, links, ports, processes with their CPU seconds and memory,
rooms with their participants. What cannot be asked is named as missing, and the exit
code is then 3; the rest is shown all the same. Processes that no "parley up"
supervises, as in containers of their own, are not listed: ask what runs them.`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := a.find(cmd)
			if err != nil {
				return err
			}
			st := new(status)
			if t.local != nil {
				st.fromSupervisor(t.local)
			}
			conn, err := t.dial(cmd.Context(), a)
			switch {
			case err != nil && t.local == nil:
				return err // nothing answers at all
			case err != nil:
				st.miss("bus", err)
			default:
				defer conn.Close()
				st.fromBus(cmd.Context(), conn, t.local == nil)
			}
			st.fill()
			if err := a.print(st, st.show); err != nil {
				return err
			}
			if st.Missing != nil {
				for _, m := range st.Missing {
					fmt.Fprintf(a.err, "parley: missing: %s: %s\n", m.What, m.Why)
				}
				return &codedError{exitUnavailable, errors.New("the node does not answer in full")}
			}
			return nil
		},
	}
}

func (st *status) miss(what string, err error) {
	st.Missing = append(st.Missing, statusMissing{what, err.Error()})
}

// fromSupervisor takes what is known without the bus.
func (st *status) fromSupervisor(l *localStatus) {
	st.Account.ID, st.Account.Alias = l.Node.Account, l.Node.Alias
	st.Links = contract.Links{Join: l.Node.Links["join"], Others: l.Node.Links["others"], Operator: l.Node.Links["operator"], SIP: l.Node.Links["sip"], Jami: l.Node.Links["jami"]}
	st.Joinable = l.Joinable
	for _, p := range l.Processes {
		st.Processes = append(st.Processes, contract.Process(p))
	}
}

// fromBus asks the services. Processes are asked for only where no supervisor
// answered itself.
func (st *status) fromBus(ctx context.Context, conn *bus.Conn, processes bool) {
	if processes {
		p, err := ask(ctx, conn, contract.NodeStatus)
		switch {
		case err == nil:
			st.Processes = p.Processes
		case !errors.Is(err, contract.ErrUnavailable): // nobody serves it without a supervisor
			st.miss("processes", err)
		}
	}
	id, err := ask(ctx, conn, contract.IdentityGet)
	if err != nil {
		st.miss("account", err)
	} else if id.State != "ready" {
		st.miss("account", contract.ErrUnavailable.With("%s", id.Message))
	} else {
		st.Account = statusAccount{ID: id.Account.ID, Alias: id.Account.Alias, Rendezvous: id.Account.Rendezvous}
	}
	if st.Account.ID == "" {
		st.miss("rooms", contract.ErrUnavailable.With("the account is not known"))
		return
	}
	conn.SetAccount(st.Account.ID)
	if eps, err := ask(ctx, conn, contract.ConnectStatus); err != nil {
		st.miss("links", err)
	} else {
		st.Links, st.Listeners = eps.Links, eps.Listeners
	}
	rctx, cancel := context.WithTimeout(ctx, statusWait)
	rooms, err := bus.Rooms(rctx, conn)
	cancel()
	if err != nil {
		st.miss("rooms", err)
		return
	}
	for _, r := range rooms {
		sr := statusRoom{Name: r.Name, Title: r.Title, Locked: r.Locked, Participants: []statusParticipant{}, Total: max(r.Total, len(r.Participants))}
		for _, p := range r.Participants {
			sr.Participants = append(sr.Participants, statusParticipant{ID: p.ID, Name: p.Name, Kind: p.Kind, JamiID: p.JamiID, Role: p.Role,
				Muted: p.Muted, Speaking: p.Speaking, Transport: p.Transport, Codec: p.Codec, Connected: p.Connected})
		}
		st.Rooms = append(st.Rooms, sr)
	}
	st.Joinable = st.Joinable || processes && st.Links.Join != "" // as far as can be seen without a supervisor
}

func ask[A any](ctx context.Context, conn *bus.Conn, cmd contract.Command[contract.None, A]) (*A, error) {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	return bus.Call(ctx, conn, cmd, &contract.None{})
}

// fill makes empty lists of what is missing.
func (st *status) fill() {
	if st.Processes == nil {
		st.Processes = []contract.Process{}
	}
	if st.Rooms == nil {
		st.Rooms = []statusRoom{}
	}
	if st.Listeners == nil {
		st.Listeners = map[string]string{}
	}
}

func (st *status) show(w io.Writer) {
	fmt.Fprintf(w, "account\t%s  %s\n", dash(st.Account.ID), printable(st.Account.Alias))
	fmt.Fprintf(w, "join\t%s\n", dash(st.Links.Join))
	if st.Links.Others != "" {
		fmt.Fprintf(w, "others\t%s\n", st.Links.Others)
	}
	fmt.Fprintf(w, "operator\t%s\nSIP\t%s\n", dash(st.Links.Operator), dash(st.Links.SIP))
	if st.Links.Jami != "" {
		fmt.Fprintf(w, "Jami\t%s\n", st.Links.Jami)
	}
	names := make([]string, 0, len(st.Listeners))
	for name := range st.Listeners {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s\t%s\n", name, st.Listeners[name])
	}
	if len(st.Processes) == 0 {
		fmt.Fprintln(w, "\nprocesses\tnot listed: ask what runs them, it is not a `parley up`")
	} else {
		fmt.Fprintln(w, "\nPROCESS\tPID\tUP\tCPU s\tMEMORY\tRESTARTS\tREADY")
	}
	for _, p := range st.Processes {
		if p.PID == 0 {
			fmt.Fprintf(w, "%s\tdown\t-\t-\t-\t%d\tno\n", p.Name, p.Restarts)
			continue
		}
		up := (time.Duration(p.UpS) * time.Second).String()
		fmt.Fprintf(w, "%s\t%d\t%s\t%.2f\t%.1f MiB\t%d\t%s\n", p.Name, p.PID, up, p.CPUS, float64(p.RSSBytes)/(1<<20), p.Restarts, yes(p.Ready))
	}
	for _, r := range st.Rooms {
		fmt.Fprintf(w, "\nroom %s (%d)\n", r.Name, r.Total)
		var ps []contract.Participant
		for _, p := range r.Participants {
			ps = append(ps, contract.Participant{ID: p.ID, Name: p.Name, Kind: p.Kind, JamiID: p.JamiID, Role: p.Role, Muted: p.Muted, Speaking: p.Speaking, Transport: p.Transport, Codec: p.Codec, Connected: p.Connected})
		}
		showParticipants(w, ps, r.Total)
	}
}
