package rules

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/swarm/commit"
)

// Tree is a commit's files: path to blob. It is not changed after it was made.
type Tree struct {
	ID    plumbing.Hash
	Blobs map[string]plumbing.Hash
	Read  func(plumbing.Hash) ([]byte, error)
}

// file returns a file's bytes.
func (t *Tree) file(path string) ([]byte, error) {
	h, ok := t.Blobs[path]
	if !ok {
		return nil, fmt.Errorf("%w: %s is missing", ErrInvalid, path)
	}
	return t.Read(h)
}

// changed returns the paths that differ from old.
func (t *Tree) changed(old *Tree) []string {
	if t.ID == old.ID {
		return nil
	}
	var out []string
	for p, h := range t.Blobs {
		if old.Blobs[p] != h {
			out = append(out, p)
		}
	}
	for p := range old.Blobs {
		if _, ok := t.Blobs[p]; !ok {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// Checker checks commits. It belongs to one goroutine; the certificates that it
// has read are kept for the next commit.
type Checker struct {
	revoked *trust.Revocations
	files   map[plumbing.Hash][]*x509.Certificate
	chains  map[pair]*trust.Chain // that were found good, whatever the time
}

// NewChecker returns a Checker that refuses what is revoked; nil: nothing is.
func NewChecker(revoked *trust.Revocations) *Checker {
	return &Checker{revoked: revoked, files: map[plumbing.Hash][]*x509.Certificate{}, chains: map[pair]*trust.Chain{}}
}

// Check says whether a commit may stand in a conversation. signed is what its
// signature covers; old is the tree of its parent, nil for the first commit.
func (k *Checker) Check(c *commit.Commit, signed []byte, tree, old *Tree) (commit.Message, error) {
	m, err := commit.ParseMessage(c.Message)
	if err != nil {
		return nil, err
	}
	switch {
	case len(c.Parents) == 0 && old == nil:
		if m[commit.KeyType] != commit.TypeInitial {
			return nil, fmt.Errorf("%w: a first commit of type %q", ErrInvalid, m[commit.KeyType])
		}
		if m[commit.KeyMode] != commit.ModeInvitesOnly {
			return nil, fmt.Errorf("%w: mode %q; rooms have mode 2", ErrInvalid, m[commit.KeyMode])
		}
	case len(c.Parents) == 1 && old != nil:
		switch t := m[commit.KeyType]; t {
		case commit.TypeInitial, "member", "vote", "application/update-profile", "application/edited-message":
			return nil, fmt.Errorf("%w: type %q is not of a room's conversation", ErrInvalid, t)
		}
	default:
		return nil, fmt.Errorf("%w: %d parents", ErrInvalid, len(c.Parents))
	}
	user, err := k.author(c, signed, tree)
	if err != nil {
		return nil, err
	}
	if old == nil { // swarm §2.3
		if _, ok := tree.Blobs["admins/"+user+".crt"]; !ok || len(tree.Blobs) != 2 {
			return nil, fmt.Errorf("%w: the first commit has other files than its author's", ErrInvalid)
		}
		return m, onlyFiles(slices.Sorted(maps.Keys(tree.Blobs)), c.Device, user)
	}
	return m, k.ordinary(c, tree, old, user)
}

// author is the author check of swarm §2.4, with the chain from the device to the
// account checked too. It returns the author's Jami Id.
func (k *Checker) author(c *commit.Commit, signed []byte, tree *Tree) (string, error) {
	device := "devices/" + c.Device + ".crt"
	if _, banned := tree.Blobs["banned/"+device]; banned { // stock lets it add its certificate again
		return "", fmt.Errorf("%w: device %s is banned", ErrInvalid, c.Device)
	}
	dev, err := k.certs(tree, device)
	if err != nil {
		return "", err
	}
	user := issuer(dev[0])
	path := "admins/" + user + ".crt"
	if _, ok := tree.Blobs[path]; !ok {
		path = "members/" + user + ".crt"
	}
	chain, err := k.chain(c, tree, device, path)
	if err != nil {
		return "", err
	}
	switch key, ok := chain.Device.PublicKey.(*rsa.PublicKey); {
	case chain.DeviceID.String() != c.Device:
		return "", fmt.Errorf("%w: %s is of another device", ErrInvalid, device)
	case chain.JamiID.String() != user:
		return "", fmt.Errorf("%w: %s is of another account", ErrInvalid, path)
	case len(c.Signature) == 0:
		return "", fmt.Errorf("%w: not signed", ErrInvalid)
	case !ok:
		return "", fmt.Errorf("%w: %s has no RSA key", ErrInvalid, device)
	default:
		sum := sha512.Sum512(signed)
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA512, sum[:], c.Signature); err != nil {
			return "", fmt.Errorf("%w: signature: %w", ErrInvalid, err)
		}
	}
	return user, nil
}

// ordinary is the rule for messages (swarm §2.5): at most the author's own
// certificates change, and only to a renewed one of the same key (swarm §2.6).
func (k *Checker) ordinary(c *commit.Commit, tree, old *Tree, user string) error {
	diff := tree.changed(old)
	if err := onlyFiles(diff, c.Device, user); err != nil {
		return err
	}
	for _, p := range diff {
		now, err := k.certs(tree, p)
		if err != nil {
			return err
		}
		if _, was := old.Blobs[p]; !was {
			if p != "devices/"+c.Device+".crt" {
				return fmt.Errorf("%w: a message adds %s", ErrInvalid, p)
			}
			continue
		}
		before, err := k.certs(old, p)
		if err != nil {
			return err
		}
		if !bytes.Equal(now[0].RawSubjectPublicKeyInfo, before[0].RawSubjectPublicKeyInfo) {
			return fmt.Errorf("%w: a message changes the key of %s", ErrInvalid, p)
		}
	}
	return nil
}

// onlyFiles refuses paths that are not the author's own certificates.
func onlyFiles(paths []string, device, user string) error {
	for _, p := range paths {
		switch p {
		case "devices/" + device + ".crt", "admins/" + user + ".crt", "members/" + user + ".crt":
		default:
			return fmt.Errorf("%w: %s may not change here", ErrInvalid, p)
		}
	}
	return nil
}
