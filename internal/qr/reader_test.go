//go:build interop

package qr

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReader has a real reader of QR codes look at one.
func TestReader(t *testing.T) {
	svg, err := SVG(text, "Jami Id")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "code.svg")
	if err := os.WriteFile(path, []byte(svg), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("rsvg-convert", "-w", "400", "-o", path+".png", path).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	out, err := exec.Command("zbarimg", "-q", "--raw", path+".png").Output()
	if err != nil || strings.TrimSpace(string(out)) != text {
		t.Errorf("read %q, %v", out, err)
	}
}
