package trust

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"
)

// maxCRL bounds a revocation list in bytes: some 12,000 entries. In base64 it fits
// into a message of the bus (1 MiB).
const maxCRL = 640 << 10

// Revocations are the revocation lists that are known, by the key of their issuer.
// It is safe for concurrent use; a nil one knows of none.
type Revocations struct {
	mu   sync.RWMutex
	by   map[string]map[string]time.Time // by the issuer's SubjectPublicKeyInfo: serials, and since when
	news chan struct{}                   // closed when something is revoked; nil: nobody waits

	// By the same key: the lists that together name all of that, the newest last.
	lists map[string][]list
}

type list struct {
	der     []byte
	serials map[string]struct{}
}

// Add takes a list that issuer signed (DER). Lists only add: what one named stays
// revoked when a later one does not name it. It reports whether something is
// revoked that was not before.
func (r *Revocations) Add(der []byte, issuer *x509.Certificate) (news bool, err error) {
	l, err := ParseCRL(der, issuer)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[string]map[string]time.Time{}
	}
	key := string(issuer.RawSubjectPublicKeyInfo)
	if r.by[key] == nil {
		r.by[key] = map[string]time.Time{}
	}
	serials := make(map[string]struct{}, len(l.RevokedCertificateEntries))
	for i := range l.RevokedCertificateEntries {
		e := &l.RevokedCertificateEntries[i]
		s := e.SerialNumber.String()
		serials[s] = struct{}{}
		since, known := r.by[key][s]
		if !known || e.RevocationTime.Before(since) {
			r.by[key][s] = e.RevocationTime
		}
		news = news || !known
	}
	if news {
		r.keepLocked(key, list{bytes.Clone(der), serials})
	}
	if news && r.news != nil {
		close(r.news)
		r.news = nil
	}
	return news, nil
}

// keepLocked keeps a list, and forgets those that name nothing which it does not.
func (r *Revocations) keepLocked(key string, l list) {
	if r.lists == nil {
		r.lists = map[string][]list{}
	}
	kept := slices.DeleteFunc(r.lists[key], func(old list) bool {
		for s := range old.serials {
			if _, is := l.serials[s]; !is {
				return false
			}
		}
		return true
	})
	r.lists[key] = append(kept, l)
}

// Lists returns lists of the issuer (DER) that together name all that it revoked, in the
// order in which they were added.
func (r *Revocations) Lists(issuer *x509.Certificate) [][]byte {
	if r == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out [][]byte
	for _, l := range r.lists[string(issuer.RawSubjectPublicKeyInfo)] {
		out = append(out, l.der)
	}
	return out
}

// News returns a channel that is closed when something is revoked that is not now.
func (r *Revocations) News() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.news == nil {
		r.news = make(chan struct{})
	}
	return r.news
}

// Has reports whether a list of the issuer names the certificate.
func (r *Revocations) Has(c, issuer *x509.Certificate) bool {
	_, is := r.Since(c, issuer)
	return is
}

// Since returns when the issuer revoked the certificate, by its own clock (RFC 5280
// §5.1.2.6): the earliest time that a list names.
func (r *Revocations) Since(c, issuer *x509.Certificate) (at time.Time, revoked bool) {
	if r == nil {
		return at, false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	at, revoked = r.by[string(issuer.RawSubjectPublicKeyInfo)][c.SerialNumber.String()]
	return at, revoked
}

// ParseCRL reads a revocation list and checks that issuer signed it and may
// (RFC 5280 §5, §6.3.3). Its dates are not looked at. Its number is never negative.
func ParseCRL(der []byte, issuer *x509.Certificate) (*x509.RevocationList, error) {
	if len(der) > maxCRL {
		return nil, fmt.Errorf("revocation list: %d bytes, %d are allowed", len(der), maxCRL)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	switch {
	case !bytes.Equal(l.RawIssuer, issuer.RawSubject):
		return nil, fmt.Errorf("revocation list: it is of %.64q, not of %s", l.Issuer.CommonName, who(issuer))
	case issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0:
		return nil, fmt.Errorf("revocation list: %s may not sign one", who(issuer))
	case !slices.Contains(strong, l.SignatureAlgorithm):
		return nil, fmt.Errorf("revocation list: it is signed with %s", l.SignatureAlgorithm)
	}
	for _, e := range l.Extensions {
		if e.Critical { // a delta or an indirect list: neither names what this one would
			return nil, fmt.Errorf("revocation list: extension %v is critical and unknown", e.Id)
		}
	}
	if err := issuer.CheckSignature(l.SignatureAlgorithm, l.RawTBSRevocationList, l.Signature); err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	if n := l.Number; n != nil && n.Sign() < 0 {
		l.Number = unsigned(n)
	}
	return l, nil
}

// unsigned is the number whose bytes those of a negative DER INTEGER are: stock Jami
// makes numbers of eight random bytes, half of which look negative (§3.7).
func unsigned(n *big.Int) *big.Int {
	octets := new(big.Int).Not(n).BitLen()/8 + 1
	return new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*octets)))
}
