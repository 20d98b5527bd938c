package libp2p

import (
	"context"
	"errors"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// maxStored bounds what this node keeps for the whole overlay, in bytes, keys
// included (OpenDHT's bound, §1.6).
const maxStored = 64 << 20

// entryCost is what an entry takes beside its bytes, roughly.
const entryCost = 200

// errFull is what a peer's put gets then; it keeps its other copies.
var errFull = errors.New("the store is full")

// store is kad-dht's datastore in memory with a bound. What a full store is asked
// to take is refused: what is there already has the older right.
type store struct {
	max int

	mu   sync.Mutex
	m    *ds.MapDatastore
	size int
}

var _ ds.Batching = (*store)(nil)

func newStore(max int) *store { return &store{max: max, m: ds.NewMapDatastore()} }

func (s *store) cost(key ds.Key, n int) int { return len(key.String()) + n + entryCost }

func (s *store) Put(ctx context.Context, key ds.Key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := s.size + s.cost(key, len(value))
	if old, err := s.m.GetSize(ctx, key); err == nil {
		size -= s.cost(key, old)
	}
	if size > s.max {
		return errFull
	}
	s.size = size
	return s.m.Put(ctx, key, value)
}

func (s *store) Delete(ctx context.Context, key ds.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, err := s.m.GetSize(ctx, key); err == nil {
		s.size -= s.cost(key, old)
	}
	return s.m.Delete(ctx, key)
}

func (s *store) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.Get(ctx, key)
}

func (s *store) Has(ctx context.Context, key ds.Key) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.Has(ctx, key)
}

func (s *store) GetSize(ctx context.Context, key ds.Key) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.GetSize(ctx, key)
}

// Query answers from a copy.
func (s *store) Query(ctx context.Context, q query.Query) (query.Results, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.Query(ctx, q)
}

func (s *store) Sync(context.Context, ds.Key) error { return nil }

func (s *store) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(s), nil }

func (s *store) Close() error { return nil }
