package files

import (
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// State is what a transfer is in: a stable word.
type State string

// The states. The last three are final.
const (
	Waiting   State = "waiting" // for its turn, or for a device of the peer
	Running   State = "running"
	Done      State = "done"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// Final reports whether nothing follows.
func (s State) Final() bool { return s == Done || s == Failed || s == Cancelled }

// progressEvery bounds how often it is told of one transfer, beside changes of its state.
const progressEvery = 500 * time.Millisecond

// Progress is how far a transfer is.
type Progress struct {
	Ref
	ID      string
	Out     bool    // a peer gets it; else we do
	Account jami.ID // of the node
	Peer    jami.ID // its account
	Device  string  // its long id; empty: none yet
	Name    string  // as people see it
	Size    int64   // bytes, as announced
	Bytes   int64   // of them that there are
	State   State
	Err     error  // why it failed
	Path    string // where it is, when it is done and ours
}
