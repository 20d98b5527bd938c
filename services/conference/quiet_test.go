// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

// TestQuietRoom is left alone until somebody comes, and again when he has left.
func TestQuietRoom(t *testing.T) {
	w := newWorld(t)
	quiet := func() bool { return w.conf.s.isQuiet("main") }
	w.until("nobody is in the room", quiet)
	w.join("main", "ann")
	if quiet() {
		t.Fatal("somebody is in the room")
	}
	w.media.connect("main", "ann")
	w.until("connected", func() bool { return connected(w.get("main")) == 1 })
	must(w, contract.RoomLeave, &contract.Leave{}, "main", "ann")
	w.until("everybody has left", quiet)
}
