// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"math"
	"slices"
)

// MeshMost is up to how many workers of a room are joined each with each.
const MeshMost = 16

// Link is a worker's trunk to another one.
type Link struct {
	To   string
	Leaf bool // To hears the others through this one
}

// Trunks says how the workers of a room are joined: each with each, or, where they are more than
// [MeshMost], about the square root of them as hubs, which are, and each other one with one hub. was is what it
// said for the room before: hubs stay hubs and leaves with their hub as long as it is possible, since a link
// that changes is a gap. Links are sorted by name; a worker alone has none.
func Trunks(workers []string, was map[string][]Link) map[string][]Link {
	out := make(map[string][]Link, len(workers))
	all := slices.Clone(workers)
	slices.Sort(all)
	all = slices.Compact(all)
	hubs := all
	if len(all) > MeshMost {
		hubs = pickHubs(all, was)
	}
	for _, a := range hubs {
		for _, b := range hubs {
			if a != b {
				out[a] = append(out[a], Link{To: b})
			}
		}
	}
	if len(hubs) < len(all) {
		hang(out, all, hubs, was)
	}
	for _, w := range all {
		slices.SortFunc(out[w], func(a, b Link) int {
			if a.To < b.To {
				return -1
			}
			return 1
		})
	}
	return out
}

// pickHubs takes those who are hubs already, then by name.
func pickHubs(all []string, was map[string][]Link) []string {
	n := int(math.Ceil(math.Sqrt(float64(len(all)))))
	var hubs []string
	add := func(ok func(string) bool) {
		for _, w := range all {
			if len(hubs) < n && ok(w) && !slices.Contains(hubs, w) {
				hubs = append(hubs, w)
			}
		}
	}
	add(func(w string) bool { return slices.ContainsFunc(was[w], func(l Link) bool { return l.Leaf }) })
	add(func(string) bool { return true })
	return hubs
}

// hang gives each worker that is no hub to the one that it was at, unless that has more than its
// share, else to the one with the fewest.
func hang(out map[string][]Link, all, hubs []string, was map[string][]Link) {
	leaves := map[string]int{}
	share := (len(all) - 1) / len(hubs)
	tie := func(leaf, hub string) {
		out[hub] = append(out[hub], Link{To: leaf, Leaf: true})
		out[leaf] = []Link{{To: hub}}
		leaves[hub]++
	}
	var loose []string
	for _, w := range all {
		if slices.Contains(hubs, w) {
			continue
		}
		if len(was[w]) == 1 && slices.Contains(hubs, was[w][0].To) && leaves[was[w][0].To] < share {
			tie(w, was[w][0].To)
		} else {
			loose = append(loose, w)
		}
	}
	for _, w := range loose {
		best := hubs[0]
		for _, h := range hubs {
			if leaves[h] < leaves[best] {
				best = h
			}
		}
		tie(w, best)
	}
}
