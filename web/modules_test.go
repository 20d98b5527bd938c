//go:build interop

package web

import (
	"os/exec"
	"testing"
)

// TestModules runs the tests of the modules that need no page.
func TestModules(t *testing.T) {
	if out, err := exec.Command("node", "--test", "test/").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
