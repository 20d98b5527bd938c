package bustest

import "testing"

func TestPortsAreReservedOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 40 {
		base := Ports(t, func(int) bool { return true })
		if seen[base] {
			t.Fatalf("ports from %d on twice", base)
		}
		seen[base] = true
	}
}
