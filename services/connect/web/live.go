package web

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// livePeriod is how often the operator's page gets the node's state; one round
// of questions serves every page that looks.
const livePeriod = time.Second

// watchersMax bounds the operator's pages that look at once.
const watchersMax = 32

// live asks the node for its state while somebody looks, and hands it out as
// server-sent events.
type live struct {
	s    *Server
	wake chan struct{}

	mu       sync.Mutex
	watchers map[chan []byte]struct{} // capacity 1: a slow page misses states, not the newest
	ended    bool
}

func newLive(s *Server) *live {
	return &live{s: s, wake: make(chan struct{}, 1), watchers: map[chan []byte]struct{}{}}
}

// state is the answer of /api/v1/status: what `parley status --json` prints,
// and the bots. A part whose service does not answer is missing.
type state struct {
	Account  json.RawMessage `json:"account,omitempty"`
	Accounts json.RawMessage `json:"accounts,omitempty"` // the main one first
	// Changes are numbers by account: another one says that its devices, contacts or
	// requests may have changed.
	Changes   map[string]int64 `json:"changes,omitempty"`
	Endpoints any              `json:"endpoints,omitempty"`
	Processes json.RawMessage  `json:"processes,omitempty"`
	Rooms     json.RawMessage  `json:"rooms,omitempty"`
	Bots      json.RawMessage  `json:"bots,omitempty"`
	DHT       json.RawMessage  `json:"dht,omitempty"`
	Calls     any              `json:"calls,omitempty"` // that the node makes: the last step of each
	Sockets   int              `json:"sockets"`
	Org       *orgState        `json:"organisation,omitempty"` // nil: no account server on this machine
	Missing   []string         `json:"missing,omitempty"`      // commands that were not answered
}

// snapshot asks everybody at once.
func (l *live) snapshot(ctx context.Context) *state {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	st := &state{Endpoints: l.s.cfg.Endpoints(), Sockets: l.s.hub.count()}
	if l.s.cfg.Calls != nil {
		st.Calls = l.s.cfg.Calls()
	}
	parts := []struct {
		command, field string
		into           *json.RawMessage
	}{
		{"identity.state", "account", &st.Account},
		{"node.processes", "processes", &st.Processes},
		{"room.list", "rooms", &st.Rooms},
		{"bot.list", "bots", &st.Bots},
		{"dht.stats", "", &st.DHT}, // the whole answer
	}
	failed := make([]bool, len(parts))
	var wg sync.WaitGroup
	for i, p := range parts {
		wg.Go(func() {
			data, err := l.s.node.Do(ctx, Command{Name: p.command, Body: struct{}{}})
			if p.field == "" && err == nil {
				*p.into = data
				return
			}
			var whole map[string]json.RawMessage
			if err != nil || json.Unmarshal(data, &whole) != nil {
				failed[i] = true
				return
			}
			*p.into = whole[p.field]
			if p.command == "identity.state" {
				st.Accounts = whole["accounts"]
			}
		})
	}
	wg.Go(func() { st.Org = l.s.orgSummary(ctx) })
	wg.Wait()
	var accounts []struct{ ID string }
	if len(st.Accounts) > 0 && json.Unmarshal(st.Accounts, &accounts) == nil {
		ids := make([]string, len(accounts))
		for i, a := range accounts {
			ids[i] = a.ID
		}
		st.Changes = l.s.changes.view(ids)
	}
	for i, p := range parts {
		if failed[i] {
			st.Missing = append(st.Missing, p.command)
		}
	}
	return st
}

// run asks while there are watchers, until ctx ends.
func (l *live) run(ctx context.Context) {
	tick := time.NewTicker(livePeriod)
	defer tick.Stop()
	for {
		if l.count() == 0 {
			select {
			case <-ctx.Done():
				l.end()
				return
			case <-l.wake:
			}
		}
		b, err := json.Marshal(l.snapshot(ctx))
		if err == nil {
			l.hand(b)
		}
		select {
		case <-ctx.Done():
			l.end()
			return
		case <-tick.C:
		case <-l.wake: // a new page does not wait for the tick
		}
	}
}

func (l *live) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.watchers)
}

func (l *live) hand(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.watchers {
		select {
		case <-w: // the state that was not taken yet is old
		default:
		}
		w <- b
	}
}

func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for w := range l.watchers {
		close(w)
	}
	clear(l.watchers)
}

func (l *live) watch() (chan []byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.watchers) >= watchersMax {
		return nil, false
	}
	w := make(chan []byte, 1)
	l.watchers[w] = struct{}{}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return w, true
}

func (l *live) unwatch(w chan []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.watchers, w)
}

// serve streams states to one page (HTML Living Standard §9.2).
func (l *live) serve(w http.ResponseWriter, r *http.Request) {
	ch, ok := l.watch()
	if !ok {
		fail(w, errBusy)
		return
	}
	defer l.unwatch(ch)
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	for {
		select {
		case <-r.Context().Done():
			return
		case b, ok := <-ch:
			if !ok {
				return
			}
			var out bytes.Buffer
			out.WriteString("data: ")
			out.Write(b)
			out.WriteString("\n\n")
			if rc.SetWriteDeadline(time.Now().Add(writeWithin)) != nil {
				return
			}
			if _, err := w.Write(out.Bytes()); err != nil {
				return
			}
			if rc.Flush() != nil {
				return
			}
		}
	}
}
