//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parley-jami/parley/internal/bench"
)

// What `parley bench mix` prints: scripts rely on the names.
type benchReport struct {
	Listeners int                `json:"listeners"`
	Speakers  int                `json:"speakers"`
	Seconds   int                `json:"seconds"`
	Transport string             `json:"transport"`
	CPUPerS   map[string]float64 `json:"cpu_per_s"`
	MsPerS    float64            `json:"ms_per_s_per_listener"`
	Bytes     int64              `json:"bytes_per_listener"`
	OnTime    float64            `json:"on_time"`
	DelayMs   struct {
		P50   float64 `json:"p50"`
		P99   float64 `json:"p99"`
		Found int     `json:"found"`
	} `json:"delay_ms"`
}

// The figures are printed, not tested: other things run on the machine. What is
// tested is that the command works, its JSON, and that a mixer that fell apart shows.
func TestBenchMix(t *testing.T) {
	n := startNode(t)
	for _, listeners := range []int{100, 500} {
		if !benchMix(t, n, listeners) {
			fmt.Println("bench: once more: the machine is busy with other things")
			if !benchMix(t, n, listeners) {
				t.Errorf("no sane figures for %d listeners, twice", listeners)
			}
		}
	}
}

// Legs of each kind of key are served, those of browsers with a handshake.
func TestBenchKeys(t *testing.T) {
	n := startNode(t)
	for _, transport := range []string{"srtp", "srtp-gcm", "dtls", "dtls-cm"} {
		out := n.parley("bench", "mix", "--listeners", "20", "--speakers", "2", "--seconds", "7", "--transport", transport, "--json")
		var r benchReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		fmt.Printf("bench: 20 listeners by %s: %.2f %% on time, delay p50 %.1f ms of %d marks\n", transport, 100*r.OnTime, r.DelayMs.P50, r.DelayMs.Found)
		// What was decrypted and decoded was what was said.
		if r.Transport != transport || r.OnTime < 0.5 || r.DelayMs.Found == 0 {
			t.Errorf("no sane figures: %s", out)
		}
	}
	if got := n.participants(); got != 0 {
		t.Errorf("%d are left in the room", got)
	}
}

// A room over two workers on networks of their own is heard at both, and nothing of it is left.
func TestBenchScale(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes network namespaces: needs root")
	}
	bin, err := filepath.Abs("../../bin/parley")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "bench", "scale", "--workers", "1,2", "--legs", "20", "--seconds", "7", "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var r struct {
		Rows []struct {
			Workers  int     `json:"workers"`
			Legs     int     `json:"legs"`
			Against  float64 `json:"against_one"`
			TrunkOut float64 `json:"trunk_out"`
			Other    struct {
				P50   float64 `json:"p50"`
				Found int     `json:"found"`
			} `json:"delay_other_ms"`
			PerWorker []struct {
				Worker string  `json:"worker"`
				Legs   int     `json:"legs"`
				Cores  float64 `json:"cores"`
			} `json:"per_worker"`
		} `json:"rows"`
		Model struct {
			Rooms []struct {
				Legs    int `json:"legs"`
				Workers int `json:"workers"`
			} `json:"rooms"`
		} `json:"model"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(r.Rows) != 2 || len(r.Rows[1].PerWorker) != 2 || len(r.Model.Rooms) != 3 || r.Model.Rooms[2].Legs != 100000 || r.Model.Rooms[2].Workers < 1 { // more only where other work has not hidden what 15 legs cost
		t.Fatalf("not what was asked for: %s", out)
	}
	two := r.Rows[1]
	fmt.Printf("bench: 40 legs at two workers: %.2f times one worker's CPU a leg, %.0f packets a second on the trunk, delay at the other p50 %.1f ms of %d marks\n", two.Against, two.TrunkOut, two.Other.P50, two.Other.Found)
	if two.Legs != 40 || two.TrunkOut < 20 || two.Other.Found == 0 {
		t.Errorf("the second worker was not heard: %s", out)
	}
	for _, w := range two.PerWorker {
		if w.Legs != 20 || w.Cores <= 0 || w.Worker == "" {
			t.Errorf("worker %+v", w)
		}
	}
	left, err := exec.Command("ip", "netns", "list").Output()
	if err != nil || strings.Contains(string(left), fmt.Sprintf("plyscale%d-", cmd.Process.Pid)) {
		t.Errorf("namespaces are left (%v): %s", err, left)
	}
}

// benchMix reports whether the figures are sane.
func benchMix(t *testing.T, n *node, listeners int) bool {
	t.Helper()
	out := n.parley("bench", "mix", "--listeners", fmt.Sprint(listeners), "--speakers", "3", "--seconds", "10", "--transport", "rtp", "--json")
	var keys map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &keys); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, k := range []string{"listeners", "speakers", "seconds", "transport", "cpu_per_s", "ms_per_s_per_listener", "bytes_per_listener", "on_time", "delay_ms"} {
		if _, ok := keys[k]; !ok {
			t.Errorf("no %s in %s", k, out)
		}
	}
	var delay map[string]float64
	if err := json.Unmarshal(keys["delay_ms"], &delay); err != nil {
		t.Error(err)
	}
	for _, k := range []string{"p50", "p99"} {
		if _, ok := delay[k]; !ok {
			t.Errorf("no delay_ms.%s in %s", k, out)
		}
	}
	var r benchReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	var cpu []string
	for name, v := range r.CPUPerS {
		if v >= 0.005 {
			cpu = append(cpu, fmt.Sprintf("%s %.2f", name, v))
		}
	}
	slices.Sort(cpu)
	fmt.Printf("bench: %d listeners, %d speakers, %s: %.3f ms/s and %d kB a listener; on time %.2f %%; delay p50 %.1f ms, p99 %.1f ms; CPU s/s: %s\n",
		r.Listeners, r.Speakers, r.Transport, r.MsPerS, r.Bytes/1000, 100*r.OnTime, r.DelayMs.P50, r.DelayMs.P99, strings.Join(cpu, ", "))
	if r.Listeners != listeners || r.Speakers != 3 || r.Seconds != 10 || r.Transport != "rtp" || r.CPUPerS["media"] <= 0 {
		t.Errorf("the report is not of what was asked for: %s", out)
	}
	if got := n.participants(); got != 0 {
		t.Errorf("%d are left in the room", got)
	}
	return r.OnTime > 0.9 && r.MsPerS > 0 && r.MsPerS < 4 && r.DelayMs.P50 > 0 && r.DelayMs.P50 < 200 && r.DelayMs.P99 >= r.DelayMs.P50
}

// Legs come and go, and nothing of them stays. How late frames are is printed, not tested.
func TestBenchSoak(t *testing.T) {
	n := startNode(t)
	page := filepath.Join(t.TempDir(), "soak.html")
	out := n.parley("bench", "soak", "--legs", "40", "--stay", "3s", "--duration", "15s", "--every", "3s", "--html", page, "--json")
	var r struct {
		Joined    int     `json:"joined"`
		Left      int     `json:"left"`
		Failed    int     `json:"failed"`
		Failure   string  `json:"failure"`
		Frames    int     `json:"frames"`
		LatePct   float64 `json:"late_pct"`
		Processes []struct {
			Name   string `json:"name"`
			Before int    `json:"goroutines_before"`
			After  int    `json:"goroutines_after"`
			RSS    int64  `json:"rss_end"`
		} `json:"processes"`
		Samples []struct {
			Legs int `json:"legs"`
		} `json:"samples"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	fmt.Printf("bench: soak: %d legs came and went, %.3f %% of %d frames late\n", r.Joined, r.LatePct, r.Frames)
	if r.Failed != 0 || r.Joined < 80 || r.Left != r.Joined || r.Frames == 0 || len(r.Samples) < 4 || r.Samples[2].Legs == 0 {
		t.Errorf("%d came, %d left, %d failed (%s): %s", r.Joined, r.Left, r.Failed, r.Failure, out)
	}
	for _, p := range r.Processes {
		// What a leg has would be dozens of them.
		if p.Before == 0 || p.After > p.Before+20 || p.RSS == 0 {
			t.Errorf("%s: %d goroutines before, %d after all have left; %d bytes", p.Name, p.Before, p.After, p.RSS)
		}
	}
	if raw, err := os.ReadFile(page); err != nil || !bytes.Contains(raw, []byte("<svg")) {
		t.Errorf("the page: %v", err)
	}
	if got := n.participants(); got != 0 {
		t.Errorf("%d are left in the room", got)
	}
}

// A room is played to the author of a bot.
func TestSim(t *testing.T) {
	n := startNode(t)
	out := n.parley("sim", "--speakers", "2", "--seconds", "6", "--json")
	type event struct {
		Who  string `json:"who"`
		What string `json:"what"`
	}
	did := map[string][]string{}
	for dec := json.NewDecoder(bytes.NewReader([]byte(out))); dec.More(); {
		var e event
		if err := dec.Decode(&e); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		did[e.Who] = append(did[e.Who], e.What)
	}
	fmt.Printf("bench: parley sim played %d people: %v\n", len(did), did)
	if len(did) != 2 {
		t.Errorf("two people were asked for: %s", out)
	}
	if got := n.participants(); got != 0 {
		t.Errorf("%d are left in the room", got)
	}
}

// A process of a real node is killed by the command; what it cost is printed, not tested, but
// nobody and nothing may be lost.
func TestBenchChaos(t *testing.T) {
	n := startNode(t)
	var r struct {
		Legs  int `json:"legs"`
		Steps []struct {
			Process string `json:"process"`
			Times   int    `json:"times"`
			Lost    *int   `json:"legs_lost"`
			Said    int    `json:"messages"`
			Missing *int   `json:"messages_lost"`
			Gap     struct {
				Max float64 `json:"max"`
			} `json:"gap_ms"`
		} `json:"steps"`
	}
	out := n.parley("bench", "chaos", "--legs", "30", "--times", "1", "--only", "connect,media", "--json")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Legs != 30 || len(r.Steps) != 3 {
		t.Fatal(out)
	}
	for i, want := range []string{"nobody", "connect", "media"} {
		s := r.Steps[i]
		if s.Process != want || s.Times != 1 || s.Lost == nil || *s.Lost != 0 || s.Missing == nil || *s.Missing != 0 || s.Said == 0 {
			t.Errorf("%s: %+v", want, s)
		}
		fmt.Printf("bench: %s killed: longest gap of 30 legs %.0f ms\n", want, s.Gap.Max)
	}
	if out, err := n.try("bench", "chaos", "--only", "nothing"); err == nil || !strings.Contains(out, "no such process") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestBenchChaosMachines: a node with a bus of three servers, and workers on two machines more, all in namespaces that
// the command makes: the bus's leader is killed, a machine cut off from everybody, then from the others, and the legs' packets
// are lost and late. What it cost is printed, not tested, but nobody and nothing may be lost, and nobody
// hears two mixers.
func TestBenchChaosMachines(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it makes network namespaces: run it as root")
	}
	out, err := exec.Command(parleyBinary(t), "bench", "chaos", "--legs", "45", "--times", "1", "--only", "leader,machine,split,weather", "--json").Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var r bench.ChaosReport
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(r.Steps) != 5 {
		t.Fatalf("%s", out)
	}
	for _, s := range r.Steps {
		fmt.Printf("bench: %s: longest gap of %d legs %.0f ms, %d moved, two mixers for %.0f ms at most\n", s.Process, r.Legs, s.GapMs.Max, s.Moved, s.TwoMs.Max)
		if s.Times != 1 || s.Lost != 0 || s.SaidLost != 0 || s.Said == 0 || s.Two != 0 || s.Stuck != 0 {
			t.Errorf("%+v", s)
		}
		if cut := s.Process == bench.Machine || s.Process == bench.Split; cut && s.Moved < 15 {
			t.Errorf("%s: %d legs moved of the 15 of that machine", s.Process, s.Moved)
		}
	}
	if f := r.Steps[4].Frames; f == nil || f.Heard < 0.85 || f.Heard > 0.97 || f.Whole < 0.97 {
		t.Errorf("weather: %+v", f)
	}
}
