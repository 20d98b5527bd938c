package overlay

import "context"

// Finder is an overlay that tells of values while it still searches.
type Finder interface {
	// Find calls fn, from one goroutine at a time, for each value of the key that is
	// found until the search or ctx ends; of a value that was changed, for each state.
	Find(ctx context.Context, key Key, fn func(Value)) error
}

// Getter is what is asked for values.
type Getter interface {
	Get(ctx context.Context, key Key) ([]Value, error)
}

// Find calls fn for each value of a key as soon as o can tell of it.
func Find(ctx context.Context, o Getter, key Key, fn func(Value)) error {
	if f, ok := o.(Finder); ok {
		return f.Find(ctx, key, fn)
	}
	vs, err := o.Get(ctx, key)
	if err != nil {
		return err
	}
	for _, v := range vs {
		fn(v)
	}
	return nil
}
