package sip

import (
	"fmt"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// setups are the calls between their INVITE and its ACK.
type setups struct {
	mu      sync.Mutex
	invites map[string]bool // see inviteKey
	ids     map[string]bool // participants who ask to enter
}

func newSetups() *setups {
	return &setups{invites: map[string]bool{}, ids: map[string]bool{}}
}

// inviteKey names an INVITE whatever way it came (RFC 3261 §8.2.2.2).
func inviteKey(req *sip.Request) string {
	_, from := tags(req)
	return fmt.Sprintf("%s\x00%s\x00%d", callID(req), from, req.CSeq().SeqNo)
}

// begin is false for an INVITE that is being worked on: it came on two ways.
func (s *setups) begin(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.invites[key] {
		return false
	}
	s.invites[key] = true
	return true
}

func (s *setups) end(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.invites, key)
}

func (s *setups) add(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids[id] = true
}

func (s *setups) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}

func (s *setups) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[id]
}
