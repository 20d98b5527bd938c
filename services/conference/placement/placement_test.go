// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"net/netip"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	now := time.Unix(1000, 0)
	w := func(name string, legs int, cpu float64, ago time.Duration) Worker {
		return Worker{Name: name, Legs: legs, CPU: cpu, Seen: now.Add(-ago)}
	}
	most := func(n int, w Worker) Worker {
		w.MaxLegs = n
		return w
	}
	late := func(w Worker) Worker { w.Late = true; return w }
	shy := func(w Worker) Worker { w.Shy = true; return w }
	for name, c := range map[string]struct {
		workers []Worker
		at      []string
		want    string
	}{
		"none":                     {nil, nil, ""},
		"all silent":               {[]Worker{w("m1", 0, 0, time.Minute)}, []string{"m1"}, ""},
		"fewest legs":              {[]Worker{w("m1", 5, 0, 0), w("m2", 3, .5, 0)}, nil, "m2"},
		"least CPU":                {[]Worker{w("m1", 3, .5, 0), w("m2", 3, .2, 0)}, nil, "m2"},
		"by name":                  {[]Worker{w("m2", 0, 0, 0), w("m1", 0, 0, 0)}, nil, "m1"},
		"a room stays":             {[]Worker{w("m1", 900, .5, 0), w("m2", 0, 0, 0)}, []string{"m1"}, "m1"},
		"its worker is silent":     {[]Worker{w("m1", 0, 0, Alive+1), w("m2", 9, 0, 0)}, []string{"m1"}, "m2"},
		"its worker is just late":  {[]Worker{w("m1", 9, 0, Alive), w("m2", 0, 0, 0)}, []string{"m1"}, "m1"},
		"its worker is busy":       {[]Worker{w("m1", 9, .8, 0), w("m2", 5, 0, 0), w("m3", 3, 0, 0)}, []string{"m1"}, "m3"},
		"its worker is full":       {[]Worker{most(9, w("m1", 9, 0, 0)), w("m2", 12, 0, 0)}, []string{"m1"}, "m2"},
		"its second worker":        {[]Worker{w("m1", 9, .8, 0), w("m2", 50, 0, 0), w("m3", 3, 0, 0)}, []string{"m1", "m2"}, "m2"},
		"there is place again":     {[]Worker{w("m1", 9, .2, 0), w("m2", 5, 0, 0)}, []string{"m1", "m2"}, "m1"},
		"all are busy":             {[]Worker{w("m1", 9, .8, 0), w("m2", 5, .9, 0)}, []string{"m1"}, "m2"},
		"all are full":             {[]Worker{most(9, w("m1", 9, 0, 0)), most(5, w("m2", 5, 0, 0))}, []string{"m1"}, ""},
		"late":                     {[]Worker{late(w("m1", 9, .2, 0)), w("m2", 50, .9, 0)}, []string{"m1"}, "m2"},
		"all are late":             {[]Worker{late(w("m1", 9, .2, 0)), late(w("m2", 5, 0, 0))}, []string{"m1"}, ""},
		"it has just refused":      {[]Worker{shy(w("m1", 0, 0, 0)), w("m2", 50, 0, 0)}, []string{"m1"}, "m2"},
		"the busy before the shy":  {[]Worker{shy(w("m1", 0, 0, 0)), w("m2", 50, .9, 0)}, nil, "m2"},
		"only the shy is left":     {[]Worker{shy(w("m1", 9, .2, 0)), late(w("m2", 5, 0, 0))}, nil, "m1"},
		"busy, and the other full": {[]Worker{w("m1", 9, .8, 0), most(5, w("m2", 5, 0, 0))}, []string{"m1"}, "m1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Choose(now, c.workers, netip.Addr{}, c.at...); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestChooseNear(t *testing.T) {
	now := time.Unix(1000, 0)
	w := func(name string, cpu float64, near ...string) Worker {
		out := Worker{Name: name, CPU: cpu, Seen: now}
		for _, p := range near {
			out.Near = append(out.Near, netip.MustParsePrefix(p))
		}
		return out
	}
	all := []Worker{w("m1", .1), w("eu", .1, "192.0.2.0/24", "2001:db8::/32"), w("us", .1, "198.51.100.0/24"), w("lab", .1, "192.0.2.64/26"), w("hot", .9, "203.0.113.0/24")}
	for name, c := range map[string]struct {
		from string
		at   []string
		want string
	}{
		"near one":                 {"192.0.2.7", []string{"m1"}, "eu"},
		"by IPv6":                  {"2001:db8::7", []string{"us"}, "eu"},
		"IPv4 in IPv6":             {"::ffff:198.51.100.7", []string{"m1"}, "us"},
		"nearer to another":        {"192.0.2.70", []string{"m1", "eu"}, "lab"},
		"near to none: the room's": {"10.0.0.1", []string{"us"}, "us"},
		"it is busy: the room's":   {"203.0.113.7", []string{"us"}, "us"},
		"its room is nowhere":      {"198.51.100.7", nil, "us"},
		"nobody knows where from":  {"", []string{"m1"}, "m1"},
	} {
		t.Run(name, func(t *testing.T) {
			from, _ := netip.ParseAddr(c.from)
			if got := Choose(now, all, from, c.at...); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
