package gitwire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Fetch asks the other end of a channel for a conversation's branch. known says which commits are here
// already; haves are some of these, the newest first. It returns the branch's newest commit there, and
// what came for it: nothing where that commit is known. rw is what ends the fetch where the peer
// says nothing.
func Fetch(rw io.ReadWriter, conversation, device string, known func(plumbing.Hash) bool, haves []plumbing.Hash, lim Limits) (plumbing.Hash, Objects, error) {
	o, i := &out{w: rw}, newIn(rw)
	if err := errors.Join(o.linef("git-upload-pack /%s\x00host=%s\x00", conversation, device), o.send()); err != nil {
		return plumbing.ZeroHash, nil, err
	}
	head, err := readRefs(i)
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	if known(head) {
		return head, nil, errors.Join(o.flush(), o.send())
	}
	if err := ask(o, head, haves); err != nil {
		return plumbing.ZeroHash, nil, err
	}
	pack, err := readPack(i, lim.Pack)
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	objs, err := Unpack(pack, lim)
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	return head, objs, errors.Join(o.flush(), o.send())
}

// readRefs reads what the server has, and returns where its branch is.
func readRefs(i *in) (plumbing.Hash, error) {
	var head plumbing.Hash
	for n := 0; ; n++ {
		line, err := i.next()
		if err != nil {
			return head, unexpected(err)
		}
		if len(line) == 0 {
			break
		}
		if n >= maxRefs {
			return head, fmt.Errorf("%w: more than %d references", ErrLarge, maxRefs)
		}
		id, rest, err := oid(string(line))
		if err != nil {
			return head, err
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), "\x00")
		if name == " "+Main {
			head = id
		}
	}
	if head.IsZero() {
		return head, fmt.Errorf("%w: there is no %s", ErrWire, Main)
	}
	return head, nil
}

// ask says what is wanted, and what is here.
func ask(o *out, head plumbing.Hash, haves []plumbing.Hash) error {
	err := errors.Join(o.linef("want %s side-band-64k\n", head), o.flush(), o.send())
	for _, h := range haves[:min(len(haves), maxHaves)] {
		err = errors.Join(err, o.linef("have %s\n", h))
	}
	return errors.Join(err, o.linef("done\n"), o.send())
}

// readPack reads what is before the pack, and the pack.
func readPack(i *in, limit int64) ([]byte, error) {
	var pack []byte
	for {
		line, err := i.next()
		switch {
		case err != nil:
			return nil, unexpected(err)
		case len(line) == 0:
			if pack == nil {
				return nil, fmt.Errorf("%w: no pack", ErrWire)
			}
			return pack, nil
		case line[0] == 1:
			if int64(len(pack)+len(line)-1) > limit {
				return nil, fmt.Errorf("%w: a pack of more than %d bytes", ErrLarge, limit)
			}
			pack = append(pack, line[1:]...)
		case line[0] == 2: // for people
		case line[0] == 3:
			return nil, fmt.Errorf("%w: the peer says %.200q", ErrWire, line[1:])
		case pack == nil && (bytes.HasPrefix(line, []byte("ACK ")) || bytes.HasPrefix(line, []byte("NAK"))):
		default:
			return nil, fmt.Errorf("%w: %.40q in place of a pack", ErrWire, line)
		}
	}
}

// unexpected is an end of the channel in the midst of it.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ended too soon", ErrWire)
	}
	return err
}
