//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// From `parley up` on an existing account to a room that can be joined: goal 1.5 s.
func TestStartOnAnExistingAccount(t *testing.T) {
	n := startNode(t)
	var took []time.Duration
	for range 5 {
		n.stop()
		n.start()
		took = append(took, n.Joinable)
	}
	slices.Sort(took)
	fmt.Printf("start: joinable after %d ms (median of %d; %d to %d)\n", took[len(took)/2].Milliseconds(), len(took), took[0].Milliseconds(), took[len(took)-1].Milliseconds())
	if took[len(took)/2] > 1500*time.Millisecond {
		t.Errorf("joinable after %v", took[len(took)/2])
	}
}

// On a first start the keys are made: goal 2 s beyond them.
func TestFirstStart(t *testing.T) {
	n := newNode(t, t.TempDir())
	n.start()
	t.Cleanup(n.stop)
	keys := keySeconds(n.out.String())
	fmt.Printf("start: first start joinable after %.2f s, of which the keys took %.2f s\n", n.Joinable.Seconds(), keys)
	if keys == 0 {
		t.Fatal("the log does not say how long the keys took")
	}
	if beyond := n.Joinable.Seconds() - keys; beyond > 2 {
		t.Errorf("%.2f s beyond the keys", beyond)
	}
}

// keySeconds finds how long the keys took in the node's log.
func keySeconds(log string) float64 {
	for _, line := range strings.Split(log, "\n") {
		var l struct {
			Msg  string  `json:"msg"`
			Took float64 `json:"took"`
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "keys made" {
			return l.Took
		}
	}
	return 0
}
