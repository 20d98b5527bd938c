package web

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
)

// crowd is the number of participants above which a socket gets only its own
// quality: everybody's for everybody grows with the square.
const crowd = 32

// hub knows the sockets of each room and hands events to them.
type hub struct {
	mu     sync.Mutex
	rooms  map[string]map[*socket]struct{}
	all    map[*socket]struct{}
	closed bool
	empty  chan struct{} // closed when the last socket ends, where somebody waits
}

func newHub() *hub {
	return &hub{rooms: map[string]map[*socket]struct{}{}, all: map[*socket]struct{}{}}
}

// add counts a socket in; false when the server is closing.
func (h *hub) add(k *socket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.all[k] = struct{}{}
	return true
}

// remove forgets a socket.
func (h *hub) remove(k *socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all, k)
	h.exitLocked(k)
	if len(h.all) == 0 && h.empty != nil {
		close(h.empty)
		h.empty = nil
	}
}

// enter lets a socket have the events of a room as this participant. An older
// socket of the same participant is told that it was replaced: a page has
// resumed elsewhere.
func (h *hub) enter(k *socket, v session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.exitLocked(k)
	set := h.rooms[v.room]
	if set == nil {
		set = map[*socket]struct{}{}
		h.rooms[v.room] = set
	}
	for old := range set {
		if old.seat().participant == v.participant {
			delete(set, old)
			old.bye(farewell{Reason: "replaced", Message: "this seat was resumed by another window"})
		}
	}
	set[k] = struct{}{}
	k.sit(v)
}

// exit ends a socket's events.
func (h *hub) exit(k *socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.exitLocked(k)
}

func (h *hub) exitLocked(k *socket) {
	room := k.seat().room
	if set := h.rooms[room]; set != nil {
		delete(set, k)
		if len(set) == 0 {
			delete(h.rooms, room)
		}
	}
}

// has reports whether a socket of that participant is here.
func (h *hub) has(v session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range h.rooms[v.room] {
		if k.seat().participant == v.participant {
			return true
		}
	}
	return false
}

// size returns how many sockets a room has.
func (h *hub) size(room string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.rooms[room])
}

// count returns how many sockets there are.
func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all)
}

// publish queues an event for every socket of its room and never waits.
func (h *hub) publish(e *Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range h.rooms[e.Room] {
		switch {
		case e.Type == "quality" && len(e.Qualities) > crowd:
			id := k.seat().participant
			if q, ok := e.Qualities[id]; ok {
				k.event(ownQuality(e.Room, id, q))
			}
		case e.Type == "left" && e.Participant == k.seat().participant:
			k.event(e.Raw)
			k.bye(leftFarewell(e.Reason))
		case e.Type == "closed":
			k.event(e.Raw)
			k.bye(closedFarewell(e.Reason))
		default:
			k.event(e.Raw)
		}
	}
}

// resync tells every page to read its room again: events may have been lost.
func (h *hub) resync() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, set := range h.rooms {
		for k := range set {
			k.send(message{Type: "resync"})
		}
	}
}

// close refuses new sockets and says farewell to all.
func (h *hub) close(f farewell) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for k := range h.all {
		k.bye(f)
	}
}

// ownQuality is a quality event with one entry. Room and id have passed
// validRoom and validID and need no quoting.
func ownQuality(room, id string, q json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	b.Grow(len(q) + len(room) + len(id) + 80)
	b.WriteString(`{"seq":0,"type":"quality","room":"`)
	b.WriteString(room)
	b.WriteString(`","qualities":{"`)
	b.WriteString(id)
	b.WriteString(`":`)
	b.Write(q)
	b.WriteString(`}}`)
	return b.Bytes()
}

// farewell is the last message before a socket is closed. Retry: the page may
// come back at once, by resuming or, when that is refused, by joining again.
type farewell struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Retry   bool   `json:"retry"`
}

func leftFarewell(reason string) farewell {
	switch reason {
	case "kicked":
		return farewell{reason, "a moderator has put you out of the room", false}
	case "lost":
		return farewell{reason, "your audio was lost for too long; joining again", true}
	case "shutdown":
		return farewell{reason, "the node is being restarted; joining again", true}
	case "removed":
		return farewell{reason, "the room was removed", false}
	}
	return farewell{"left", "you have left the room", false}
}

func closedFarewell(reason string) farewell {
	if reason == "shutdown" {
		return leftFarewell("shutdown")
	}
	return leftFarewell("removed")
}

// wait returns when every socket has ended, or with ctx.
func (h *hub) wait(ctx context.Context) {
	h.mu.Lock()
	if len(h.all) == 0 {
		h.mu.Unlock()
		return
	}
	empty := make(chan struct{})
	h.empty = empty
	h.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}
