// Package commit is the byte form of a conversation's commits: the raw Git commit
// object with Jami's signature header, and the JSON message in it. It knows bytes
// alone: no repository, key or clock.
//
// A commit object (swarm §1.8), one line each, then a blank line and the message
// without a final newline:
//
//	tree       40 hex
//	parent     40 hex, none in the first commit of a conversation, two in a merge
//	author     name <device id, 64 hex> unix seconds +0000
//	committer  the same
//	signature  base64 of RSA PKCS#1 v1.5 with SHA-512 over all other bytes
//
// go-git encodes only PGP signatures, hence an encoder of our own.
package commit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// MaxSize bounds a raw commit, in bytes. The node's own have 64 KiB at most, a body of 8192
// bytes that JSON escapes sixfold; stock daemons set their texts no bound.
const MaxSize = 1 << 20

// maxParents is what a merge has (swarm §2.2).
const maxParents = 2

// ErrMalformed is every refusal of [Parse] and [ParseMessage].
var ErrMalformed = errors.New("malformed commit")

// Commit is one commit.
type Commit struct {
	Tree      plumbing.Hash
	Parents   []plumbing.Hash
	Name      string // display name of the author
	Device    string // long device id of the author, 64 hex
	Time      time.Time
	Signature []byte // empty: not signed
	Message   []byte
}

// Unsigned returns the bytes that the signature covers. Name loses what would
// break the author line; an empty one becomes the device id (swarm §1.5).
func (c *Commit) Unsigned() []byte {
	var b bytes.Buffer
	c.header(&b)
	b.WriteByte('\n')
	b.Write(c.Message)
	return b.Bytes()
}

// Raw returns the object with its signature.
func (c *Commit) Raw() []byte {
	var b bytes.Buffer
	c.header(&b)
	if len(c.Signature) > 0 {
		b.WriteString("signature ")
		b.WriteString(base64.StdEncoding.EncodeToString(c.Signature))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.Write(c.Message)
	return b.Bytes()
}

func (c *Commit) header(b *bytes.Buffer) {
	fmt.Fprintf(b, "tree %s\n", c.Tree)
	for _, p := range c.Parents {
		fmt.Fprintf(b, "parent %s\n", p)
	}
	name := CleanName(c.Name)
	if name == "" {
		name = c.Device
	}
	who := fmt.Sprintf("%s <%s> %d +0000\n", name, c.Device, c.Time.Unix())
	b.WriteString("author " + who + "committer " + who)
}

// CleanName removes from a display name what has a meaning in an author line:
// angle brackets and control characters.
func CleanName(name string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '<' || r == '>' || r < ' ' || r == 0x7f || r == '\uFFFD' {
			return -1
		}
		return r
	}, name))
}

// Parse reads a raw commit. signed is what its signature covers; headers that
// are not of the table above are passed over but stay part of it.
func Parse(raw []byte) (c *Commit, signed []byte, err error) {
	if len(raw) > MaxSize {
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(raw))
	}
	head, msg, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		return nil, nil, fmt.Errorf("%w: no message", ErrMalformed)
	}
	p := parser{c: &Commit{Message: msg}, signed: make([]byte, 0, len(raw))}
	for _, line := range bytes.Split(head, []byte("\n")) {
		if err := p.line(line); err != nil {
			return nil, nil, err
		}
	}
	if err := p.end(); err != nil {
		return nil, nil, err
	}
	return p.c, append(append(p.signed, '\n'), msg...), nil
}

// parser reads the header lines in their fixed order.
type parser struct {
	c         *Commit
	signed    []byte
	stage     int // next of tree, parent or author, committer, others
	inSig     bool
	signature []byte
	author    string
}

const (
	stageTree = iota
	stageAuthor
	stageCommitter
	stageRest
)

func (p *parser) line(line []byte) error {
	if len(line) > 0 && line[0] == ' ' { // a continuation, as in Git's own multi-line headers
		if p.stage != stageRest {
			return fmt.Errorf("%w: stray continuation line", ErrMalformed)
		}
		if p.inSig {
			p.signature = append(p.signature, line[1:]...)
			return nil
		}
		p.keep(line)
		return nil
	}
	key, val, ok := strings.Cut(string(line), " ")
	if !ok || key == "" {
		return fmt.Errorf("%w: header %.20q", ErrMalformed, line)
	}
	p.inSig = false
	var err error
	switch {
	case p.stage == stageTree && key == "tree":
		p.c.Tree, err = hash(val)
		p.stage = stageAuthor
	case p.stage == stageAuthor && key == "parent" && len(p.c.Parents) < maxParents:
		var h plumbing.Hash
		h, err = hash(val)
		p.c.Parents = append(p.c.Parents, h)
	case p.stage == stageAuthor && key == "author":
		p.author = val
		p.c.Name, p.c.Device, p.c.Time, err = person(val)
		p.stage = stageCommitter
	case p.stage == stageCommitter && key == "committer":
		if _, _, _, err = person(val); err == nil && val != p.author {
			err = fmt.Errorf("%w: committer differs from author", ErrMalformed)
		}
		p.stage = stageRest
	case p.stage == stageRest && key == "signature":
		if p.signature != nil {
			return fmt.Errorf("%w: two signatures", ErrMalformed)
		}
		p.inSig, p.signature = true, []byte(val)
		return nil
	case p.stage == stageRest && key != "tree" && key != "parent" && key != "author" && key != "committer":
	default:
		err = fmt.Errorf("%w: header %.20q out of order", ErrMalformed, key)
	}
	p.keep(line)
	return err
}

func (p *parser) keep(line []byte) { p.signed = append(append(p.signed, line...), '\n') }

func (p *parser) end() error {
	if p.stage != stageRest {
		return fmt.Errorf("%w: header incomplete", ErrMalformed)
	}
	if p.signature == nil {
		return nil
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(string(p.signature))
	if err != nil || len(sig) == 0 {
		return fmt.Errorf("%w: signature is not base64", ErrMalformed)
	}
	p.c.Signature = sig
	return nil
}

func hash(s string) (plumbing.Hash, error) {
	if !isHex(s, 40) {
		return plumbing.ZeroHash, fmt.Errorf("%w: object id %.50q", ErrMalformed, s)
	}
	return plumbing.NewHash(s), nil
}

// person reads "name <device> seconds +0000".
func person(s string) (name, device string, at time.Time, err error) {
	bad := fmt.Errorf("%w: author %.120q", ErrMalformed, s)
	name, rest, ok := strings.Cut(s, " <")
	if !ok || name == "" || strings.ContainsAny(name, "<>") {
		return "", "", at, bad
	}
	device, rest, ok = strings.Cut(rest, "> ")
	if !ok || !isHex(device, 64) {
		return "", "", at, bad
	}
	secs, zone, ok := strings.Cut(rest, " ")
	n, err := strconv.ParseInt(secs, 10, 64)
	if !ok || err != nil || n < 0 || n > 1<<40 || strconv.FormatInt(n, 10) != secs || zone != "+0000" {
		return "", "", at, bad
	}
	return name, device, time.Unix(n, 0).UTC(), nil
}

// isHex reports whether s is n lower-case hex digits.
func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}

// IsID reports whether s can be a commit id: 40 lower-case hex digits.
func IsID(s string) bool { return isHex(s, 40) }
