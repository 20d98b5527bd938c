package proxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
)

// behind is how many events a listener may be behind.
const behind = 256

// lines writes values, one a line, at once.
type lines struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	most  time.Duration // that a reader has to take one
	begun bool
}

func newLines(w http.ResponseWriter, most time.Duration) *lines {
	return &lines{w: w, c: http.NewResponseController(w), most: most}
}

// begin sends the header.
func (l *lines) begin() error {
	if l.begun {
		return nil
	}
	l.begun = true
	l.w.Header().Set("Content-Type", "application/json")
	l.w.Header().Set("Cache-Control", "no-store")
	l.w.Header().Set("X-Accel-Buffering", "no") // for nginx: lines are not to be collected
	l.w.WriteHeader(http.StatusOK)
	return l.flush(nil)
}

// write sends a line. A reader that does not take it in time gets no more.
func (l *lines) write(text []byte) error {
	if err := l.begin(); err != nil {
		return err
	}
	return l.flush(append(bytes.Clone(text), '\n'))
}

func (l *lines) flush(text []byte) error {
	if err := l.deadline(time.Now().Add(l.most)); err != nil { // the kernel's clock
		return err
	}
	if _, err := l.w.Write(text); err != nil {
		return err
	}
	if err := l.c.Flush(); err != nil {
		return err
	}
	return l.deadline(time.Time{})
}

// deadline bounds writing; a recorder of tests knows none.
func (l *lines) deadline(at time.Time) error {
	if err := l.c.SetWriteDeadline(at); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// get answers with the values of a key as they are found.
func (p *Proxy) get(w http.ResponseWriter, r *http.Request) (string, *httpapi.Answer) {
	key, no := p.keyOf(r)
	if no != nil {
		return "", no
	}
	return p.find(r, newLines(w, p.writeTime), key)
}

// find writes the values of a key.
func (p *Proxy) find(r *http.Request, out *lines, key overlay.Key) (string, *httpapi.Answer) {
	ctx, cancel := context.WithTimeout(r.Context(), getTime)
	defer cancel()
	stop := context.AfterFunc(p.life, cancel)
	defer stop()
	told := map[sum]bool{} // two overlays may have one value
	var failed error
	err := overlay.Find(ctx, p.o.Overlay, key, func(v overlay.Value) {
		x, err := proxyjson.FromOverlay(v)
		if err != nil {
			p.Log.Debug("value not told", zap.Error(err))
			return
		}
		text, err := proxyjson.Line{Value: x}.Marshal()
		is := sum(sha256.Sum256(text))
		if err != nil || failed != nil || told[is] {
			return
		}
		told[is] = true
		if failed = out.write(text); failed != nil {
			cancel()
		}
	})
	p.trace("values found", r, key, zap.Int("values", len(told)), zap.NamedError("unwritten", failed), zap.Error(err))
	switch {
	case failed != nil:
		return resultSlow, nil
	case err != nil:
		x := p.unavailable(err)
		return "", &x
	}
	if err := out.begin(); err != nil {
		return resultSlow, nil
	}
	return httpapi.OK, nil
}

// unavailable says that the overlay can't be asked.
func (p *Proxy) unavailable(err error) httpapi.Answer {
	switch {
	case errors.Is(err, overlay.ErrClosed), errors.Is(err, context.Canceled):
		return p.Refuse(http.StatusServiceUnavailable, resultOverlay, "the node is not ready; try again")
	case errors.Is(err, overlay.ErrQuota), errors.Is(err, errFull):
		x := p.Refuse(http.StatusServiceUnavailable, resultFull, err.Error()+"; try again later, or another proxy")
		x.Wait = time.Minute
		return x
	}
	p.Log.Error("overlay failed", zap.Error(err))
	return p.Refuse(http.StatusInternalServerError, httpapi.Error, "Internal server error")
}

// listen tells of the values of a key and of each change, until the client goes.
func (p *Proxy) listen(w http.ResponseWriter, r *http.Request) (result string, no *httpapi.Answer) {
	key, no := p.keyOf(r)
	if no != nil {
		return "", no
	}
	if !p.feeds.room(key) {
		x := p.unavailable(errFull)
		return "", &x
	}
	if p.life.Err() != nil {
		x := p.unavailable(overlay.ErrClosed)
		return "", &x
	}
	out := newLines(w, p.writeTime)
	// What is read in the background tells that the client has gone; it has no end.
	if err := out.c.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return resultEnded, nil
	}
	if err := out.begin(); err != nil {
		return resultEnded, nil
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	stop := context.AfterFunc(p.life, func() { cancel(overlay.ErrClosed) })
	defer stop()
	events := make(chan event, behind)
	now, _, leave, err := p.feeds.join(ctx, key, func(e event, _ uint64) {
		select {
		case events <- e:
		default:
			cancel(errSlow)
		}
	})
	if err != nil {
		if ctx.Err() != nil {
			return resultEnded, nil
		}
		x := p.unavailable(err)
		return "", &x // cut off: the client tries again
	}
	defer leave()
	p.trace("listener came", r, key, zap.Int("values", len(now)))
	defer func() { p.trace("listener went", r, key, zap.String("result", result)) }()
	tell := func(e event) error {
		err := out.write(e.line)
		p.trace("value told", r, key, zap.Uint64("id", e.id), zap.Bool("expired", e.expired), zap.Error(err))
		return err
	}
	slices.SortFunc(now, func(a, b event) int { return cmp.Compare(a.id, b.id) })
	for _, e := range now {
		if err := tell(e); err != nil {
			return resultSlow, nil
		}
	}
	for {
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errSlow) {
				return resultSlow, nil
			}
			return resultEnded, nil
		case e := <-events:
			if err := tell(e); err != nil {
				return resultSlow, nil
			}
		}
	}
}

var errSlow = errors.New("the reader is too slow")
