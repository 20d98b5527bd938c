package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strings"
	"time"

	"github.com/parley-jami/parley/internal/jami"
)

// Bounds of a chain.
const (
	maxCerts   = 8
	maxCert    = 16 << 10 // bytes of DER
	minRSA     = 2048     // bits
	maxRSA     = 8192
	maxSerial  = 20 // octets
	clockSlack = 5 * time.Minute
)

// Chain is a device with its account and the authorities above, as [Rules.Check]
// found it good. It is not changed after.
type Chain struct {
	Device, Account *x509.Certificate
	Authorities     []*x509.Certificate // from the account's issuer up; none where the account signed itself
	JamiID          jami.ID             // of the account
	DeviceID        jami.LongID
	DeviceShort     jami.ID
}

// Rules is what a chain is checked against. The zero value is a stranger's chain,
// checked now, without knowledge of revocations. It is safe for concurrent use
// while nobody changes it.
type Rules struct {
	Now     func() time.Time // nil: time.Now
	Revoked *Revocations     // nil: none are known
	Roots   []*x509.Certificate
	Account jami.ID     // the account that is expected; zero: any
	Device  jami.LongID // the device that is expected; zero: any
	// At is when what is checked was signed, in Now's place; zero: now. See the package.
	At time.Time
	// AnyTime looks at the chain as of a moment at which all of it is valid, whatever
	// Now says: for one's own chain, whose dates are told apart from damage.
	AnyTime bool
}

// PEM returns the certificates, device first.
func (c *Chain) PEM() []byte { return jami.MarshalChain(c.Certs()...) }

// Certs returns the certificates, device first.
func (c *Chain) Certs() []*x509.Certificate {
	return append([]*x509.Certificate{c.Device, c.Account}, c.Authorities...)
}

// Parse reads concatenated PEM, device first, and checks it.
func (r *Rules) Parse(text []byte) (*Chain, error) {
	certs, err := Certificates(text)
	if err != nil {
		return nil, err
	}
	return r.Check(certs)
}

// Certificates reads concatenated PEM without judging it. Text between the blocks
// is passed over (RFC 7468 §2); other blocks are not.
func Certificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxCerts*maxCert*3/2 {
		return nil, &Error{Reason: TooLarge, Why: "it is longer than any chain may be"}
	}
	var out []*x509.Certificate
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		i := len(out)
		switch {
		case b.Type != "CERTIFICATE":
			return nil, refuse(i, Malformed, "there is another PEM block in its place")
		case i == maxCerts:
			return nil, &Error{Reason: TooLarge, Why: "it has more certificates than any chain may have"}
		case len(b.Bytes) > maxCert:
			return nil, refuse(i, TooLarge, "it has %d bytes, %d are allowed", len(b.Bytes), maxCert)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, refuse(i, Malformed, "%v", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, &Error{Reason: Malformed, Why: "there is no PEM certificate"}
	}
	return out, nil
}

// Check judges a chain by the rules of this package. An error is an [*Error].
func (r *Rules) Check(certs []*x509.Certificate) (*Chain, error) {
	now, err := r.moment(certs)
	if err != nil {
		return nil, err
	}
	for _, rule := range []rule{
		size, complete, keys, signatures, r.dates, authority, extensions, uids, r.expected, r.revoked, r.rooted, forbidden,
	} {
		if err := rule(certs, now); err != nil {
			return nil, err
		}
	}
	c := &Chain{Device: certs[0], Account: certs[1], Authorities: slices.Clone(certs[2:])}
	c.JamiID, _ = jami.CertIDs(c.Account)
	c.DeviceShort, c.DeviceID = jami.CertIDs(c.Device)
	return c, nil
}

// Recheck judges again what may have changed of a chain that Check found good: its
// dates, what is expected, what is revoked and the roots. No signature is verified. An
// error is an [*Error].
func (r *Rules) Recheck(c *Chain) error {
	certs := c.Certs()
	now, err := r.moment(certs)
	if err != nil {
		return err
	}
	for _, rule := range []rule{r.dates, r.expected, r.revoked, r.rooted} {
		if err := rule(certs, now); err != nil {
			return err
		}
	}
	return nil
}

type rule func(certs []*x509.Certificate, now time.Time) *Error

// moment is the one as of which the dates are judged.
func (r *Rules) moment(certs []*x509.Certificate) (time.Time, error) {
	switch {
	case r.AnyTime:
		now, err := during(certs)
		if err != nil {
			return now, err
		}
		return now, nil
	case !r.At.IsZero():
		now, err := during(certs)
		if err != nil {
			return now, err
		}
		if r.At.After(now) {
			now = r.At
		}
		return now, nil
	case r.Now != nil:
		return r.Now(), nil
	}
	return time.Now(), nil
}

// during is the first moment at which all certificates are valid.
func during(certs []*x509.Certificate) (at time.Time, err *Error) {
	for _, c := range certs {
		if c.NotBefore.After(at) {
			at = c.NotBefore
		}
	}
	for i, c := range certs {
		if c.NotAfter.Before(at) {
			return at, refuse(i, BadValidity, "it ended before another one of the chain began")
		}
	}
	return at, nil
}

func size(certs []*x509.Certificate, _ time.Time) *Error {
	if len(certs) > maxCerts {
		return &Error{Reason: TooLarge, Why: "it has more certificates than any chain may have"}
	}
	for i, c := range certs {
		if len(c.Raw) > maxCert {
			return refuse(i, TooLarge, "it has %d bytes, %d are allowed", len(c.Raw), maxCert)
		}
		if c.Version != 3 {
			return refuse(i, Malformed, "it is of X.509 version %d", c.Version)
		}
		if n := c.SerialNumber; n == nil || n.Sign() == 0 || (n.BitLen()+8)/8 > maxSerial {
			return refuse(i, BadSerial, "its serial number is zero or too long")
		}
	}
	return nil
}

// complete looks at names alone: who is said to have signed whom.
func complete(certs []*x509.Certificate, _ time.Time) *Error {
	if len(certs) < 2 {
		return &Error{Reason: NoIssuer, Why: "the certificate of the device's account is missing"}
	}
	for i, c := range certs {
		last := i == len(certs)-1
		switch {
		case !last && !bytes.Equal(c.RawIssuer, certs[i+1].RawSubject):
			return refuse(i, OutOfOrder, "%s was not issued by the next one, %s", who(c), who(certs[i+1]))
		case last && !bytes.Equal(c.RawIssuer, c.RawSubject):
			return refuse(i, MissingCA, "its issuer is not in the chain")
		}
	}
	return nil
}

func keys(certs []*x509.Certificate, _ time.Time) *Error {
	for i, c := range certs {
		switch k := c.PublicKey.(type) {
		case *rsa.PublicKey:
			switch bits := k.N.BitLen(); {
			case bits < minRSA:
				return refuse(i, SmallKey, "its RSA key has %d bits, at least %d are needed", bits, minRSA)
			case bits > maxRSA:
				return refuse(i, LargeKey, "its RSA key has %d bits, %d are allowed", bits, maxRSA)
			}
		case *ecdsa.PublicKey:
			if i < 2 || k.Curve == elliptic.P224() {
				return refuse(i, WrongKeyType, "ECDSA on %s can't be used here", k.Curve.Params().Name)
			}
		case ed25519.PublicKey:
			if i < 2 {
				return refuse(i, WrongKeyType, "Ed25519 can't be used here: Jami encrypts to this key")
			}
		default:
			return refuse(i, WrongKeyType, "its key is neither RSA nor ECDSA nor Ed25519")
		}
		for j := range i {
			if bytes.Equal(c.RawSubjectPublicKeyInfo, certs[j].RawSubjectPublicKeyInfo) {
				return refuse(i, SameKey, "its key is the %s's too", place(j))
			}
		}
	}
	return nil
}

// strong are the signature algorithms of GnuTLS's "medium" profile.
var strong = []x509.SignatureAlgorithm{
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519,
}

func signatures(certs []*x509.Certificate, _ time.Time) *Error {
	for i, c := range certs {
		issuer := certs[min(i+1, len(certs)-1)]
		if !slices.Contains(strong, c.SignatureAlgorithm) {
			return refuse(i, WeakSignature, "it is signed with %s", c.SignatureAlgorithm)
		}
		if err := issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
			return refuse(i, BadSignature, "the key of %s did not sign it", who(issuer))
		}
	}
	return nil
}

func (r *Rules) dates(certs []*x509.Certificate, now time.Time) *Error {
	slack := clockSlack
	if !r.At.IsZero() {
		slack = 0
	}
	for i, c := range certs {
		switch {
		case c.NotAfter.Before(c.NotBefore):
			return refuse(i, BadValidity, "it ends before it begins")
		case now.Add(slack).Before(c.NotBefore):
			return refuse(i, NotYetValid, "it is valid from %s; is the clock right?", c.NotBefore.Format(time.RFC3339))
		case now.Add(-slack).After(c.NotAfter):
			return refuse(i, Expired, "it was valid until %s", c.NotAfter.Format(time.RFC3339))
		}
	}
	return nil
}

func authority(certs []*x509.Certificate, _ time.Time) *Error {
	for i, c := range certs[1:] {
		i++
		switch {
		case !c.BasicConstraintsValid || !c.IsCA:
			return refuse(i, NotCA, "%s signs others and is no CA", who(c))
		case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
			return refuse(i, MayNotSign, "the key usage of %s lacks the signing of certificates", who(c))
		case (c.MaxPathLen > 0 || c.MaxPathLenZero) && i-1 > c.MaxPathLen:
			// The path length counts the CAs below, not the device (RFC 5280 §4.2.1.9).
			return refuse(i, PathTooLong, "%s allows %d authorities below it, there are %d", who(c), c.MaxPathLen, i-1)
		}
	}
	return nil
}

func extensions(certs []*x509.Certificate, _ time.Time) *Error {
	for i, c := range certs {
		if len(c.UnhandledCriticalExtensions) > 0 {
			return refuse(i, CriticalExtension, "extension %v is critical and unknown", c.UnhandledCriticalExtensions[0])
		}
	}
	return nil
}

// oidUID is the attribute that holds a key id in Jami's names (RFC 4519 §2.39).
var oidUID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}

// uids compares the UIDs of device and account, where they have the form of a key
// id, with their keys. Authorities have the names that their organisation likes.
func uids(certs []*x509.Certificate, _ time.Time) *Error {
	for i, c := range certs[:2] {
		id, _ := jami.CertIDs(c)
		for _, n := range c.Subject.Names {
			s, ok := n.Value.(string)
			if !ok || !n.Type.Equal(oidUID) || len(s) != hex.EncodedLen(len(id)) {
				continue
			}
			if !strings.EqualFold(s, id.String()) {
				return refuse(i, UIDMismatch, "its name says %.40s, its key is %s", s, id)
			}
		}
	}
	return nil
}

// ClaimsDevice reports whether who shows these certificates says that it is a device of
// a Jami account: the first one's name, or its issuer's, has a UID with the form of a
// key id, as all certificates of Jami have (dht-and-identity §3.1). Whether that is true
// is [Rules.Check]'s to say.
func ClaimsDevice(certs []*x509.Certificate) bool {
	if len(certs) == 0 {
		return false
	}
	for _, names := range [][]pkix.AttributeTypeAndValue{certs[0].Subject.Names, certs[0].Issuer.Names} {
		for _, n := range names {
			s, ok := n.Value.(string)
			if !ok || !n.Type.Equal(oidUID) {
				continue
			}
			if _, err := jami.ParseID(s); err == nil {
				return true
			}
		}
	}
	return false
}

func (r *Rules) expected(certs []*x509.Certificate, _ time.Time) *Error {
	account, _ := jami.CertIDs(certs[1])
	_, device := jami.CertIDs(certs[0])
	switch {
	case !r.Account.IsZero() && account != r.Account:
		return refuse(1, WrongAccount, "it is account %s, not %s", account, r.Account)
	case r.Device != jami.LongID{} && device != r.Device:
		return refuse(0, WrongDevice, "it is device %s, not %s", device, r.Device)
	}
	return nil
}

func (r *Rules) revoked(certs []*x509.Certificate, _ time.Time) *Error {
	for i, c := range certs[:len(certs)-1] {
		since, is := r.Revoked.Since(c, certs[i+1])
		if is && (r.At.IsZero() || r.At.After(since.Add(clockSlack))) {
			return refuse(i, Revoked, "%s revoked it, %s", who(certs[i+1]), since.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

func (r *Rules) rooted(certs []*x509.Certificate, _ time.Time) *Error {
	top := certs[len(certs)-1]
	if len(r.Roots) > 0 && !slices.ContainsFunc(r.Roots, top.Equal) {
		return refuse(len(certs)-1, UnknownCA, "%s is not an authority that was named", who(top))
	}
	return nil
}

// forbidden has crypto/x509 look as well: for what the rules above do not name.
func forbidden(certs []*x509.Certificate, now time.Time) *Error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(certs[len(certs)-1])
	for _, c := range certs[1 : len(certs)-1] {
		between.AddCert(c)
	}
	// Dates were judged with slack: this look is at a moment inside them all.
	for _, c := range certs {
		if now.Before(c.NotBefore) {
			now = c.NotBefore
		}
	}
	for _, c := range certs {
		if now.After(c.NotAfter) {
			now = c.NotAfter
		}
	}
	found, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return &Error{Reason: Forbidden, Why: err.Error()}
	}
	// The account has to be the device's direct issuer, not something beside it.
	for _, chain := range found {
		if slices.EqualFunc(chain, certs, (*x509.Certificate).Equal) {
			return nil
		}
	}
	return &Error{Reason: Forbidden, Why: "the certificates do not make one path"}
}
