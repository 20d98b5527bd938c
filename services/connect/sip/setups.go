package sip

import (
	"fmt"
	"sync"

	"github.com/emiago/sipgo/sip"
)

// setups are the calls between their INVITE and its ACK.
type setups struct {
	mu      sync.Mutex
	invites map[string]string // inviteKey -> the branch it came on
	ids     map[string]bool   // participants who ask to enter
}

func newSetups() *setups {
	return &setups{invites: map[string]string{}, ids: map[string]bool{}}
}

// inviteKey names an INVITE whatever way it came (RFC 3261 §8.2.2.2).
func inviteKey(req *sip.Request) string {
	_, from := tags(req)
	return fmt.Sprintf("%s\x00%s\x00%d", callID(req), from, req.CSeq().SeqNo)
}

// begin notes an INVITE. It is false for one that is being worked on: the same
// again, or one that came on another way.
func (s *setups) begin(key, branch string) (ok, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, there := s.invites[key]; there {
		return false, old == branch
	}
	s.invites[key] = branch
	return true, false
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
