// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
)

const (
	copyEvery = 250 * time.Millisecond // between copies of a room that nobody waits for
	copyHurry = 40 * time.Millisecond  // and where somebody does: a large room takes some milliseconds to write
	copyTime  = 2 * time.Second        // for one write
	copyWait  = time.Second            // how long an answer waits for the copy, when the bus has no majority
	copyRetry = 200 * time.Millisecond // after a write that failed
	// copyMax is the largest message of the bus, but for what surrounds a value.
	copyMax = 1<<20 - 4<<10
	// copyClear bounds what a copy is when it is read, so that a damaged one cannot fill the memory.
	copyClear = 64 << 20
)

// bucket is where copies are: [bus.KV] of contract.BucketRooms is one.
type copyBucket interface {
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error)
	Keys(ctx context.Context) ([]string, error)
}

// copied is a room as another machine takes it over. Without settings it was removed.
type copied struct {
	Term     uint64            `json:"term"` // in which it was written
	Settings *room.Settings    `json:"settings,omitempty"`
	Records  []json.RawMessage `json:"records,omitempty"` // of its journal
}

// copies keep the rooms in a bucket of the bus, sealed with a key that only conferences have, so that another
// machine can go on. A copy follows each change; who must not be told before waits for it.
type copies struct {
	kv   copyBucket
	seal cipher.AEAD
	term uint64
	take func(ctx context.Context, name string) (*copied, error) // the room as it is now
	log  *zap.Logger

	mu    sync.Mutex
	rooms map[string]*copyState
	wake  chan struct{}
}

type copyState struct {
	want, have uint64 // changes, and how many of them are copied
	revision   uint64
	busy       bool
	hurry      bool          // somebody waits
	next       time.Time     // for those who do not wait
	soon       time.Time     // for those who do
	moved      chan struct{} // closed when have grows
}

func newCopies(kv copyBucket, key []byte, term uint64, log *zap.Logger) (*copies, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("copies of rooms: %w", err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("copies of rooms: %w", err)
	}
	return &copies{kv: kv, seal: seal, term: term, log: log, rooms: map[string]*copyState{}, wake: make(chan struct{}, 1)}, nil
}

func (c *copies) stateLocked(name string) *copyState {
	s := c.rooms[name]
	if s == nil {
		s = &copyState{moved: make(chan struct{})}
		c.rooms[name] = s
	}
	return s
}

// changed says that a room is another than its copy; it never waits.
func (c *copies) changed(name string) {
	if c == nil {
		return
	}
	c.mu.Lock()
	c.stateLocked(name).want++
	c.mu.Unlock()
	c.signal()
}

// settle waits until what a room is now is copied. Without a majority of the bus it gives up: the room
// goes on, on the disk of this machine alone.
func (c *copies) settle(ctx context.Context, name string) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, copyWait)
	defer cancel()
	c.mu.Lock()
	s := c.stateLocked(name)
	want := s.want
	for s.have < want {
		s.hurry = true
		moved := s.moved
		c.mu.Unlock()
		c.signal()
		select {
		case <-moved:
		case <-ctx.Done():
			c.log.Warn("answered before the room is copied to other machines", zap.String("room", name))
			return
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
}

func (c *copies) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run copies until ctx ends.
func (c *copies) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	t := time.NewTicker(copyHurry / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-t.C:
		}
		now := time.Now()
		c.mu.Lock()
		for name, s := range c.rooms {
			if s.want > s.have && !s.busy && !now.Before(s.soon) && (s.hurry || !now.Before(s.next)) {
				s.busy, s.hurry = true, false
				want := s.want
				wg.Go(func() { c.copy(ctx, name, s, want) })
			}
		}
		c.mu.Unlock()
	}
}

func (c *copies) copy(ctx context.Context, name string, s *copyState, want uint64) {
	wctx, cancel := context.WithTimeout(ctx, copyTime)
	revision, err := c.write(wctx, name, s.revision)
	cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.busy = false
	if err != nil {
		s.soon = time.Now().Add(copyRetry)
		if ctx.Err() == nil {
			c.log.Warn("room not copied to other machines; trying again", zap.String("room", name), zap.Error(err))
		}
		return
	}
	s.revision, s.have, s.next, s.soon = revision, want, time.Now().Add(copyEvery), time.Now().Add(copyHurry)
	close(s.moved)
	s.moved = make(chan struct{})
	c.signal()
}

// write puts a room where the copy of that revision was. What a later term has written stays.
func (c *copies) write(ctx context.Context, name string, revision uint64) (uint64, error) {
	r, err := c.take(ctx, name)
	if err != nil {
		return 0, err
	}
	r.Term = c.term
	value, err := c.pack(name, r)
	if err != nil {
		return 0, err
	}
	now, err := c.kv.Update(ctx, name, value, revision, 0)
	if !errors.Is(err, contract.ErrStale) {
		return now, err
	}
	there, revision, err := c.read(ctx, name)
	if err != nil {
		return 0, err
	}
	if there != nil && there.Term > c.term {
		return 0, contract.ErrStale.With("room %s: another machine has it", name)
	}
	return c.kv.Update(ctx, name, value, revision, 0)
}

// read returns the copy of a room; nil: there is none.
func (c *copies) read(ctx context.Context, name string) (*copied, uint64, error) {
	value, revision, err := c.kv.Get(ctx, name)
	if errors.Is(err, contract.ErrNotFound) {
		return nil, revision, nil
	}
	if err != nil {
		return nil, 0, err
	}
	r, err := c.unpack(name, value)
	return r, revision, err
}

// pack seals a room. Its name is bound in: no copy can be put in another's place.
func (c *copies) pack(name string, r *copied) ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("copy of room %s: %w", name, err)
	}
	var small bytes.Buffer
	z, err := gzip.NewWriterLevel(&small, gzip.BestSpeed)
	if err == nil {
		_, err = z.Write(raw)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("copy of room %s: %w", name, err)
	}
	nonce := make([]byte, c.seal.NonceSize())
	rand.Read(nonce) //nolint:errcheck // it ends the process rather than fail (crypto/rand)
	out := c.seal.Seal(nonce, nonce, small.Bytes(), []byte(name))
	if len(out) > copyMax {
		return nil, contract.ErrStorage.With("room %s: its copy of %d KiB is too large for the bus", name, len(out)>>10)
	}
	return out, nil
}

var errCopy = errors.New("the copy of a room is damaged, or sealed with another key")

func (c *copies) unpack(name string, value []byte) (*copied, error) {
	n := c.seal.NonceSize()
	if len(value) < n {
		return nil, fmt.Errorf("%s: %w", name, errCopy)
	}
	small, err := c.seal.Open(nil, value[:n], value[n:], []byte(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, errCopy)
	}
	z, err := gzip.NewReader(bytes.NewReader(small))
	var raw []byte
	if err == nil {
		raw, err = io.ReadAll(io.LimitReader(z, copyClear))
	}
	r := new(copied)
	if err == nil {
		err = json.Unmarshal(raw, r)
	}
	if err == nil && r.Settings != nil && r.Settings.Name != name {
		err = fmt.Errorf("it is of room %q", r.Settings.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, errCopy, err)
	}
	return r, nil
}
