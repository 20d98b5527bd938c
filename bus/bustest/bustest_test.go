package bustest_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

func TestCommandsAndBots(t *testing.T) {
	s := bustest.Start(t)
	conf := s.Conn("conference")
	svc, err := bus.NewService(conf, "conference", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Stop()
	err = bus.Serve(svc, contract.RoomGet, func(_ context.Context, r *bus.Request[contract.None]) (*contract.Joined, error) {
		return &contract.Joined{Room: contract.Room{RoomSettings: contract.RoomSettings{Name: r.Param(1)}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := bus.Call(t.Context(), s.Conn("connect"), contract.RoomGet, &contract.None{}, "main", "p1")
	if err != nil || got.Room.Name != "main" {
		t.Fatalf("connect asks: %+v, %v", got, err)
	}
	nc := s.Bot("echo", "main", contract.RightListen)
	m, err := nc.Request(contract.RoomGet.Subject(bustest.Account, "main", "echo"), []byte("{}"), 2*time.Second)
	if err != nil {
		t.Fatalf("bot asks: %v", err)
	}
	var j contract.Joined
	if err := json.Unmarshal(m.Data, &j); err != nil || j.Room.Name != "main" {
		t.Fatalf("bot got %s, %v", m.Data, err)
	}
}
