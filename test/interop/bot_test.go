//go:build interop

package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parley-jami/parley/bus/contract"
	parley "github.com/parley-jami/parley/sdk/go"
)

// bot is a program on the bus that says a tone and keeps what it hears of the mix.
type bot struct {
	room *parley.Room
	mu   sync.Mutex
	pcm  []int16
	at   []time.Time // of each frame, to measure gaps by the clock
	lost int
}

func (n *node) startBot(name string, freq float64) *bot {
	n.t.Helper()
	creds := filepath.Join(n.t.TempDir(), name+".creds")
	n.parley("bot", "create", name, "--room", "main", "--allow", "listen,speak,chat", "--out", creds)
	room, err := parley.Connect(parley.Options{Creds: creds, URL: n.busURL()})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &bot{room: room}
	if _, err := room.Join(ctx, name); err != nil {
		n.t.Fatalf("bot: %v", err)
	}
	audio, err := room.Listen(ctx, contract.Listen{Others: contract.FormatPCM48}, 0)
	if err != nil {
		n.t.Fatalf("bot: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { b.hear(ctx, audio) })
	wg.Go(func() { b.speak(ctx, n.t, freq) })
	n.t.Cleanup(func() {
		cancel()
		wg.Wait()
		leave, done := context.WithTimeout(context.Background(), 3*time.Second)
		defer done()
		if _, err := parley.Call(leave, room, contract.RoomLeave, contract.Leave{}); err != nil {
			n.t.Logf("bot leaves: %v", err)
		}
		room.Close()
	})
	return b
}

func (b *bot) hear(ctx context.Context, audio *parley.Audio) {
	defer audio.Close()
	for {
		f, err := audio.Read(ctx)
		if err != nil {
			return
		}
		b.mu.Lock()
		b.pcm = append(b.pcm, samples(f.Data)...)
		b.at = append(b.at, time.Now())
		b.lost += f.Dropped
		b.mu.Unlock()
	}
}

// speak keeps about 200 ms of the tone queued. A refusal while a part of the
// node is away is tried again with the next frame.
func (b *bot) speak(ctx context.Context, t *testing.T, freq float64) {
	wave := tone(freq, -20, 10)
	pcm := make([]byte, 2*len(wave))
	for i, v := range wave {
		binary.LittleEndian.PutUint16(pcm[2*i:], uint16(v))
	}
	const chunk = 2 * rate / 10 // 100 ms
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for at := 0; ; at = (at + chunk) % len(pcm) {
		if _, _, err := b.room.Say(ctx, contract.FormatPCM48, pcm[at:at+chunk]); err != nil && ctx.Err() == nil && !errors.Is(err, nats.ErrNoResponders) {
			t.Logf("bot: %v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (b *bot) length() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pcm), nil
}

func (b *bot) from(at int) ([]int16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.pcm[at:]), nil
}

// gapSince returns the longest time between two frames after a moment.
func (b *bot) gapSince(t time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var longest time.Duration
	last := t
	for _, at := range b.at {
		if at.Before(t) {
			continue
		}
		longest = max(longest, at.Sub(last))
		last = at
	}
	return max(longest, time.Since(last))
}
