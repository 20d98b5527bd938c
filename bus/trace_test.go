package bus_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/bustest"
	"github.com/parley-jami/parley/bus/contract"
)

// A trace goes from the asker through the command to who hears the event. An error
// is told in the spans and by reference in the answer, which may go to a stranger.
func TestTraces(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	t.Cleanup(func() { otel.SetTracerProvider(before) })
	s := bustest.Start(t)
	conf, cli := s.Conn("conference"), s.Conn("cli")
	events := make(chan trace.SpanContext, 1)
	sub, err := bus.Subscribe(s.Conn("connect"), contract.RoomEvents, func(ctx context.Context, _ []string, _ *contract.RoomEvent) {
		events <- trace.SpanContextFromContext(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	svc, err := bus.NewService(conf, "conference", "1.0.0", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Stop()
	err = bus.Serve(svc, contract.RoomListCmd, func(ctx context.Context, _ *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
		if err := bus.Publish(ctx, conf, contract.RoomEvents, &contract.RoomEvent{Type: contract.EventJoined}, "main", "joined"); err != nil {
			t.Error(err)
		}
		return nil, errors.New("open /secret/file: no such file")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conf.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, root := otel.Tracer("test").Start(t.Context(), "root")
	id := root.SpanContext().TraceID()
	_, err = bus.Call(ctx, cli, contract.RoomListCmd, &contract.RoomQuery{})
	if !errors.Is(err, contract.ErrInternal) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), id.String()) {
		t.Errorf("the answer: %v", err)
	}
	if got := <-events; got.TraceID() != id {
		t.Errorf("the event is of trace %s, want %s", got.TraceID(), id)
	}
	svc.Stop() // its spans have ended then
	seen := map[string]codes.Code{}
	for _, sp := range spans.GetSpans() {
		if sp.SpanContext.TraceID() == id {
			seen[sp.Name] = sp.Status.Code
		}
	}
	if len(seen) != 2 || seen["call room.list"] != codes.Error || seen["serve room.list"] != codes.Error {
		t.Errorf("spans: %v", seen)
	}
}
