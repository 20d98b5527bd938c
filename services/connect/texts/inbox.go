package texts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
)

// Bounds of channels that peers keep open.
const (
	maxChannels       = 4096
	maxChannelsDevice = 2
)

// A text that cannot be taken now is tried again after such a time, so often. Meanwhile the
// channel is not read, which holds the sender back.
const (
	againAfter = time.Second
	tries      = 30
)

// Take hands a text on. After an error it is tried again.
type Take func(ctx context.Context, account jami.ID, from channel.Peer, t *Text) error

// Inbox takes what devices write. It is safe for concurrent use, and implements
// [channel.Handler].
type Inbox struct {
	take  Take
	log   *zap.Logger
	again time.Duration

	ctx  context.Context //nolint:containedctx // ends what is taken, with Close
	stop context.CancelFunc
	open *channel.Set
}

// NewInbox returns an inbox. It works until Close.
func NewInbox(take Take, log *zap.Logger) *Inbox {
	in := &Inbox{take: take, log: log, again: againAfter, open: channel.NewSet(maxChannels, maxChannelsDevice)}
	in.ctx, in.stop = context.WithCancel(context.Background())
	return in
}

// Close ends all channels and waits.
func (in *Inbox) Close() {
	in.stop()
	in.open.Close()
}

// Accept implements [channel.Handler].
func (in *Inbox) Accept(account jami.ID, c channel.Channel) error {
	if _, err := parseName(c.Name()); err != nil {
		return err
	}
	return in.open.Serve(c, func() {
		if err := in.read(account, c); !errors.Is(err, io.EOF) && in.ctx.Err() == nil {
			in.log.Info("channel of texts ended", zap.Stringer("jami_id", c.Peer().Account), zap.Error(err))
		}
	})
}

// read takes texts until the channel ends.
func (in *Inbox) read(account jami.ID, c channel.Channel) error {
	r := NewReader(c)
	for {
		t, err := r.Next()
		if err != nil {
			return err
		}
		for n := 1; ; n++ {
			if err = in.take(in.ctx, account, c.Peer(), t); err == nil {
				break
			}
			if n >= tries {
				return fmt.Errorf("a text could not be taken: %w", err)
			}
			select {
			case <-in.ctx.Done():
				return in.ctx.Err()
			case <-time.After(in.again):
			}
		}
	}
}
