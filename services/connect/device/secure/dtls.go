package secure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/elliptic"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"

	"github.com/parley-jami/parley/internal/pionlog"
	"github.com/parley-jami/parley/internal/trust"
)

// DTLS is the version of sessions over UDP, as tls.VersionName would name it.
const DTLS = "DTLS 1.2"

// ErrDTLS says that the session over UDP did not come about.
var ErrDTLS = errors.New("DTLS handshake")

// flight is how long an answer to a flight of the handshake is waited for, the first time
// (RFC 6347 §4.2.4.1 has a second); a signature may take identity some 10 ms.
const flight = 500 * time.Millisecond

// What is offered and taken over UDP. The certificates of Jami are RSA's; pion/dtls has the suites
// without their key exchange, without authentication and with CBC too, which are not in the list.
// Signatures of the session are PKCS #1 v1.5 with SHA-384 alone, the one of DTLS 1.2 (which knows no
// PSS) that the device's key makes for nothing else.
var (
	dtlsSuites = []dtls.CipherSuiteID{dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	dtlsCurves = []elliptic.Curve{elliptic.X25519, elliptic.P384, elliptic.P256}
	dtlsSigns  = []tls.SignatureScheme{tls.PKCS1WithSHA384}
	// Of certificates: account's and authority's are what package trust takes.
	dtlsCertSigns = []tls.SignatureScheme{tls.PKCS1WithSHA384, tls.PKCS1WithSHA512, tls.PKCS1WithSHA256}
)

// DTLSServer makes the session over UDP as the device that was asked, with the one that asked. It
// closes conn on an error, which ctx may be the reason of.
func DTLSServer(ctx context.Context, conn net.Conn, own Own, peer *trust.Chain, judge Judge) (*dtls.Conn, *trust.Chain, error) {
	v := &verifier{expected: peer, judge: judge}
	opts := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
	for _, o := range v.options(own) {
		opts = append(opts, o)
	}
	c, err := dtls.ServerWithOptions(dtlsnet.PacketConnFromConn(conn), conn.RemoteAddr(), opts...)
	return v.dtlsHandshake(ctx, conn, c, err)
}

// DTLSClient makes the session over UDP as the device that asked, with the one that was asked.
func DTLSClient(ctx context.Context, conn net.Conn, own Own, peer *trust.Chain, judge Judge) (*dtls.Conn, *trust.Chain, error) {
	v := &verifier{expected: peer, judge: judge}
	var opts []dtls.ClientOption
	for _, o := range v.options(own) {
		opts = append(opts, o)
	}
	c, err := dtls.ClientWithOptions(dtlsnet.PacketConnFromConn(conn), conn.RemoteAddr(), opts...)
	return v.dtlsHandshake(ctx, conn, c, err)
}

// options are for both sides.
func (v *verifier) options(own Own) []dtls.Option {
	cert := tls.Certificate{PrivateKey: own.Key, Leaf: own.Chain.Device}
	for _, x := range own.Chain.Certs() {
		cert.Certificate = append(cert.Certificate, x.Raw)
	}
	return []dtls.Option{
		dtls.WithCertificates(cert), dtls.WithCipherSuites(dtlsSuites...), dtls.WithEllipticCurves(dtlsCurves...),
		dtls.WithSignatureSchemes(dtlsSigns...), dtls.WithCertificateSignatureSchemes(dtlsCertSigns...),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret), dtls.WithFlightInterval(flight),
		dtls.WithInsecureSkipVerify(true), // names mean nothing here: the verifier judges
		dtls.WithVerifyPeerCertificate(func(raw [][]byte, _ [][]*x509.Certificate) error { return v.proveRaw(raw) }),
		dtls.WithLoggerFactory(pionlog.Quiet),
	}
}

// proveRaw is prove for certificates as they came. crypto/tls reads them itself.
func (v *verifier) proveRaw(raw [][]byte) error {
	if len(raw) == 0 {
		return ErrNoCertificate
	}
	certs := make([]*x509.Certificate, 0, len(raw))
	for _, b := range raw {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return fmt.Errorf("the device's certificates: %w", err)
		}
		certs = append(certs, c)
	}
	return v.prove(certs)
}

func (v *verifier) dtlsHandshake(ctx context.Context, conn net.Conn, c *dtls.Conn, err error) (*dtls.Conn, *trust.Chain, error) {
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("%w: %w", ErrDTLS, err)
	}
	err = c.HandshakeContext(ctx)
	if err == nil && v.shown == nil {
		err = ErrNoCertificate
	}
	if err != nil {
		c.Close()
		conn.Close()
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, nil, fmt.Errorf("%w: %w", ErrDTLS, err)
	}
	return c, v.shown, nil
}

// SuiteName is the cipher suite of a session over UDP by its IANA name.
func SuiteName(c *dtls.Conn) string {
	st, ok := c.ConnectionState()
	if !ok {
		return ""
	}
	return dtls.CipherSuiteName(st.CipherSuiteID)
}
