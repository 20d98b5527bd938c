package texts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/parley-jami/parley/internal/jami"
)

// Scheme is what stands before the colon of a channel's name.
const Scheme = "msg"

// Bounds of a text.
const (
	MaxType = 255      // bytes
	MaxBody = 48 << 10 // bytes
	maxKeys = 16
	maxSkip = 64 << 10 // bytes of what is passed over in one text
	maxDeep = 16
)

// ErrWire says that the peer broke the protocol.
var ErrWire = errors.New("not the protocol of texts")

// Text is one text.
type Text struct {
	ID   uint64 // 0: the sender gave none
	Type string // MIME type
	Body string // UTF-8
}

// Name is the channel's name towards a device.
func Name(device jami.LongID) string { return Scheme + ":" + device.String() }

// parseName reads whom a channel is for.
func parseName(s string) (jami.LongID, error) {
	if len(s) <= len(Scheme) || s[:len(Scheme)+1] != Scheme+":" {
		return jami.LongID{}, fmt.Errorf("%w: channel %.80q", ErrWire, s)
	}
	id, err := jami.ParseLongID(s[len(Scheme)+1:])
	if err != nil {
		return jami.LongID{}, fmt.Errorf("%w: channel %.80q: %w", ErrWire, s, err)
	}
	return id, nil
}

// Pack returns the map.
func (t *Text) Pack() ([]byte, error) {
	if len(t.Type) > MaxType || len(t.Body) > MaxBody {
		return nil, fmt.Errorf("%w: a text of %d bytes, at most %d", ErrWire, len(t.Body), MaxBody)
	}
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	e.UseCompactInts(true)
	err := errors.Join(e.EncodeMapLen(4), e.EncodeString("id"), e.EncodeUint(t.ID), e.EncodeString("t"), e.EncodeString(t.Type),
		e.EncodeString("c"), e.EncodeString(t.Body), e.EncodeString("req"), e.EncodeNil())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWire, err)
	}
	return b.Bytes(), nil
}

// Reader reads texts from what comes on a channel. It is for one goroutine.
type Reader struct {
	r    *bufio.Reader
	d    *msgpack.Decoder
	left int // bytes that may still be passed over in this text
}

// NewReader returns a reader of a channel.
func NewReader(r io.Reader) *Reader {
	b := bufio.NewReader(r)
	return &Reader{r: b, d: msgpack.NewDecoder(b)}
}

// Next reads a text. Between two the error is io.EOF where the channel ended; after any other
// error there is nothing to read.
func (r *Reader) Next() (*Text, error) {
	if _, err := r.r.Peek(1); err != nil {
		return nil, err
	}
	t, err := r.next()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWire, err)
	}
	return t, nil
}

func (r *Reader) next() (*Text, error) {
	n, err := r.d.DecodeMapLen()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > maxKeys {
		return nil, fmt.Errorf("a map of %d", n)
	}
	t := new(Text)
	seen := map[string]bool{}
	r.left = maxSkip
	for range n {
		key, err := r.str(MaxType)
		if err != nil {
			return nil, err
		}
		if seen[key] {
			return nil, fmt.Errorf("%q twice", key)
		}
		seen[key] = true
		switch key {
		case "id":
			t.ID, err = r.d.DecodeUint64()
		case "t":
			t.Type, err = r.str(MaxType)
		case "c":
			t.Body, err = r.str(MaxBody)
		default:
			err = r.skip(maxDeep)
		}
		if err != nil {
			return nil, fmt.Errorf("%.20q: %w", key, err)
		}
	}
	if !seen["t"] || !seen["c"] || !utf8.ValidString(t.Type) || !utf8.ValidString(t.Body) {
		return nil, errors.New("no type or no text")
	}
	return t, nil
}

// str reads a str or a bin of at most limit bytes.
func (r *Reader) str(limit int) (string, error) {
	c, err := r.d.PeekCode()
	if err != nil {
		return "", err
	}
	if !msgpcode.IsString(c) && !msgpcode.IsBin(c) {
		return "", fmt.Errorf("%#x in place of a text", c)
	}
	n, err := r.d.DecodeBytesLen()
	if err != nil {
		return "", err
	}
	if n < 0 || n > limit {
		return "", fmt.Errorf("%d bytes, at most %d", n, limit)
	}
	b := make([]byte, n)
	if err := r.d.ReadFull(b); err != nil {
		return "", err
	}
	return string(b), nil
}

// skip passes over one value; the decoder's own way recurses without a bound.
func (r *Reader) skip(deep int) error {
	c, err := r.d.PeekCode()
	if err != nil {
		return err
	}
	if r.left--; r.left < 0 || deep == 0 {
		return errors.New("too much besides the text")
	}
	n := 0
	switch {
	case msgpcode.IsString(c), msgpcode.IsBin(c):
		n, err = r.d.DecodeBytesLen()
		if err != nil {
			return err
		}
		if r.left -= max(n, 0); r.left < 0 {
			return errors.New("too much besides the text")
		}
		_, err = r.r.Discard(max(n, 0))
		return err
	case msgpcode.IsFixedMap(c), c == msgpcode.Map16, c == msgpcode.Map32:
		n, err = r.d.DecodeMapLen()
		n *= 2
	case msgpcode.IsFixedArray(c), c == msgpcode.Array16, c == msgpcode.Array32:
		n, err = r.d.DecodeArrayLen()
	case msgpcode.IsExt(c):
		return errors.New("an extension type")
	default: // a number, a bool or nil
		return r.d.Skip()
	}
	if err != nil {
		return err
	}
	for range n {
		if err := r.skip(deep - 1); err != nil {
			return err
		}
	}
	return nil
}
