package bus

import "testing"

func TestSemver(t *testing.T) {
	for in, want := range map[string]string{"1.2.3": "1.2.3", "v1.2.3-rc.1": "1.2.3-rc.1", "9b79dfc-dirty": "0.0.0+9b79dfc-dirty",
		"": "0.0.0", "a b": "0.0.0+a-b", "1.2": "0.0.0+1.2"} {
		if got := semver(in); got != want || !semverForm.MatchString(got) {
			t.Errorf("semver(%q) = %q, want %q", in, got, want)
		}
	}
}
