package gitwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
)

// maxWrite bounds a write: a message of a channel (connect-and-calls §2.1).
const maxWrite = 65535

// maxBand is the data in a packet of the side band (swarm §3.2).
const maxBand = 65515

// out collects pkt-lines, and writes whole ones alone.
type out struct {
	w io.Writer
	b bytes.Buffer
}

// line adds a line; what there is goes out first where both do not fit into one write.
func (o *out) line(payload []byte) error {
	if o.b.Len()+len(payload)+4 > maxWrite {
		if err := o.send(); err != nil {
			return err
		}
	}
	return pktline.NewEncoder(&o.b).Encode(payload)
}

func (o *out) linef(format string, args ...any) error {
	return o.line(fmt.Appendf(nil, format, args...))
}

func (o *out) flush() error {
	if o.b.Len()+4 > maxWrite {
		if err := o.send(); err != nil {
			return err
		}
	}
	return pktline.NewEncoder(&o.b).Flush()
}

// send writes what there is.
func (o *out) send() error {
	if o.b.Len() == 0 {
		return nil
	}
	_, err := o.w.Write(o.b.Bytes())
	o.b.Reset()
	return err
}

// in reads pkt-lines.
type in struct{ s *pktline.Scanner }

func newIn(r io.Reader) *in { return &in{pktline.NewScanner(r)} }

// next returns a line, which is empty for a flush and is good until the next call. The error is io.EOF
// where the peer ended between two.
func (i *in) next() ([]byte, error) {
	if i.s.Scan() {
		return i.s.Bytes(), nil
	}
	err := i.s.Err()
	var said *pktline.ErrorLine
	switch {
	case err == nil:
		return nil, io.EOF
	case errors.As(err, &said):
		return nil, fmt.Errorf("%w: the peer says %.200q", ErrWire, said.Text)
	case errors.Is(err, pktline.ErrInvalidPktLen), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: %w", ErrWire, err)
	}
	return nil, err
}

// oid reads an object id at the beginning of a line and returns what follows it.
func oid(line string) (plumbing.Hash, string, error) {
	if len(line) < 40 || strings.Trim(line[:40], "0123456789abcdef") != "" {
		return plumbing.ZeroHash, "", fmt.Errorf("%w: %.60q has no object id", ErrWire, line)
	}
	return plumbing.NewHash(line[:40]), line[40:], nil
}

// band writes what it is given as packets of side band 1.
type band struct {
	o *out
	b []byte // the packet that is being filled; its first byte is the band
}

func newBand(o *out) *band { return &band{o, append(make([]byte, 0, maxBand+1), 1)} }

func (b *band) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), maxBand+1-len(b.b))
		b.b = append(b.b, p[:k]...)
		if p = p[k:]; len(b.b) == maxBand+1 {
			if err := b.push(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// push sends the packet that is being filled.
func (b *band) push() error {
	if len(b.b) == 1 {
		return nil
	}
	err := errors.Join(b.o.line(b.b), b.o.send())
	b.b = b.b[:1]
	return err
}
