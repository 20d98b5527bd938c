package embed

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/certs"
	"github.com/parley-jami/parley/internal/config"
)

// ServerName is what the certificate is for that the bus makes for itself, whatever address it is
// reached at.
const ServerName = "parley-bus"

const (
	caLife   = 25 * 365 * 24 * time.Hour // as long as what workers were given has to hold
	leafLife = 90 * 24 * time.Hour
	backdate = time.Hour // for clocks that are late
)

// authority signs the certificates that the bus makes for itself.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  string // the certificate
}

// newAuthority makes one; the text is its key and certificate.
func newAuthority(now time.Time) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("bus authority: %w", err)
	}
	tmpl, err := template(now, caLife)
	if err != nil {
		return "", err
	}
	tmpl.Subject.CommonName = "Parley bus authority"
	tmpl.IsCA, tmpl.MaxPathLenZero, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return "", fmt.Errorf("bus authority: %w", err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("bus authority: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}

func template(now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("certificate of the bus: %w", err)
	}
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "Parley bus"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life), BasicConstraintsValid: true}, nil
}

func parseAuthority(text string) (*authority, error) {
	pair, err := tls.X509KeyPair([]byte(text), []byte(text))
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("authority: it cannot sign")
	}
	return &authority{cert: pair.Leaf, key: key, pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw}))}, nil
}

// issue makes a certificate for the names, for both ends of a connection.
func (a *authority) issue(now time.Time, names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate of the bus: %w", err)
	}
	tmpl, err := template(now, leafLife)
	if err != nil {
		return nil, err
	}
	tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if n != "" {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of the bus: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate of the bus: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// shown is the certificate that the bus shows: made at the start, and anew when half of its life is over.
type shown struct {
	ca    *authority
	names []string
	now   func() time.Time

	mu   sync.Mutex
	cert *tls.Certificate
}

func (s *shown) get() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.cert == nil || s.cert.Leaf.NotAfter.Sub(now) < leafLife/2 {
		cert, err := s.ca.issue(now, s.names)
		if err != nil {
			return nil, err
		}
		s.cert = cert
	}
	return s.cert, nil
}

// door is how the bus is reached, by the node's own processes and by others.
type door struct {
	tls    *tls.Config        // nil: in clear, which is for this machine alone
	own    contract.BusAccess // without URLs: processes know theirs by their settings
	others contract.BusAccess
	from   []string // networks of the node's own processes
}

// newDoor reads the settings. In clear is what listens on loopback and has no certificate.
func newDoor(c *config.Bus, ca *authority) (*door, error) {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("bus.listen %q is not host:port: %w", c.Listen, err)
	}
	d := &door{from: append([]string{"127.0.0.0/8", "::1/128"}, c.Processes...)}
	for _, h := range hostAddrs(host) {
		d.from = append(d.from, netip.PrefixFrom(h, h.BitLen()).String())
	}
	if c.Cert == "" && isLoopback(host) {
		return d, nil
	}
	names := append([]string{ServerName, "localhost", host}, certs.LocalHosts()...)
	for _, one := range strings.Split(c.Public, ",") {
		if u, err := url.Parse(one); err == nil {
			names = append(names, u.Hostname())
		}
	}
	slices.Sort(names)
	made := &shown{ca: ca, names: slices.Compact(names), now: time.Now}
	if _, err := made.get(); err != nil {
		return nil, err
	}
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return made.get() }}
	d.own = contract.BusAccess{TLS: true, ServerName: ServerName, CA: ca.pem}
	d.others = d.own
	if c.Cert == "" {
		return d, nil
	}
	given, err := certs.Given(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("bus.cert: %w", err)
	}
	// The node's own processes verify what they have always verified, so that they do not depend
	// on which names are in the operator's.
	d.tls.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName == ServerName {
			return made.get()
		}
		return given.GetCertificate(h)
	}
	d.others = contract.BusAccess{TLS: true}
	if c.CA != "" {
		raw, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("bus.ca: %w", err)
		}
		if d.others.CA, err = certificates(raw); err != nil {
			return nil, fmt.Errorf("bus.ca: %s: %w", c.CA, err)
		}
	}
	return d, nil
}

// certificates returns those of a PEM file, and nothing else that is in it.
func certificates(raw []byte) (string, error) {
	var out bytes.Buffer
	for {
		var b *pem.Block
		if b, raw = pem.Decode(raw); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return "", err
		}
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Bytes}))
	}
	if out.Len() == 0 {
		return "", errors.New("no certificate in it")
	}
	return out.String(), nil
}

// isLoopback reports whether what listens there is reached from this machine alone.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback() || host == "localhost"
}

// hostAddrs are the addresses of a host that is one and no wildcard; what a name means is
// looked up.
func hostAddrs(host string) (out []netip.Addr) {
	list := []string{host}
	if _, err := netip.ParseAddr(host); err != nil && host != "" {
		if list, err = net.LookupHost(host); err != nil {
			return nil // who listens there says why
		}
	}
	for _, h := range list {
		if a, err := netip.ParseAddr(h); err == nil && !a.IsUnspecified() {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// access is how somebody else reaches the bus, which listens at url.
func (d *door) access(public, listening string) contract.BusAccess {
	a := d.others
	a.URLs = strings.Split(cmp.Or(public, listening), ",")
	if u, err := url.Parse(a.URLs[0]); err == nil && public == "" && d.tls != nil && isLoopback(u.Hostname()) {
		// It listens everywhere; others come by another address than this machine's processes.
		for _, h := range certs.LocalHosts() {
			if ip, err := netip.ParseAddr(h); err == nil && ip.IsGlobalUnicast() {
				a.URLs[0] = "nats://" + net.JoinHostPort(h, u.Port())
				break
			}
		}
	}
	return a
}
