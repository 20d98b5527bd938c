package proxy

import (
	"context"
	"slices"
	"sync"

	"github.com/parley-jami/parley/services/dht/overlay"
)

// fake is an overlay whose changes the test makes.
type fake struct {
	mu        sync.Mutex
	err       error
	values    map[overlay.Key][]overlay.Value
	permanent map[uint64]bool
	restored  []overlay.Value
	cancelled []uint64
	listeners map[overlay.Key]map[*func(overlay.Change)]struct{}
}

func (f *fake) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fake) Put(_ context.Context, v overlay.Value, permanent bool) (overlay.Stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return overlay.Stored{}, f.err
	}
	if f.permanent == nil {
		f.permanent = map[uint64]bool{}
	}
	f.permanent[v.ID] = permanent
	return overlay.Stored{Value: v}, nil
}

func (f *fake) Restore(vs []overlay.Value) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restored = append(f.restored, vs...)
	return nil
}

func (f *fake) Cancel(_ context.Context, _ overlay.Key, id uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancelled = append(f.cancelled, id)
	return true
}

func (f *fake) Get(_ context.Context, key overlay.Key) ([]overlay.Value, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.values[key]), f.err
}

func (f *fake) Listen(_ context.Context, key overlay.Key, fn func(overlay.Change)) ([]overlay.Value, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, nil, f.err
	}
	if f.listeners == nil {
		f.listeners = map[overlay.Key]map[*func(overlay.Change)]struct{}{}
	}
	if f.listeners[key] == nil {
		f.listeners[key] = map[*func(overlay.Change)]struct{}{}
	}
	f.listeners[key][&fn] = struct{}{}
	return slices.Clone(f.values[key]), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners[key], &fn)
	}, nil
}

func (f *fake) Node() overlay.Node { return overlay.Node{Overlay: "fake", ID: "fake"} }

func (f *fake) listening(key overlay.Key) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.listeners[key])
}

// change makes one, and tells of it.
func (f *fake) change(key overlay.Key, c overlay.Change) {
	f.mu.Lock()
	if f.values == nil {
		f.values = map[overlay.Key][]overlay.Value{}
	}
	vs := slices.DeleteFunc(slices.Clone(f.values[key]), func(v overlay.Value) bool { return v.ID == c.Value.ID })
	if !c.Expired {
		vs = append(vs, c.Value)
	}
	f.values[key] = vs
	var fns []func(overlay.Change)
	for fn := range f.listeners[key] {
		fns = append(fns, *fn)
	}
	f.mu.Unlock()
	for _, fn := range fns {
		fn(c)
	}
}
