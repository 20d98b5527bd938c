package names

import (
	"container/list"
	"sync"
	"time"
)

// What is remembered of answers. A name keeps its account, so a find may be old;
// a name that is free may be taken the next moment.
const (
	cacheMax     = 4096
	foundFor     = time.Hour
	notFoundFor  = 10 * time.Second
	cacheKeyName = 'n'
	cacheKeyAddr = 'a'
)

// cacheKey is a question: a name or an address, at a server.
type cacheKey struct {
	kind   byte
	server string
	what   string
}

type cached struct {
	key    cacheKey
	record Record
	err    error
	until  time.Time
}

// cache forgets what was not asked for the longest when it is full.
type cache struct {
	now func() time.Time

	mu    sync.Mutex
	by    map[cacheKey]*list.Element // of *cached
	order list.List                  // the newest first
}

func newCache(now func() time.Time) *cache {
	return &cache{now: now, by: map[cacheKey]*list.Element{}}
}

func (c *cache) get(k cacheKey) (r Record, err error, ok bool) { //nolint:revive // the error is what is cached
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.by[k]
	if e == nil {
		return Record{}, nil, false
	}
	v := e.Value.(*cached)
	if !c.now().Before(v.until) {
		c.removeLocked(e)
		return Record{}, nil, false
	}
	c.order.MoveToFront(e)
	return v.record, v.err, true
}

func (c *cache) put(k cacheKey, r Record, err error) {
	keep := foundFor
	if err != nil {
		keep = notFoundFor
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.by[k]; e != nil {
		c.removeLocked(e)
	}
	for c.order.Len() >= cacheMax {
		c.removeLocked(c.order.Back())
	}
	c.by[k] = c.order.PushFront(&cached{key: k, record: r, err: err, until: c.now().Add(keep)})
}

func (c *cache) removeLocked(e *list.Element) {
	delete(c.by, e.Value.(*cached).key)
	c.order.Remove(e)
}
