// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"fmt"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

func TestConnections(t *testing.T) {
	w := newWorld(t)
	want := contract.Signalled{Over: "websocket", Local: "192.0.2.9:443", Remote: "192.0.2.1:50000", TLS: "TLS 1.3", Suite: "TLS_AES_128_GCM_SHA256"}
	for i := range 5 { // more than a page of the worker's
		j := browser(fmt.Sprintf("p%d", i))
		if i == 3 {
			j.Signalled = &want
		}
		must(w, contract.RoomJoin, j, "main", j.Name)
	}
	must(w, contract.RoomCreateCmd, &contract.RoomCreate{Name: "other"})
	w.join("other", "elsewhere")
	w.media.mu.Lock()
	for id, l := range w.media.legs {
		l.Path = &contract.LegPath{Protocol: "udp", Remote: id, RemoteType: "relay"}
		l.Quality.RTTMs = 42
	}
	w.media.mu.Unlock()

	all := must(w, contract.RoomConnections, &contract.ConnectionQuery{}, "main", contract.Operator)
	if len(all.Connections) != 5 || all.More {
		t.Fatalf("%+v", all)
	}
	for i, c := range all.Connections {
		if c.Participant != fmt.Sprintf("p%d", i) || c.Path == nil || c.Path.Remote != c.Participant || c.Quality.RTTMs != 42 || c.Name != c.Participant {
			t.Errorf("%d: %+v", i, c)
		}
		if got := c.Signalled; (i == 3) != (got != nil && *got == want) {
			t.Errorf("%d: signalled %+v", i, got)
		}
	}
	page := must(w, contract.RoomConnections, &contract.ConnectionQuery{After: "p1", Limit: 2}, "main", contract.Operator)
	if len(page.Connections) != 2 || !page.More || page.Connections[0].Participant != "p2" {
		t.Errorf("a page: %+v", page)
	}
	one := must(w, contract.RoomConnections, &contract.ConnectionQuery{Participant: "p3"}, "main", contract.Operator)
	if len(one.Connections) != 1 || one.Connections[0].Participant != "p3" || one.More {
		t.Errorf("one: %+v", one)
	}
	_, err := call(w, contract.RoomConnections, &contract.ConnectionQuery{Participant: "elsewhere"}, "main", contract.Operator)
	wantCode(t, err, contract.ErrNotFound)
	_, err = call(w, contract.RoomConnections, &contract.ConnectionQuery{}, "main", "p1")
	wantCode(t, err, contract.ErrForbidden)
}
