// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"reflect"
	"testing"
)

func names(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("w%03d", i))
	}
	return out
}

// reached is how many workers hear what one says, over the links that packets take: a hub
// gives on what a leaf says to all, and what a hub says to its leaves.
func reached(t *testing.T, links map[string][]Link, from string) map[string]int {
	t.Helper()
	leafOf := func(hub, w string) bool {
		for _, l := range links[hub] {
			if l.To == w {
				return l.Leaf
			}
		}
		t.Fatalf("%s is not linked to %s, but %s to %s", hub, w, w, hub)
		return false
	}
	got := map[string]int{}
	var say func(at, came string)
	say = func(at, came string) {
		for _, l := range links[at] {
			if l.To == came || came != "" && !l.Leaf && !leafOf(at, came) {
				continue
			}
			if got[l.To]++; got[l.To] > 1 {
				continue
			}
			if hub := links[l.To]; len(hub) > 1 || leafOf(l.To, at) {
				say(l.To, at)
			}
		}
	}
	say(from, "")
	return got
}

func TestTrunksReachEverybodyOnce(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, MeshMost, MeshMost + 1, 40, 100, 256} {
		all := names(n)
		links := Trunks(all, nil)
		most := 0
		for _, w := range all {
			most = max(most, len(links[w]))
			got := reached(t, links, w)
			for _, o := range all {
				want := 1
				if o == w {
					want = 0
				}
				if got[o] != want {
					t.Fatalf("%d workers: what %s says comes to %s %d times", n, w, o, got[o])
				}
			}
		}
		if n > MeshMost && most > 2*MeshMost {
			t.Errorf("%d workers: %d links of one", n, most)
		}
	}
}

// TestFewLinksChange: where a worker comes or goes, the other links stay.
func TestFewLinksChange(t *testing.T) {
	all := names(60)
	before := Trunks(all, nil)
	again := Trunks(all, before)
	if !reflect.DeepEqual(before, again) {
		t.Error("the same workers are joined in another way")
	}
	changed := func(after map[string][]Link) int {
		n := 0
		for w, ls := range after {
			for _, l := range ls {
				if !contains(before[w], l) {
					n++
				}
			}
		}
		return n
	}
	if n := changed(Trunks(all[:59], before)); n > 0 {
		t.Errorf("a leaf that goes changes %d other links", n)
	}
	if n := changed(Trunks(append(names(60), "w999"), before)); n > 2 {
		t.Errorf("a leaf that comes changes %d links", n)
	}
	if n := changed(Trunks(all[1:], before)); n > 40 {
		t.Errorf("a hub that goes changes %d links", n)
	}
}

func contains(list []Link, l Link) bool {
	for _, o := range list {
		if o == l {
			return true
		}
	}
	return false
}
