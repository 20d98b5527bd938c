package stocktest

import (
	"testing"
	"time"
)

// A look for what does not come ends in its time, whenever the timer fires.
func TestLookEnds(t *testing.T) {
	o, done := newOutput(), make(chan struct{})
	go func() {
		defer close(done)
		for range 20_000 {
			if m := o.Look(time.Microsecond, "never said"); m != nil {
				t.Errorf("found %q", m)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}
}
