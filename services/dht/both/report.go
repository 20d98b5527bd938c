package both

import (
	"context"
	"errors"

	"github.com/parley-jami/parley/services/dht/overlay"
)

var (
	_ overlay.Reporter = (*Overlay)(nil)
	_ overlay.Prober   = (*Overlay)(nil)
)

// Reports returns what each of the two tells of itself.
func (o *Overlay) Reports() []overlay.Report {
	var out []overlay.Report
	for i := range 2 {
		if r, ok := o.at(i).(overlay.Reporter); ok {
			out = append(out, r.Reports()...)
		}
	}
	return out
}

// prober is the first of the two that can ask single nodes.
func (o *Overlay) prober() (overlay.Prober, error) {
	for i := range 2 {
		if p, ok := o.at(i).(overlay.Prober); ok {
			return p, nil
		}
	}
	return nil, errors.ErrUnsupported
}

// Ping asks through the one that can.
func (o *Overlay) Ping(ctx context.Context, hostport string) (overlay.Pong, error) {
	p, err := o.prober()
	if err != nil {
		return overlay.Pong{}, err
	}
	return p.Ping(ctx, hostport)
}

// Scan walks through the network of the one that can.
func (o *Overlay) Scan(ctx context.Context, w overlay.Walk) (overlay.Walked, error) {
	p, err := o.prober()
	if err != nil {
		return overlay.Walked{}, err
	}
	return p.Scan(ctx, w)
}
