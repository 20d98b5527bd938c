package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
)

// news is what a command hears, and one line of a command that follows.
type news struct {
	Request  *contract.ContactRequest `json:"request,omitempty"`
	Contact  *contract.Contact        `json:"contact,omitempty"`
	Presence *contract.Presence       `json:"presence,omitempty"`
	Message  *contract.Message        `json:"message,omitempty"`
	State    *contract.MessageState   `json:"state,omitempty"`

	Addresses *contract.PeerAddresses `json:"addresses,omitempty"`
	File      *contract.FileTransfer  `json:"file,omitempty"`
}

func (n news) text() string {
	switch p := n.Presence; {
	case p != nil && p.Online:
		return "online   " + p.ID
	case p != nil:
		return "offline  " + p.ID
	case n.File != nil:
		return fileText(n.File)
	case n.State != nil:
		return stateText(n.State)
	case n.Request != nil:
		return fmt.Sprintf("request  %s  %s", n.Request.ID, dash(printable(n.Request.Name)))
	case n.Message != nil:
		m := n.Message
		body := m.Body
		if m.File != nil {
			body = fileLink(m.From, m.File)
		}
		return fmt.Sprintf("from      %s  %s  %s", m.From, m.Type, printable(body))
	}
	state := "removed"
	switch c := n.Contact; {
	case c.Active && c.Confirmed:
		state = "confirmed"
	case c.Active:
		state = "added, not confirmed"
	case c.Banned:
		state = "blocked"
	}
	return fmt.Sprintf("contact  %s  %s", n.Contact.ID, state)
}

// contactNews tells of a contact; nil: readers are to read the list.
func contactNews(c *contract.ContactChanged) *news {
	if c.Contact.ID == "" {
		return nil
	}
	return &news{Contact: &c.Contact}
}

func (a *app) line(n news) error {
	text := []byte(n.text())
	if a.json {
		var err error
		if text, err = json.Marshal(n); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(a.out, "%s\n", text); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// newsAtOnce bounds what waits to be printed.
const newsAtOnce = 256

// followed is what a command that follows hears, until its context ends.
type followed struct {
	ctx  context.Context //nolint:containedctx // that of the command
	came chan news
	subs []*bus.Subscription
}

func newFollowed(ctx context.Context) *followed {
	return &followed{ctx: ctx, came: make(chan news, newsAtOnce)}
}

// hear has the lines of an event printed; line returns nil for one that has none.
func hear[E any](f *followed, s *session, ev contract.Event[E], line func(*E) *news) error {
	sub, err := bus.Subscribe(s.Conn, ev, func(_ context.Context, _ []string, e *E) {
		n := line(e)
		if n == nil {
			return
		}
		select {
		case f.came <- *n:
		case <-f.ctx.Done():
		}
	})
	if err == nil {
		f.subs = append(f.subs, sub)
	}
	return err
}

func (f *followed) stop() {
	for _, s := range f.subs {
		s.Stop()
	}
}

// print prints what comes.
func (f *followed) print(a *app) error {
	for {
		select {
		case <-f.ctx.Done():
			return nil
		case n := <-f.came:
			if err := a.line(n); err != nil {
				return err
			}
		}
	}
}
