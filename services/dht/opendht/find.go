package opendht

import (
	"bytes"
	"context"
	"sync"

	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// Find tells of the values of a key as they are found.
func (n *Node) Find(ctx context.Context, key overlay.Key, fn func(overlay.Value)) error {
	var (
		mu    sync.Mutex // taken with the node's mu held
		queue []mapping.Found
		more  = make(chan struct{}, 1)
		done  = make(chan error, 1)
	)
	go func() { // ends with the search
		_, err := n.collect(ctx, key, wire.Query{}, func(f mapping.Found) {
			mu.Lock()
			queue = append(queue, f)
			mu.Unlock()
			select {
			case more <- struct{}{}:
			default:
			}
		})
		done <- err
	}()
	told := mapping.Set{}
	tell := func() {
		mu.Lock()
		fs := queue
		queue = nil
		mu.Unlock()
		for _, f := range fs {
			k := mapping.IDOf(&f.Value)
			old, ok := told[k]
			if ok && (f.Seq < old.Seq || bytes.Equal(f.Packed, old.Packed)) {
				continue
			}
			if told[k] = f; !f.Gone {
				fn(f.Value)
			}
		}
	}
	for {
		select {
		case <-more:
			tell()
		case err := <-done:
			tell()
			return err
		}
	}
}
