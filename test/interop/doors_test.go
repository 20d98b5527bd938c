//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// TestWorkerTakesCalls: a browser and a phone call at another machine than the node's, whose process that takes calls
// dies and comes back, and hear everybody in the room. That machine can do nothing of the operator's.
func TestWorkerTakesCalls(t *testing.T) {
	n := startNode(t)
	base := freeBase(t)
	w := n.addWorker("hall2", "--calls")
	n.join(w, "hall2", "--http.listen", fmt.Sprintf(":%d", base+10), "--http.tls_listen", "", "--sip.listen", fmt.Sprintf(":%d", base+11), "--sip.tls_listen", "",
		"--media.listen", fmt.Sprintf(":%d", base+20))
	door := fmt.Sprintf("http://localhost:%d", base+10)
	p := &party{names: []string{"chromium", "baresip", "bot"}, freqs: []float64{500, 700, 1300}}
	p.bot = n.startBot("tone", p.freqs[2])
	n.wait("the page is there", 15*time.Second, func() bool {
		res, err := http.Get(door + "/r/main")
		if err != nil {
			return false
		}
		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	})
	b := n.call(phone{name: "udp", freq: p.freqs[1], codec: "opus/48000/1", transport: "udp", sip: fmt.Sprintf("127.0.0.1:%d", base+11)}, n.base+30)
	p.b = startBrowser(t, p.freqs[0])
	p.b.open(door+"/r/main", "Chromium")
	n.wait("three in the room", 20*time.Second, func() bool { return n.participants() == 3 })
	var heard recording
	n.wait("the phone records", 15*time.Second, func() (ok bool) {
		var err error
		heard, err = b.recording()
		return err == nil
	})
	p.hear = []func(int) ([]int16, error){p.b.fresh, func(ms int) ([]int16, error) { return fresh(heard, ms) }, func(ms int) ([]int16, error) { return fresh(p.bot, ms) }}
	p.everybody(n)
	var list struct {
		Participants []contract.Participant `json:"participants"`
	}
	if err := json.Unmarshal([]byte(n.parley("room", "participants", "main", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, x := range list.Participants {
		if want := "connect@hall2"; x.Kind != contract.KindBot && x.Signalling != want {
			t.Errorf("%s is signalled by %q, not %s", x.Name, x.Signalling, want)
		}
	}

	people := n.roster()
	if err := syscall.Kill(w.child(t, "connect"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.wait("the page is there again", 15*time.Second, func() bool {
		res, err := http.Get(door + "/r/main")
		if err != nil {
			return false
		}
		return res.Body.Close() == nil && res.StatusCode == http.StatusOK
	})
	p.everybody(n)
	p.print("calls at another machine, after its connect died", p.matrix(1500))
	if got := n.roster(); !slices.Equal(got, people) {
		t.Errorf("%v were in the room, now %v", people, got)
	}

	// What the operator may, nobody may there.
	for _, path := range []string{"/api/v1/status", "/api/v1/rooms", "/operator"} {
		req, err := http.NewRequest(http.MethodGet, door+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer ")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s is answered with %s", path, res.Status)
		}
	}
	n.parley("worker", "revoke", "hall2")
	w.killed = true
	if err := w.cmd.Wait(); err == nil || !strings.Contains(w.out.String(), "revoked") {
		t.Errorf("revoked: %v: %s", err, w.out.String())
	}
}
