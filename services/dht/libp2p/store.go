package libp2p

import (
	"container/heap"
	"container/list"
	"context"
	"encoding/base32"
	"errors"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"
)

// maxStored bounds what this node keeps for others, in bytes, keys included
// (OpenDHT's bound, §1.6). What it puts itself has bounds of its own and always
// finds room.
const maxStored = 64 << 20

// writerShare is the part of the store that one writer may fill.
const writerShare = 8

// entryCost is what an entry takes beside its bytes, roughly.
const entryCost = 200

// errFull is what a put of more than a writer's share gets.
var errFull = errors.New("more than one writer's share of the store")

// store is kad-dht's datastore in memory with a bound. A writer is who signed a
// record or provides a key. When the store is full, or a writer's share is, the
// oldest entries of the writer that takes most make room: who fills the store harms
// himself first.
type store struct {
	max  int
	self peer.ID

	mu      sync.Mutex
	m       *ds.MapDatastore
	size    int // of others' entries
	entries map[ds.Key]*list.Element
	writers map[peer.ID]*tenant
	heavy   tenants // all but self
}

// tenant is what one writer has in the store.
type tenant struct {
	id      peer.ID
	size    int
	entries list.List // of *entry, oldest first
	at      int       // in the heap
}

type entry struct {
	key  ds.Key
	size int
	by   *tenant
}

// tenants is a heap, the heaviest first.
type tenants []*tenant

func (h tenants) Len() int           { return len(h) }
func (h tenants) Less(i, j int) bool { return h[i].size > h[j].size }
func (h tenants) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *tenants) Push(x any) {
	t := x.(*tenant)
	t.at = len(*h)
	*h = append(*h, t)
}
func (h *tenants) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return t
}

var _ ds.Batching = (*store)(nil)

func newStore(max int, self peer.ID) *store {
	return &store{max: max, self: self, m: ds.NewMapDatastore(), entries: map[ds.Key]*list.Element{}, writers: map[peer.ID]*tenant{}}
}

// writerOf tells from its key whose an entry is: "/providers/KEY/WRITER" or
// "/parley/RECORD", all in base32. What is neither has the writer "".
func writerOf(key ds.Key) peer.ID {
	parts := key.List()
	last, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(parts[len(parts)-1])
	if err != nil {
		return ""
	}
	if parts[0] == "providers" {
		return peer.ID(last)
	}
	_, writer, err := parseRecordKey(string(last))
	if err != nil {
		return ""
	}
	return writer
}

func (s *store) Put(ctx context.Context, key ds.Key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	by, size := writerOf(key), len(key.String())+len(value)+entryCost
	own := by == s.self
	if !own && size > s.max/writerShare {
		return errFull
	}
	if err := s.m.Put(ctx, key, value); err != nil {
		return err
	}
	s.forgetLocked(key)
	t := s.writers[by]
	if t == nil {
		t = &tenant{id: by}
		s.writers[by] = t
		if !own {
			heap.Push(&s.heavy, t)
		}
	}
	s.entries[key] = t.entries.PushBack(&entry{key, size, t})
	t.size += size
	if own {
		return nil
	}
	s.size += size
	heap.Fix(&s.heavy, t.at)
	for t.size > s.max/writerShare {
		if err := s.evictLocked(ctx, t); err != nil {
			return err
		}
	}
	for s.size > s.max {
		if err := s.evictLocked(ctx, s.heavy[0]); err != nil {
			return err
		}
	}
	return nil
}

// evictLocked drops the oldest entry of a writer.
func (s *store) evictLocked(ctx context.Context, t *tenant) error {
	key := t.entries.Front().Value.(*entry).key
	s.forgetLocked(key)
	return s.m.Delete(ctx, key)
}

// forgetLocked takes an entry out of the account.
func (s *store) forgetLocked(key ds.Key) {
	el, ok := s.entries[key]
	if !ok {
		return
	}
	delete(s.entries, key)
	e := el.Value.(*entry)
	e.by.entries.Remove(el)
	e.by.size -= e.size
	own := e.by.id == s.self
	if !own {
		s.size -= e.size
		heap.Fix(&s.heavy, e.by.at)
	}
	if e.by.entries.Len() == 0 {
		delete(s.writers, e.by.id)
		if !own {
			heap.Remove(&s.heavy, e.by.at)
		}
	}
}

func (s *store) Delete(ctx context.Context, key ds.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetLocked(key)
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
