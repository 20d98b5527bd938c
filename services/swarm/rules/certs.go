// Package rules says which commits a conversation accepts: the rules of
// swarm §2.3 to §2.6 for the commits that Parley writes, and what Git says about their
// objects. Certificates are judged by package trust. It holds no state but parsed
// certificates.
package rules

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/swarm/commit"
)

// ErrInvalid is every refusal of a commit or certificate; one of package trust is wrapped.
var ErrInvalid = errors.New("commit against the rules of the conversation")

// uid is the attribute type that holds a key id in Jami's names (RFC 4519 §2.39).
const uid = "0.9.2342.19200300.100.1.1"

// maxCerts bounds the files with certificates that a Checker remembers.
const maxCerts = 1024

// pair is the files with a device's and its account's certificates, by their blobs.
type pair struct{ device, account plumbing.Hash }

// certs reads a file with certificates.
func (k *Checker) certs(t *Tree, path string) ([]*x509.Certificate, error) {
	h := t.Blobs[path]
	if c, ok := k.files[h]; ok && !h.IsZero() {
		return c, nil
	}
	text, err := t.file(path)
	if err != nil {
		return nil, err
	}
	c, err := trust.Certificates(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	if len(k.files) >= maxCerts {
		clear(k.files)
		clear(k.chains)
	}
	k.files[h] = c
	return c, nil
}

// chain is that of a commit's author: the device's own certificate from devices/, without
// whatever follows it there, and the account's with its authorities from admins/ or
// members/ (swarm §1.2). It is judged as of the commit's time: the certificates had not
// ended (swarm §2.4), and the device had not been revoked. Commits that a device wrote
// before it was revoked stay good; with the five minutes of package trust for clocks
// that differ, and for who has not heard of it yet. Stock Jami does not look at revocations
// here; that of a date in the list, RFC 5280 §5.1.2.6, is the rule for signatures of
// before. The date of a commit is its author's word: a commit that comes from elsewhere
// after the list did is to be judged as of now.
func (k *Checker) chain(c *commit.Commit, t *Tree, device, account string) (*trust.Chain, error) {
	by := pair{t.Blobs[device], t.Blobs[account]}
	chain, ok := k.chains[by]
	if !ok {
		dev, err := k.certs(t, device)
		if err != nil {
			return nil, err
		}
		acc, err := k.certs(t, account)
		if err != nil {
			return nil, err
		}
		chain, err = (&trust.Rules{AnyTime: true}).Check(append([]*x509.Certificate{dev[0]}, acc...))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		k.chains[by] = chain
	}
	if err := (&trust.Rules{At: c.Time, Revoked: k.revoked}).Recheck(chain); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return chain, nil
}

// issuer returns the account that a device's certificate says it is of, 40 hex digits or
// empty.
func issuer(dev *x509.Certificate) string {
	for _, n := range dev.Issuer.Names {
		s, ok := n.Value.(string)
		if !ok || n.Type.String() != uid {
			continue
		}
		if _, err := jami.ParseID(s); err == nil {
			return s
		}
	}
	return ""
}
