package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/swarm/commit"
)

// Modes of conversations (swarm §1.3).
const (
	ModeOneToOne = "0"
	modePublic   = "3"
)

// Conversation is what its first commit says.
type Conversation struct {
	Mode    string
	Creator string // Jami Id
	Other   string // Jami Id of who was invited with it; of a one-to-one conversation alone
}

// Past says of a commit before another one who wrote it and of what type it is; false: there
// is none.
type Past func(id string) (author, typ string, ok bool)

// First judges the first commit of a conversation (swarm §2.3).
func (k *Checker) First(c *commit.Commit, signed []byte, tree *Tree) (*Conversation, error) {
	m, err := commit.ParseMessage(c.Message)
	if err != nil {
		return nil, err
	}
	if len(c.Parents) != 0 || m[commit.KeyType] != commit.TypeInitial {
		return nil, fmt.Errorf("%w: a first commit of type %.40q", ErrInvalid, m[commit.KeyType])
	}
	mode := m[commit.KeyMode]
	if mode < ModeOneToOne || mode > modePublic || len(mode) != 1 {
		return nil, fmt.Errorf("%w: mode %.20q", ErrInvalid, mode)
	}
	user, err := k.author(c, signed, tree)
	if err != nil {
		return nil, err
	}
	conv := &Conversation{Mode: mode, Creator: user}
	if mode == ModeOneToOne {
		conv.Other = m[commit.KeyInvited]
		if _, err := jami.ParseID(conv.Other); err != nil {
			return nil, fmt.Errorf("%w: a conversation of one with %.50q", ErrInvalid, conv.Other)
		}
	}
	for p := range tree.Blobs {
		switch p {
		case "admins/" + user + ".crt", "devices/" + c.Device + ".crt", "CRLs/" + user:
		case "invited/" + conv.Other:
			if conv.Other == "" || conv.Other == user || !tree.empty(p) {
				return nil, fmt.Errorf("%w: %.120q in a first commit", ErrInvalid, p)
			}
		default:
			return nil, fmt.Errorf("%w: %.120q in a first commit", ErrInvalid, p)
		}
	}
	if _, ok := tree.Blobs["admins/"+user+".crt"]; !ok {
		return nil, fmt.Errorf("%w: its creator is no administrator", ErrInvalid)
	}
	return conv, nil
}

// change is a commit that is judged.
type change struct {
	k         *Checker
	conv      *Conversation
	c         *commit.Commit
	m         commit.Message
	user      string // Jami Id of the author
	now, old  *Tree
	paths     []string // that differ
	devicePEM string   // devices/AUTHOR.crt
}

// Next judges any other commit; parents are the trees of its parents (swarm §2.4, §2.5). It
// returns its author's Jami Id. The message of a merge is nil.
func (k *Checker) Next(conv *Conversation, c *commit.Commit, signed []byte, tree *Tree, parents []*Tree, past Past) (user string, m commit.Message, err error) {
	if len(parents) != len(c.Parents) || len(parents) == 0 {
		return "", nil, fmt.Errorf("%w: %d parents", ErrInvalid, len(c.Parents))
	}
	if len(parents) == 2 {
		user, err = k.merge(c, signed, tree, parents)
		return user, nil, err
	}
	if m, err = commit.ParseMessage(c.Message); err != nil {
		return "", nil, err
	}
	x := &change{k: k, conv: conv, c: c, m: m, now: tree, old: parents[0], devicePEM: "devices/" + c.Device + ".crt"}
	standing := tree
	if m[commit.KeyType] == commit.TypeMember && m[commit.KeyAction] == "remove" {
		standing = x.old // who leaves is no member after it
	}
	if x.user, err = k.author(c, signed, standing); err != nil {
		return "", nil, err
	}
	x.paths = tree.changed(x.old)
	return x.user, m, x.judge(past)
}

func (x *change) judge(past Past) error {
	switch x.m[commit.KeyType] {
	case "", commit.TypeInitial:
		return fmt.Errorf("%w: type %q behind the first commit", ErrInvalid, x.m[commit.KeyType])
	case commit.TypeMember:
		return x.member()
	case commit.TypeVote:
		return x.vote()
	case commit.TypeProfile:
		if _, ok := x.now.Blobs["admins/"+x.user+".crt"]; !ok {
			return x.bad("a profile by who is no administrator")
		}
		return x.only("profile.vcf", x.devicePEM)
	case commit.TypeEdited:
		if author, typ, ok := past(x.m["edit"]); !ok || author != x.user || typ != commit.TypeText && typ != commit.TypeFile {
			return x.bad("an edit of what is no message of its author")
		}
	}
	return x.k.ordinary(x.c, x.now, x.old, x.user)
}

// merge judges one: it takes each file as one of the sides has it (swarm §2.2).
func (k *Checker) merge(c *commit.Commit, signed []byte, tree *Tree, parents []*Tree) (string, error) {
	user, err := k.author(c, signed, tree)
	if err != nil {
		return "", err
	}
	other := map[string]bool{}
	for _, p := range tree.changed(parents[0]) {
		other[p] = true
	}
	for _, p := range tree.changed(parents[1]) {
		if other[p] {
			return "", fmt.Errorf("%w: a merge has %.120q as neither side has it", ErrInvalid, p)
		}
	}
	return user, nil
}

func (x *change) bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// only refuses changes of other files. Those of the author's certificates keep their keys.
func (x *change) only(paths ...string) error {
	for _, p := range x.paths {
		if !slices.Contains(paths, p) {
			return x.bad("%.120q may not change here", p)
		}
	}
	return x.sameKey(x.devicePEM)
}

// sameKey refuses another key in a file with a certificate that was there (swarm §2.6).
func (x *change) sameKey(path string) error {
	was, had := x.old.Blobs[path]
	if is, has := x.now.Blobs[path]; !had || !has || is == was {
		return nil
	}
	now, err := x.k.certs(x.now, path)
	if err != nil {
		return err
	}
	before, err := x.k.certs(x.old, path)
	if err != nil {
		return err
	}
	if string(now[0].RawSubjectPublicKeyInfo) != string(before[0].RawSubjectPublicKeyInfo) {
		return x.bad("another key in %s", path)
	}
	return nil
}

func (x *change) had(path string) bool { _, ok := x.old.Blobs[path]; return ok }
func (x *change) has(path string) bool { _, ok := x.now.Blobs[path]; return ok }

// empty reports whether a file has no bytes.
func (t *Tree) empty(path string) bool {
	b, err := t.file(path)
	return err == nil && len(b) == 0
}

func (x *change) member() error {
	uri := x.m[commit.KeyURI]
	action := x.m[commit.KeyAction]
	if _, err := jami.ParseID(uri); err != nil && action != "ban" && action != "unban" {
		return x.bad("a member %.50q", uri)
	}
	switch action {
	case "add":
		return x.add(uri)
	case "join":
		return x.join(uri)
	case "remove":
		return x.leave(uri)
	case "ban", "unban":
		return x.resolve(action, uri)
	}
	return x.bad("a member's %.40q", action)
}

func (x *change) add(uri string) error {
	switch {
	case x.conv.Mode == ModeOneToOne && uri != x.conv.Other && uri != x.conv.Creator:
		return x.bad("a third one in a conversation of two")
	case uri == x.user:
		return x.bad("who invites itself")
	case !x.has("invited/"+uri) || !x.now.empty("invited/"+uri):
		return x.bad("an invitation that is not there")
	case x.had("banned/members/"+uri+".crt") || x.had("banned/admins/"+uri+".crt"):
		return x.bad("an invitation of who is banned")
	}
	return x.only("invited/"+uri, x.devicePEM, "CRLs/"+x.user)
}

func (x *change) join(uri string) error {
	card := "members/" + uri + ".crt"
	switch {
	case uri != x.user:
		return x.bad("somebody joins for another")
	case !x.had("invited/"+uri) || x.has("invited/"+uri):
		return x.bad("who joins was not invited")
	case x.had(card) || !x.has(card) || !x.has(x.devicePEM):
		return x.bad("who joins does not become a member by it")
	}
	return x.only("invited/"+uri, card, x.devicePEM)
}

// leave takes the author out. Stock lets anybody be taken out so (swarm §2.5): here who leaves says
// it itself.
func (x *change) leave(uri string) error {
	if uri != x.user {
		return x.bad("somebody leaves for another")
	}
	for _, p := range x.paths {
		switch p {
		case x.devicePEM, "admins/" + uri + ".crt", "members/" + uri + ".crt", "CRLs/" + uri, "invited/" + uri:
			continue
		}
		if !strings.HasPrefix(p, "devices/") || !x.had(p) || x.has(p) || !x.deviceOf(x.old, p, uri) {
			return x.bad("who leaves changes %.120q", p)
		}
	}
	if x.has("admins/"+uri+".crt") || x.has("members/"+uri+".crt") {
		return x.bad("who leaves stays")
	}
	return x.sameKey(x.devicePEM)
}

// deviceOf reports whether a file has the certificate of an account's device.
func (x *change) deviceOf(t *Tree, path, uri string) bool {
	certs, err := x.k.certs(t, path)
	return err == nil && issuer(certs[0]) == uri
}

// voteKinds are who can be voted about.
var voteKinds = []string{"members", "admins", "invited", "devices"}

// vote is one administrator's word on whether somebody is to be banned.
func (x *change) vote() error {
	if len(x.paths) == 0 {
		return nil
	}
	if !x.had("admins/" + x.user + ".crt") {
		return x.bad("a vote by who is no administrator")
	}
	votes := 0
	for _, p := range x.paths {
		if p == x.devicePEM && !x.had(p) {
			continue
		}
		votes++
		f := strings.Split(p, "/")
		if len(f) != 5 || f[0] != "votes" || f[1] != "ban" && f[1] != "unban" || !slices.Contains(voteKinds, f[2]) || f[4] != x.user {
			return x.bad("a vote changes %.200q", p)
		}
		if x.had(p) || !x.has(p) || !x.now.empty(p) {
			return x.bad("a vote that was there, or says something")
		}
		kind, target := f[2], f[3]
		switch {
		case kind == "devices" && (target == x.c.Device || !x.had("devices/"+target+".crt") && !x.had("banned/devices/"+target+".crt")):
			return x.bad("a vote about a device that is not there")
		case kind != "devices" && target == x.user:
			return x.bad("a vote about oneself")
		case kind != "devices" && f[1] == "ban" && !x.had("members/"+target+".crt") && !x.had("admins/"+target+".crt") && !x.had("invited/"+target):
			return x.bad("a vote about who is not there")
		}
	}
	if votes != 1 {
		return x.bad("%d votes at once", votes)
	}
	return nil
}

// resolve is what votes come to.
func (x *change) resolve(action, target string) error {
	if !x.had("admins/" + x.user + ".crt") {
		return x.bad("votes are counted by who is no administrator")
	}
	voters, moved := 0, false
	for _, p := range x.paths {
		f := strings.Split(p, "/")
		switch {
		case p == x.devicePEM && p != "devices/"+target+".crt":
		case len(f) == 5 && f[0] == "votes":
			if f[1] != action || !slices.Contains(voteKinds, f[2]) || f[3] != target || !x.had(p) || x.has(p) {
				return x.bad("votes about others go: %.200q", p)
			}
			if x.had("admins/" + f[4] + ".crt") {
				voters++
			}
		case p == "admins/"+target+".crt", p == "members/"+target+".crt", p == "CRLs/"+target, p == "invited/"+target:
		case f[0] == "banned" && len(f) == 3:
			if want := target + ".crt"; f[1] == "invited" && f[2] != target || f[1] != "invited" && f[2] != want {
				return x.bad("another one is banned: %.120q", p)
			}
			if x.has(p) != (action == "ban") {
				return x.bad("a %s that does not", action)
			}
			moved = true
		case f[0] == "devices" && len(f) == 2:
			t := x.now
			if action == "ban" {
				t = x.old
			}
			if x.had(p) != (action == "ban") || p != "devices/"+target+".crt" && !x.deviceOf(t, p, target) {
				return x.bad("a device of another: %.120q", p)
			}
		default:
			return x.bad("votes change %.120q", p)
		}
	}
	admins := 0
	for p := range x.old.Blobs {
		if strings.HasPrefix(p, "admins/") {
			admins++
		}
	}
	if !moved || 2*voters < admins {
		return x.bad("%d votes of %d administrators", voters, admins)
	}
	return nil
}

// Author is the account whose device wrote a commit, as its certificate in the commit's tree says;
// empty: there is none.
func (k *Checker) Author(c *commit.Commit, tree *Tree) string {
	certs, err := k.certs(tree, "devices/"+c.Device+".crt")
	if err != nil {
		return ""
	}
	return issuer(certs[0])
}
