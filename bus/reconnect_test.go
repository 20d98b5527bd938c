package bus_test

import (
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/bustest"
)

// Who no longer wants to hear of reconnections is forgotten.
func TestOnReconnectStops(t *testing.T) {
	s := bustest.Start(t)
	c := s.Conn("connect")
	called, back := make(chan struct{}, 1), make(chan struct{}, 1)
	stop := c.OnReconnect(func() { called <- struct{}{} })
	c.OnReconnect(func() { back <- struct{}{} })
	stop()
	stop()
	s.Stop()
	s.Restart()
	select {
	case <-back:
	case <-time.After(20 * time.Second):
		t.Fatal("the connection has not come back")
	}
	select {
	case <-called: // before the other one, or never
		t.Error("called after it was stopped")
	default:
	}
}
