package logging

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/config"
)

// Trace sends the spans of this process to trace.endpoint (OTLP over HTTP). The
// returned function sends what is left and stops, within the deadline of its
// context; it is never nil. Without an endpoint there is no tracing at all. A
// collector that is away costs spans, never the process: the queue is bounded and
// the loss is logged.
func Trace(ctx context.Context, c config.Trace, process, version string, log *zap.Logger) (stop func(context.Context) error, err error) {
	if c.Endpoint == "" {
		return func(context.Context) error { return nil }, nil
	}
	exp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.Endpoint))
	if err != nil {
		return nil, fmt.Errorf("trace.endpoint: %w", err)
	}
	res, err := resource.Merge(resource.Default(), resource.NewSchemaless(
		attribute.String("service.namespace", "parley"),
		attribute.String("service.name", process),
		attribute.String("service.version", version)))
	if err != nil {
		return nil, fmt.Errorf("trace resource: %w", err)
	}
	var failures atomic.Uint64
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		if n := failures.Add(1); n&(n-1) == 0 { // the 1st, 2nd, 4th, 8th …
			log.Warn("traces not sent", zap.Error(err), zap.Uint64("times", n))
		}
	}))
	tp := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exp), sdktrace.WithResource(res))
	otel.SetTracerProvider(tp)
	return tp.Shutdown, nil
}
