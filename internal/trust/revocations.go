package trust

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
)

// maxCRL bounds a revocation list in bytes: some 20,000 entries.
const maxCRL = 1 << 20

// Revocations are the revocation lists that are known, by the key of their issuer.
// It is safe for concurrent use; a nil one knows of none.
type Revocations struct {
	mu sync.RWMutex
	by map[string]map[string]struct{} // by the issuer's SubjectPublicKeyInfo: serials
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
		r.by = map[string]map[string]struct{}{}
	}
	key := string(issuer.RawSubjectPublicKeyInfo)
	if r.by[key] == nil {
		r.by[key] = map[string]struct{}{}
	}
	for i := range l.RevokedCertificateEntries {
		s := l.RevokedCertificateEntries[i].SerialNumber.String()
		if _, known := r.by[key][s]; !known {
			r.by[key][s], news = struct{}{}, true
		}
	}
	return news, nil
}

// Has reports whether a list of the issuer names the certificate.
func (r *Revocations) Has(c, issuer *x509.Certificate) bool {
	if r == nil {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, is := r.by[string(issuer.RawSubjectPublicKeyInfo)][c.SerialNumber.String()]
	return is
}

// ParseCRL reads a revocation list and checks that issuer signed it and may
// (RFC 5280 §5, §6.3.3). Its dates are not looked at.
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
	return l, nil
}
