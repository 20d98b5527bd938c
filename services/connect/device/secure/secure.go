// Package secure makes the session between two Jami devices (connect-and-calls §1.5, §1.6). On
// TCP that is TLS 1.3 alone, whose client is the device that was asked for the connection. On UDP,
// which nodes alone use, it is DTLS 1.2 (RFC 6347), whose server is the device that was asked; ECDHE with
// AES-GCM alone, and the extended master secret (RFC 7627).
//
// In both, both show their whole chain of certificates, device first, and each knows whom it expects
// from the exchange before: the key that signed and encrypted its message has to be the certificate's.
//
// Stock allows TLS 1.2 and anonymous suites too, and no group below P-384; two sides that know TLS
// 1.3 never come to the former. P-256 and signatures with SHA-256 stock refuses, so they are not offered.
package secure

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/parley-jami/parley/internal/trust"
)

// Reasons why a session did not come about; those of package trust are for the chain.
var (
	ErrVersion       = errors.New("the device offers no TLS 1.3")
	ErrSuite         = errors.New("the device offers no cipher suite of TLS 1.3")
	ErrGroup         = errors.New("the device offers none of X25519, P-384 and P-521")
	ErrSignature     = errors.New("the device takes no RSA-PSS signature with SHA-384 or SHA-512")
	ErrNoCertificate = errors.New("the device showed no certificate")
	ErrOtherDevice   = errors.New("another device than that of the exchange answered")
	ErrOtherAccount  = errors.New("the device belongs to another account than at the exchange")
	ErrHandshake     = errors.New("TLS handshake")
)

// Own is this side.
type Own struct {
	Chain *trust.Chain
	Key   crypto.Signer // of the device
}

// Judge judges chains; bus/gate is one.
type Judge interface {
	Check(certs []*x509.Certificate) (*trust.Chain, error)
	Allowed(c *trust.Chain) error
}

// Client makes the session as the device that was asked, with the one that asked. It closes conn
// on an error, which ctx may be the reason of.
func Client(ctx context.Context, conn net.Conn, own Own, peer *trust.Chain, judge Judge) (*Session, *trust.Chain, error) {
	v := &verifier{expected: peer, judge: judge, read: "SERVER", write: "CLIENT"}
	c := base(v)
	c.InsecureSkipVerify = true // names mean nothing here: VerifyConnection judges
	cert := certificate(own)
	c.GetClientCertificate = func(q *tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever authorities it names
		if !common(cert.SupportedSignatureAlgorithms, q.SignatureSchemes) {
			return nil, ErrSignature
		}
		return cert, nil
	}
	return v.handshake(ctx, tls.Client(&records{Conn: conn}, c))
}

// Server makes the session as the device that asked, with the one that was asked.
func Server(ctx context.Context, conn net.Conn, own Own, peer *trust.Chain, judge Judge) (*Session, *trust.Chain, error) {
	v := &verifier{expected: peer, judge: judge, read: "CLIENT", write: "SERVER"}
	c := base(v)
	c.Certificates = []tls.Certificate{*certificate(own)}
	c.ClientAuth = tls.RequireAnyClientCert
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { return nil, acceptable(h) }
	return v.handshake(ctx, tls.Server(&records{Conn: conn}, c))
}

var (
	groups = []tls.CurveID{tls.X25519, tls.CurveP384, tls.CurveP521}
	suites = []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256}
	signs  = []tls.SignatureScheme{tls.PSSWithSHA512, tls.PSSWithSHA384}
)

func base(v *verifier) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13, CurvePreferences: groups, SessionTicketsDisabled: true,
		DynamicRecordSizingDisabled: true, VerifyConnection: v.verify, KeyLogWriter: &v.keys}
}

func certificate(own Own) *tls.Certificate {
	c := &tls.Certificate{PrivateKey: own.Key, Leaf: own.Chain.Device, SupportedSignatureAlgorithms: signs}
	for _, x := range own.Chain.Certs() {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c
}

// acceptable says what is wrong with a client's offer, before crypto/tls would in other words.
func acceptable(h *tls.ClientHelloInfo) error {
	switch {
	case !slices.Contains(h.SupportedVersions, tls.VersionTLS13):
		return ErrVersion
	case !common(suites, h.CipherSuites):
		return ErrSuite
	case !common(groups, h.SupportedCurves):
		return ErrGroup
	case !common(signs, h.SignatureSchemes):
		return ErrSignature
	}
	return nil
}

func common[T comparable](a, b []T) bool {
	return slices.ContainsFunc(a, func(x T) bool { return slices.Contains(b, x) })
}

// verifier judges what the peer shows.
type verifier struct {
	expected *trust.Chain
	judge    Judge
	shown    *trust.Chain

	read, write string // whose traffic we read and write, as the key log has it
	keys        keys
}

func (v *verifier) verify(s tls.ConnectionState) error { return v.prove(s.PeerCertificates) }

// prove takes the chain of the exchange, byte by byte, as stock 13.7 wants it; or a newer one
// of that device, which it may have had made since, and which is judged anew.
func (v *verifier) prove(certs []*x509.Certificate) error {
	if len(certs) == 0 {
		return ErrNoCertificate
	}
	same := func(x, y *x509.Certificate) bool { return x.Equal(y) }
	if slices.EqualFunc(certs, v.expected.Certs(), same) {
		if err := v.judge.Allowed(v.expected); err != nil {
			return err
		}
		v.shown = v.expected
		return nil
	}
	if !slices.Equal(certs[0].RawSubjectPublicKeyInfo, v.expected.Device.RawSubjectPublicKeyInfo) {
		return ErrOtherDevice
	}
	c, err := v.judge.Check(certs)
	if err != nil {
		return err
	}
	if c.JamiID != v.expected.JamiID {
		return ErrOtherAccount
	}
	v.shown = c
	return nil
}

func (v *verifier) handshake(ctx context.Context, c *tls.Conn) (*Session, *trust.Chain, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		c.NetConn().Close()
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return &Session{Conn: c, ReadSecret: v.keys.of(v.read), WriteSecret: v.keys.of(v.write)}, v.shown, nil
}
