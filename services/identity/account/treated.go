package account

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
)

// maxTreated bounds what is remembered of what was treated; the oldest is forgotten. What
// a replay could do then is little: requests and confirmations say nothing new, and device
// synchronisation has its own dates.
const maxTreated = 4096

// Digest tells an encrypted value apart: SHA-256 of what is encrypted. The value's id is
// outside of that, so that anyone can put the same bytes under another one.
type Digest [sha256.Size]byte

// treated is a bounded set, the oldest first.
type treated struct {
	has   map[Digest]struct{}
	order []Digest
	news  bool // the file lacks some
}

func (t *treated) add(d Digest) {
	if _, had := t.has[d]; had {
		return
	}
	if t.has == nil {
		t.has = map[Digest]struct{}{}
	}
	if len(t.order) >= maxTreated {
		delete(t.has, t.order[0])
		t.order = t.order[1:]
	}
	t.has[d], t.news = struct{}{}, true
	t.order = append(t.order, d)
}

func (t *treated) parse(b []byte) error {
	for line := range bytes.Lines(b) {
		var d Digest
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) != hex.EncodedLen(len(d)) {
			return errors.New("a line has not 64 hex digits")
		}
		if _, err := hex.Decode(d[:], line); err != nil {
			return err
		}
		t.add(d)
	}
	t.news = false
	return nil
}

func (t *treated) pack() []byte {
	out := make([]byte, 0, len(t.order)*(2*sha256.Size+1))
	for _, d := range t.order {
		out = append(hex.AppendEncode(out, d[:]), '\n')
	}
	return out
}

// Treated reports whether a value was treated before.
func (i *Inbox) Treated(d Digest) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, is := i.treated.has[d]
	return is
}

// Treat notes that a value was treated. [Inbox.Flush] writes it.
func (i *Inbox) Treat(d Digest) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.treated.add(d)
}

// Flush writes what was treated since the last time.
func (i *Inbox) Flush() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.treated.news {
		return nil
	}
	if err := atomicfile.Write(filepath.Join(i.acc.Dir, fileTreated), i.treated.pack(), fileMode); err != nil {
		return err
	}
	i.treated.news = false
	return nil
}

func parseLongID(s string) (id jami.LongID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%.80q is no device id", s)
	}
	copy(id[:], b)
	return id, nil
}
