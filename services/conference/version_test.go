// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"net/netip"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// A worker of another version of the contract gets nobody, though it is there and empty.
func TestWorkersOfAnotherVersionGetNobody(t *testing.T) {
	now := time.Now()
	w := newWorkers("m1", func() time.Time { return now })
	w.beat(&contract.WorkerBeat{Worker: "old", Contract: contract.Version + 1})
	w.beat(&contract.WorkerBeat{Worker: "full", Legs: 5, MaxLegs: 6, Contract: contract.Version})
	for _, want := range []string{"full", ""} {
		if got, err := w.choose(netip.Addr{}, nil); got != want || (err == nil) != (want != "") {
			t.Errorf("chose %q, %v; want %q", got, err, want)
		}
	}
	w.beat(&contract.WorkerBeat{Worker: "former", Legs: 1}) // it does not say: it speaks the first
	if got, err := w.choose(netip.Addr{}, nil); got != "former" || err != nil {
		t.Error(got, err)
	}
	now = now.Add(time.Hour)
	w.beat(&contract.WorkerBeat{Worker: "old", Contract: contract.Version + 1})
	if _, heir := w.dead(); heir != "" {
		t.Errorf("%s takes over", heir)
	}
}
