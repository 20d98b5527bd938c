package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
)

// openTime bounds the first search of a feed.
const openTime = 30 * time.Second

// What is remembered of one key, and of all; more is not told.
const (
	maxFeedValues = 1024
	maxFeedBytes  = 4 << 20
	maxBytes      = 128 << 20
)

var errFull = errors.New("too many keys are watched")

// event is a value that came, was changed or expired.
type event struct {
	id      uint64
	line    []byte // JSON, without its end
	expired bool
	urgent  bool
}

// feeds share one listener of the overlay among all who watch a key.
type feeds struct {
	life context.Context
	o    Overlay
	log  *zap.Logger
	max  int
	wg   sync.WaitGroup

	bytes atomic.Int64 // of all lines

	mu sync.Mutex
	by map[overlay.Key]*feed
}

type feed struct {
	*feeds
	key    overlay.Key
	opened chan struct{} // closed when err and stop are set
	err    error
	stop   func()
	joined int // guarded by the feeds' mu

	mu      sync.Mutex
	sources map[source]sum // what the overlay has
	lines   map[sum]*shown // what clients see
	ids     map[uint64]int // how many lines have an id
	bytes   int            // of lines
	digest  uint64         // of lines
	watch   map[*watcher]struct{}
}

// source tells values of a key apart, as the overlay does. Two overlays may have one
// value in two forms.
type source struct {
	writer string
	id     uint64
}

type sum [sha256.Size]byte

type shown struct {
	event
	sources int
}

// watcher is told of events; fn is called with the feed's lock held and may not block.
// digest tells all the values after the event from others, 0 is none.
type watcher struct {
	fn func(e event, digest uint64)
}

func newFeeds(life context.Context, o Overlay, log *zap.Logger, most int) *feeds {
	return &feeds{life: life, o: o, log: log, max: most, by: map[overlay.Key]*feed{}}
}

func (s *feeds) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.by)
}

// room reports whether a key is watched or could be.
func (s *feeds) room(key overlay.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[key] != nil || len(s.by) < s.max
}

// wait waits for the listeners to end, which those who joined have left.
func (s *feeds) wait() { s.wg.Wait() }

// join returns what is there, and has fn called for each event after that, until leave is
// called.
func (s *feeds) join(ctx context.Context, key overlay.Key, fn func(event, uint64)) (now []event, digest uint64, leave func(), err error) {
	f, err := s.enter(key)
	if err != nil {
		return nil, 0, nil, err
	}
	select {
	case <-f.opened:
	case <-ctx.Done():
		f.exit()
		return nil, 0, nil, ctx.Err()
	}
	if f.err != nil {
		f.exit()
		return nil, 0, nil, f.err
	}
	w := &watcher{fn}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch[w] = struct{}{}
	for _, l := range f.lines {
		now = append(now, l.event)
	}
	return now, f.digest, sync.OnceFunc(func() {
		f.mu.Lock()
		delete(f.watch, w)
		f.mu.Unlock()
		f.exit()
	}), nil
}

func (s *feeds) enter(key overlay.Key) (*feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return nil, overlay.ErrClosed
	}
	f := s.by[key]
	if f == nil {
		if len(s.by) >= s.max {
			return nil, fmt.Errorf("%w: %d", errFull, s.max)
		}
		f = &feed{feeds: s, key: key, opened: make(chan struct{}), sources: map[source]sum{}, lines: map[sum]*shown{}, ids: map[uint64]int{}, watch: map[*watcher]struct{}{}}
		s.by[key] = f
		s.wg.Go(f.open)
	}
	f.joined++
	return f, nil
}

// exit ends the feed when nobody is left.
func (f *feed) exit() {
	s := f.feeds
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.joined--; f.joined > 0 {
		return
	}
	if s.by[f.key] == f {
		delete(s.by, f.key)
	}
	s.wg.Go(func() { // stop may wait for a call
		<-f.opened
		if f.stop != nil {
			f.stop()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		s.bytes.Add(-int64(f.bytes))
		f.bytes = 0
	})
}

func (f *feed) open() {
	defer close(f.opened)
	ctx, cancel := context.WithTimeout(f.life, openTime)
	defer cancel()
	f.mu.Lock() // keeps changes until what is there is known
	defer f.mu.Unlock()
	now, stop, err := f.o.Listen(ctx, f.key, f.change)
	if err != nil {
		f.err = err
		f.feeds.mu.Lock()
		defer f.feeds.mu.Unlock()
		if f.by[f.key] == f { // the next one tries again
			delete(f.by, f.key)
		}
		return
	}
	f.stop = stop
	for _, v := range now {
		f.applyLocked(overlay.Change{Value: v})
	}
}

func (f *feed) change(c overlay.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applyLocked(c)
}

// applyLocked notes a change, and tells of it if clients see one.
func (f *feed) applyLocked(c overlay.Change) {
	src := source{c.Value.Writer, c.Value.ID}
	was, had := f.sources[src]
	if c.Expired && !had {
		return
	}
	v, err := proxyjson.FromOverlay(c.Value)
	if err != nil {
		f.log.Debug("value not told", zap.Error(err))
		return
	}
	text, err := proxyjson.Line{Value: v}.Marshal()
	if err != nil {
		f.log.Debug("value not told", zap.Error(err))
		return
	}
	is := sum(sha256.Sum256(text))
	e := event{id: v.ID, line: text, urgent: v.Priority == 0}
	if c.Expired {
		if is != was { // of one that was replaced
			return
		}
		delete(f.sources, src)
		if !f.dropLocked(was) || f.ids[v.ID] > 0 { // clients tell values apart by their id
			return
		}
		if e.line, err = (proxyjson.Line{Value: v, Expired: true}).Marshal(); err != nil {
			return
		}
		e.expired, e.urgent = true, false
		f.tellLocked(e)
		return
	}
	if had && is == was || !had && len(f.sources) >= maxFeedValues ||
		f.bytes+len(text) > maxFeedBytes || f.feeds.bytes.Load()+int64(len(text)) > maxBytes {
		return
	}
	f.sources[src] = is
	if had {
		f.dropLocked(was)
	}
	if l := f.lines[is]; l != nil {
		l.sources++
		return
	}
	f.lines[is] = &shown{e, 1}
	f.countLocked(len(text))
	f.ids[v.ID]++
	f.digest ^= is.short()
	f.tellLocked(e)
}

// dropLocked takes a source from a line, and reports whether it was the last.
func (f *feed) dropLocked(is sum) bool {
	l := f.lines[is]
	if l.sources--; l.sources > 0 {
		return false
	}
	delete(f.lines, is)
	f.countLocked(-len(l.line))
	if f.ids[l.id]--; f.ids[l.id] == 0 {
		delete(f.ids, l.id)
	}
	f.digest ^= is.short()
	return true
}

func (f *feed) countLocked(n int) {
	f.bytes += n
	f.feeds.bytes.Add(int64(n))
}

func (s sum) short() uint64 { return binary.BigEndian.Uint64(s[:]) }

func (f *feed) tellLocked(e event) {
	for w := range f.watch {
		w.fn(e, f.digest)
	}
}
