package gitwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// capabilities are what a stock server says, but for what nobody asks for (swarm §3.2).
const capabilities = "side-band side-band-64k no-progress"

// Source is a conversation that is served. It is asked from the goroutine of [Serve].
type Source interface {
	// Head is the newest commit.
	Head() plumbing.Hash
	// Has reports whether a commit is there.
	Has(commit plumbing.Hash) bool
	// Missing lists the objects of a commit and all before it, but for those of the commits in
	// haves and all before these.
	Missing(want plumbing.Hash, haves []plumbing.Hash) ([]plumbing.Hash, error)
	// Object reads one of them.
	Object(id plumbing.Hash) (Object, error)
}

// Serve serves a conversation on a channel until the peer ends it; sent is told of each commit
// that the peer has all of now.
func Serve(rw io.ReadWriter, conversation string, src Source, sent func(head plumbing.Hash)) error {
	i := newIn(rw)
	for {
		line, err := i.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(line) == 0: // libgit2 says so when it has ended
			continue
		}
		if err := request(line, conversation); err != nil {
			return err
		}
		if err := session(&out{w: rw}, i, src, sent); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// request reads the line with which a session begins.
func request(line []byte, conversation string) error {
	cmd, rest, _ := bytes.Cut(line, []byte{0})
	if string(cmd) != "git-upload-pack /"+conversation {
		return fmt.Errorf("%w: %.120q is not asked for on this channel", ErrWire, cmd)
	}
	for p := range strings.SplitSeq(strings.Trim(string(rest), "\x00"), "\x00") {
		if v, ok := strings.CutPrefix(p, "version="); ok && v != "0" && v != "2" { // who asks for 2 takes 0
			return fmt.Errorf("%w: version %.20q", ErrWire, v)
		}
	}
	return nil
}

// session is one request: what there is, what is wanted, the pack.
func session(o *out, i *in, src Source, sent func(plumbing.Hash)) error {
	head := src.Head()
	err := errors.Join(o.linef("%s HEAD\x00%s\n", head, capabilities), o.linef("%s %s\n", head, Main), o.flush(), o.send())
	if err != nil {
		return err
	}
	want, haves, err := wanted(o, i, src)
	if err != nil || want.IsZero() {
		if err == nil { // it is as new there
			sent(head)
		}
		return err
	}
	if want != head && !src.Has(want) {
		return fmt.Errorf("%w: %s is not here", ErrWire, want)
	}
	ids, err := src.Missing(want, haves)
	if err != nil {
		return err
	}
	b := newBand(o)
	if err := writePack(b, ids, src.Object); err != nil {
		return err
	}
	if err := errors.Join(b.push(), o.flush(), o.send()); err != nil {
		return err
	}
	sent(want)
	return nil
}

// wanted reads what the peer wants and has. A want of zero is none.
func wanted(o *out, i *in, src Source) (want plumbing.Hash, haves []plumbing.Hash, err error) {
	said, any := 0, false // bytes; some have was said
	for {
		line, err := i.next()
		if err != nil && (!want.IsZero() || !errors.Is(err, io.EOF)) {
			return want, nil, unexpected(err)
		} else if err != nil {
			return want, nil, err // it has seen what there is, and went
		}
		if said += len(line) + 4; said > maxAsked {
			return want, nil, fmt.Errorf("%w: more than %d bytes of what is wanted", ErrLarge, maxAsked)
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(string(line), " \n"), " ")
		switch verb {
		case "":
			if want.IsZero() {
				return want, nil, nil
			}
			if any { // an ACK where something is common, as stock says it
				if len(haves) > 0 {
					err = o.linef("ACK %s continue\n", haves[0])
				}
				err = errors.Join(err, o.linef("NAK\n"), o.send())
			}
		case "want":
			want, _, err = oid(rest)
		case "have":
			var h plumbing.Hash
			if h, _, err = oid(rest); err == nil && src.Has(h) {
				haves = append(haves, h)
			}
			any = true
		case "done":
			if want.IsZero() {
				return want, nil, fmt.Errorf("%w: done, and nothing wanted", ErrWire)
			}
			if len(haves) == 0 {
				return want, nil, errors.Join(o.linef("NAK\n"), o.send())
			}
			return want, haves, errors.Join(o.linef("ACK %s\n", haves[0]), o.send())
		default:
			return want, nil, fmt.Errorf("%w: %.40q", ErrWire, line)
		}
		if err != nil {
			return want, nil, err
		}
	}
}
