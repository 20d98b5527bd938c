// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"slices"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/placement"
)

// A worker that could not be heard yet is not gone because another one was heard first.
func TestSilentWorkersAreGone(t *testing.T) {
	now := time.Now()
	w := newWorkers("home", func() time.Time { return now })
	beat := func(names ...string) {
		for _, name := range names {
			w.beat(&contract.WorkerBeat{Worker: name, Contract: contract.Version})
		}
	}
	gone := func(when string, want ...string) {
		t.Helper()
		got, _ := w.died()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v are gone, want %v", when, got, want)
		}
	}
	after := func(d time.Duration) { now = now.Add(d) }

	w.begin("home")
	w.expect([]string{"home", "m2", "m3"})
	beat("m2")
	gone("the first beat")
	after(placement.Alive / 2)
	beat("m2", "home")
	gone("soon")
	after(placement.Alive/2 + 1)
	beat("m2")
	gone("a worker of a room that never beat", "m3")
	gone("told once")

	after(time.Hour) // the bus was lost
	gone("nobody is heard")
	w.heardAgain()
	beat("m2")
	gone("the bus is back")
	after(placement.Alive + 1)
	beat("m2")
	gone("and one is silent", "home")

	beat("home", "m3")
	w.left("home")
	gone("one ends in order", "home")
}
