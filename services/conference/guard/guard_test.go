// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"testing"
	"time"
)

var t0 = time.Unix(1_000_000, 0)

func TestDelaysGrow(t *testing.T) {
	g := New()
	now := t0
	for i, want := range []time.Duration{0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		g.Wrong(now, "192.0.2.1")
		if got := g.Wait(now, "192.0.2.1"); got != want*time.Second {
			t.Errorf("after %d wrong tries: %s, want %s", i+1, got, want*time.Second)
		}
		now = now.Add(want * time.Second)
		if got := g.Wait(now, "192.0.2.1"); got != 0 {
			t.Errorf("after the delay: %s", got)
		}
	}
	g.Wrong(now, "192.0.2.1")
	if g.Wait(now, "192.0.2.2") != 0 {
		t.Error("another source waits too")
	}
	g.Right("192.0.2.1")
	if g.Wait(now, "192.0.2.1") != 0 {
		t.Error("waits after the right PIN")
	}
}

func TestSources(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8::1", "2001:db8::2", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"fe80::1%eth0", "fe80::2", true},
		{"nonsense", "nonsense", true},
	} {
		if got := source(c.a) == source(c.b); got != c.same {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}

func TestBoundAndForgetting(t *testing.T) {
	g := New()
	for range 20 {
		g.Wrong(t0, "192.0.2.1")
	}
	for i := range Max + 1000 {
		g.Wrong(t0, fmt.Sprint("s", i))
	}
	if g.Len() > Max {
		t.Errorf("%d sources", g.Len())
	}
	if g.Wait(t0.Add(forget+1), "192.0.2.1") != 0 {
		t.Error("not forgotten")
	}
}
