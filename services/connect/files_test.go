package connect

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/channel/channeltest"
	"github.com/parley-jami/parley/services/connect/files"
)

// Of several channels that open the first is used, and the others are closed.
func TestFirst(t *testing.T) {
	type try = func(context.Context) (channel.Channel, error)
	failed := errors.New("declined")
	fails := func(context.Context) (channel.Channel, error) { return nil, failed }
	waits := func(ctx context.Context) (channel.Channel, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	opens := func(late bool) (try, *channeltest.Channel) {
		near, far := channeltest.Pipe("x", channel.Peer{})
		return func(ctx context.Context) (channel.Channel, error) {
			if late {
				<-ctx.Done()
			}
			return near, nil
		}, far
	}
	if c, err := first(t.Context(), nil); c != nil || err != nil {
		t.Errorf("nobody to ask: %v, %v", c, err)
	}
	if c, err := first(t.Context(), []try{fails, fails}); c != nil || !errors.Is(err, failed) {
		t.Errorf("all decline: %v, %v", c, err)
	}
	won, _ := opens(false)
	late, far := opens(true)
	c, err := first(t.Context(), []try{fails, late, waits, won})
	if want, _ := won(t.Context()); c != want || err != nil {
		t.Errorf("%v, %v", c, err)
	}
	if _, err := far.ReadMessage(); err != io.EOF {
		t.Errorf("the other one: %v", err)
	}
}

func TestFileErrors(t *testing.T) {
	for err, want := range map[error]*contract.Error{files.ErrName: contract.ErrBadRequest, files.ErrNoFile: contract.ErrNotFound, files.ErrDisk: contract.ErrStorage, files.ErrRunning: contract.ErrExists} {
		if got := fileError(errors.Join(err, io.EOF)); !errors.Is(got, want) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if got := fileError(io.EOF); got != io.EOF {
		t.Errorf("%v", got)
	}
}
