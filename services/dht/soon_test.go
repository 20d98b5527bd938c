package dht

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// slowFinder finds values at times, and searches on for long.
type slowFinder struct {
	at    []time.Duration
	value []overlay.Value
	takes time.Duration
	err   error
}

func (f *slowFinder) Get(context.Context, overlay.Key) ([]overlay.Value, error) {
	return nil, errors.New("it is not asked for all")
}

func (f *slowFinder) Find(ctx context.Context, _ overlay.Key, fn func(overlay.Value)) error {
	began := time.Now()
	for i, at := range append(f.at, f.takes) {
		select {
		case <-time.After(at - time.Since(began)):
		case <-ctx.Done():
			return ctx.Err()
		}
		if i < len(f.value) {
			fn(f.value[i])
		}
	}
	return f.err
}

// What is found soon is answered soon; what is not is waited for.
func TestSoon(t *testing.T) {
	v := func(id uint64, data string) overlay.Value { return overlay.Value{ID: id, Data: []byte(data)} }
	failed := errors.New("no network")
	for name, c := range map[string]struct {
		f    slowFinder
		want []string
		took time.Duration
		err  error
	}{
		"two at once, one too late": {slowFinder{at: []time.Duration{10, 20, 600}, value: []overlay.Value{v(1, "a"), v(2, "b"), v(3, "c")}, takes: 4000}, []string{"a", "b"}, 510, nil},
		"a change":                  {slowFinder{at: []time.Duration{10, 20}, value: []overlay.Value{v(1, "old"), v(1, "new")}, takes: 4000}, []string{"new"}, 510, nil},
		"late":                      {slowFinder{at: []time.Duration{3000}, value: []overlay.Value{v(1, "a")}, takes: 4000}, []string{"a"}, 3500, nil},
		"ends before":               {slowFinder{at: []time.Duration{10}, value: []overlay.Value{v(1, "a")}, takes: 100}, []string{"a"}, 100, nil},
		"nothing":                   {slowFinder{takes: 4000}, nil, 4000, nil},
		"fails":                     {slowFinder{takes: 50, err: failed}, nil, 50, failed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for i := range c.f.at {
					c.f.at[i] *= time.Millisecond
				}
				c.f.takes *= time.Millisecond
				began := time.Now()
				vs, err := soon(t.Context(), &c.f, overlay.Key{}, 500*time.Millisecond)
				if took := time.Since(began); took != c.took*time.Millisecond || !errors.Is(err, c.err) || len(vs) != len(c.want) {
					t.Fatalf("%v, %v after %v; want %q after %d ms", vs, err, took, c.want, c.took)
				}
				for i, w := range c.want {
					if string(vs[i].Data) != w {
						t.Errorf("%q, want %q", vs[i].Data, w)
					}
				}
			})
		})
	}
}
