//go:build interop

package interop

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// 200 calls at 20 a second, each with sound, over one room: none fails and
// nobody is left in the roster.
func TestSippCalls(t *testing.T) {
	n := startNode(t)
	dir := t.TempDir()
	pcmu := filepath.Join(dir, "speech.ulaw") // G.711 µ-law, 2 s of a square wave
	b := make([]byte, 16000)
	for i := range b {
		b[i] = 0x90
		if i/8%2 == 0 {
			b[i] = 0x10
		}
	}
	if err := os.WriteFile(pcmu, b, 0o600); err != nil {
		t.Fatal(err)
	}
	xml, err := os.ReadFile("sipp.xml")
	if err != nil {
		t.Fatal(err)
	}
	scenario := filepath.Join(dir, "caller.xml")
	if err := os.WriteFile(scenario, bytes.ReplaceAll(xml, []byte("RTPFILE"), []byte(pcmu)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sipp", "-sf", scenario, "-m", "200", "-r", "20", "-l", "200", "-i", "127.0.0.1", "-mi", "127.0.0.1",
		"-p", strconv.Itoa(n.base+70), "-mp", "20000", "-trace_stat", "-stf", filepath.Join(dir, "stat.csv"),
		"-fd", "1", "-nostdin", "-timeout", "60s", "-timeout_error", n.sipAddr())
	cmd.Dir = dir
	stop, seen := make(chan struct{}), make(chan int)
	go func() { // the most people in the roster at once
		peak := 0
		for {
			select {
			case <-stop:
				seen <- peak
				return
			case <-time.After(250 * time.Millisecond):
				peak = max(peak, n.participants())
			}
		}
	}()
	out, err := cmd.CombinedOutput()
	close(stop)
	peak := <-seen
	if err != nil {
		t.Errorf("sipp: %v", err)
	}
	ok, failed := sippStat(t, filepath.Join(dir, "stat.csv"))
	fmt.Printf("sipp: %d calls at 20/s with RTP: %d succeeded, %d failed\n", ok+failed, ok, failed)
	if ok != 200 || failed != 0 {
		s := string(out)
		t.Errorf("%d succeeded, %d failed\n%s", ok, failed, s[max(0, len(s)-3000):])
	}
	// Each caller speaks for 4 s, 50 packets a second; the room is never silent, so
	// each hears as many.
	const packets = 200 * 4 * 50
	in, back := n.metric("parley_media_packets_total", `kind="rtp_in"`), n.metric("parley_media_packets_total", `kind="out"`)
	fmt.Printf("sipp: at most %d in the room at once; %.0f RTP packets in, %.0f out, of %d each\n", peak, in, back, packets)
	if peak < 40 {
		t.Errorf("at most %d were in the room at once", peak)
	}
	if in < 0.9*packets || back < 0.9*packets {
		t.Errorf("%.0f packets came in, %.0f went out, %d were due", in, back, packets)
	}
	n.wait("an empty roster", 5*time.Second, func() bool { return n.participants() == 0 })
	fmt.Println("sipp: nobody is left in the roster")
}

func sippStat(t *testing.T, path string) (ok, failed int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.FieldsPerRecord = ';', -1
	rows, err := r.ReadAll()
	if err != nil || len(rows) < 2 {
		t.Fatalf("sipp statistics: %v", err)
	}
	last := rows[len(rows)-1]
	for i, h := range rows[0] {
		if i >= len(last) {
			break
		}
		v, err := strconv.Atoi(strings.TrimSpace(last[i]))
		switch {
		case err != nil:
		case h == "SuccessfulCall(C)":
			ok = v
		case h == "FailedCall(C)":
			failed = v
		}
	}
	return ok, failed
}
