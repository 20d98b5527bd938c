package proxyclient

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/opendht/mapping"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
)

// What is taken of one key.
const (
	maxValues = 4096
	maxBytes  = 16 << 20
)

// What one answer may have: lines that are no value, and lines at once and a second.
const (
	maxBad    = 16
	lineBurst = 2 * maxValues
	lineRate  = 500
)

var (
	errLine    = fmt.Errorf("a line of more than %d bytes", maxLine)
	errGarbage = fmt.Errorf("more than %d lines that are no values", maxBad)
	errFull    = fmt.Errorf("more than %d values or %d MiB under one key", maxValues, maxBytes>>20)
)

// lineReader splits an answer into lines of at most max bytes.
type lineReader struct {
	r   *bufio.Reader
	max int
	buf []byte
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 4<<10), max: limit}
}

// wait returns when there is something to read, or why there won't be.
func (l *lineReader) wait() error {
	_, err := l.r.Peek(1)
	return err
}

// next returns a line without its end, valid until the next call. The last one may have
// no end. The error is io.EOF after it, and [errLine] for one that is too long, after
// which nothing can be read.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.buf = append(l.buf, part...)
		if len(bytes.TrimSuffix(l.buf, []byte("\n"))) > l.max {
			return nil, errLine
		}
		switch {
		case err == nil:
			return l.buf[:len(l.buf)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(l.buf) > 0:
			return l.buf, nil
		default:
			return nil, err
		}
	}
}

// heard is a value that a proxy sent, found good.
type heard struct {
	mapping.Found
	size    int
	expired bool
}

// parse reads a line and drops what is not good: nil without an error.
func (n *Node) parse(key overlay.Key, line []byte) (*heard, error) {
	l, err := proxyjson.ParseLine(line)
	if err != nil {
		return nil, err
	}
	v := l.Value
	if v.ID == 0 { // §1.4: 0 is none
		return nil, errors.New("value without an id")
	}
	var why error
	switch {
	case v.Signed():
		why = v.Verify()
	case v.Type == mapping.TypeCertificate && !v.Encrypted() && !mapping.CertificateOf(jami.ID(key), v.Data):
		why = errors.New("certificate of another key")
	}
	if why != nil {
		n.log.Debug("value of a DHT proxy dropped", zap.Error(why))
		return nil, nil
	}
	packed, err := v.Pack()
	if err != nil {
		return nil, err
	}
	return &heard{mapping.Read(key, v, packed, time.Now()), len(packed), l.Expired}, nil
}

// lines reads values from an answer to its end, which is no error, or until each wants no
// more. cancel ends the request of the answer.
func (n *Node) lines(ctx context.Context, key overlay.Key, a *answer, each func(*heard) error) error {
	r := newLineReader(a, maxLine)
	began, count, bad := time.Now(), 0, 0
	for {
		if err := r.wait(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		late := time.AfterFunc(lineTime, func() { a.cancel(errLate) })
		line, err := r.next()
		if !late.Stop() {
			return errLate
		}
		if err != nil {
			return err
		}
		if count++; count > lineBurst {
			if err := pace(ctx, began, count-lineBurst); err != nil {
				return err
			}
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		h, err := n.parse(key, line)
		switch {
		case err != nil:
			n.log.Debug("line of a DHT proxy skipped", zap.Error(err))
			if bad++; bad > maxBad {
				return errGarbage
			}
		case h != nil:
			if err := each(h); err != nil {
				return err
			}
		}
	}
}

// pace waits until so many lines may have come since the beginning.
func pace(ctx context.Context, began time.Time, lines int) error {
	d := time.Until(began.Add(time.Duration(lines) * time.Second / lineRate))
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// fetch gets the values of a key from one proxy. complete is false when there may be
// more: what came before an answer broke off, or ctx ended, counts.
func (n *Node) fetch(ctx context.Context, base string, key overlay.Key, each func(mapping.Found)) (complete bool, err error) {
	a, err := n.open(ctx, http.MethodGet, keyURL(base, key), nil, answerTime)
	if err != nil {
		return false, err
	}
	defer a.Close()
	values, size := 0, 0
	err = n.lines(ctx, key, a, func(h *heard) error {
		if h.expired {
			return nil
		}
		if values, size = values+1, size+h.size; values > maxValues || size > maxBytes {
			return errFull
		}
		each(h.Found)
		return nil
	})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errFull) || values > 0:
		n.log.Debug("values of a DHT proxy incomplete", zap.String("proxy", base), zap.Error(err))
		return false, nil
	}
	return false, fmt.Errorf("DHT proxy: %w", err)
}
