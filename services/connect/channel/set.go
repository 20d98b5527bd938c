package channel

import (
	"errors"
	"sync"
)

// Errors of [Set.Serve].
var (
	ErrMany  = errors.New("there are too many such channels")
	ErrEnded = errors.New("such channels are not served any more")
)

// Set is the channels of one kind that are being served, each by a goroutine. It is safe for
// concurrent use.
type Set struct {
	most, ofDevice int

	wg     sync.WaitGroup
	mu     sync.Mutex
	ended  bool
	open   map[Channel]struct{}
	device map[string]int // how many, by long id
}

// NewSet returns a set of at most so many channels, and so many with one device.
func NewSet(most, ofDevice int) *Set {
	return &Set{most: most, ofDevice: ofDevice, open: map[Channel]struct{}{}, device: map[string]int{}}
}

// Serve has fn serve a channel, which is closed when fn returns. After an error, [ErrMany] or
// [ErrEnded], fn is not called and the channel is as it was.
func (s *Set) Serve(c Channel, fn func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := c.Peer().DeviceLong
	switch {
	case s.ended:
		return ErrEnded
	case len(s.open) >= s.most || s.device[d] >= s.ofDevice:
		return ErrMany
	}
	s.open[c] = struct{}{}
	s.device[d]++
	s.wg.Go(func() {
		defer s.leave(c)
		fn()
	})
	return nil
}

func (s *Set) leave(c Channel) {
	c.Close() //nolint:errcheck // it has been served
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	d := c.Peer().DeviceLong
	if s.device[d]--; s.device[d] <= 0 {
		delete(s.device, d)
	}
}

// Close closes all channels, waits for who serves them, and takes no more.
func (s *Set) Close() {
	s.mu.Lock()
	s.ended = true
	for c := range s.open {
		c.Close() //nolint:errcheck // it ends either way
	}
	s.mu.Unlock()
	s.wg.Wait()
}
