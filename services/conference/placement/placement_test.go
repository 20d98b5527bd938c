// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	now := time.Unix(1000, 0)
	w := func(name string, legs int, cpu float64, ago time.Duration) Worker {
		return Worker{Name: name, Legs: legs, CPU: cpu, Seen: now.Add(-ago)}
	}
	for name, c := range map[string]struct {
		workers []Worker
		current string
		want    string
	}{
		"none":                    {nil, "", ""},
		"all silent":              {[]Worker{w("m1", 0, 0, time.Minute)}, "m1", ""},
		"fewest legs":             {[]Worker{w("m1", 5, 0, 0), w("m2", 3, 1, 0)}, "", "m2"},
		"least CPU":               {[]Worker{w("m1", 3, .5, 0), w("m2", 3, .2, 0)}, "", "m2"},
		"by name":                 {[]Worker{w("m2", 0, 0, 0), w("m1", 0, 0, 0)}, "", "m1"},
		"a room stays":            {[]Worker{w("m1", 900, 1, 0), w("m2", 0, 0, 0)}, "m1", "m1"},
		"its worker is silent":    {[]Worker{w("m1", 0, 0, Alive+1), w("m2", 9, 0, 0)}, "m1", "m2"},
		"its worker is just late": {[]Worker{w("m1", 9, 0, Alive), w("m2", 0, 0, 0)}, "m1", "m1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Choose(now, c.workers, c.current); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
