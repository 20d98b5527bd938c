// Package certs provides the TLS configuration of listeners: the operator's
// certificate, read again when its file changes, or one that the node makes for
// itself.
package certs

import (
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
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	lifetime = 397 * 24 * time.Hour // the longest that browsers take
	renewIn  = 30 * 24 * time.Hour  // a certificate with less left is made anew at the start
	recheck  = time.Minute          // how often a given file's time is looked at
)

// Given returns a configuration with the operator's PEM files. A renewed
// certificate is taken over within a minute; while a new file does not parse the
// old certificate stays in use.
func Given(certFile, keyFile string) (*tls.Config, error) {
	r := &reloader{certFile: certFile, keyFile: keyFile}
	if _, err := r.get(time.Now()); err != nil {
		return nil, err
	}
	return config(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.get(time.Now()) }), nil
}

// Own returns a configuration with the certificate kept in dir, making one for
// the given host names and addresses when there is none or it ends soon.
func Own(dir string, hosts []string) (*tls.Config, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("tls directory: %w", err)
	}
	path := filepath.Join(dir, "self.pem") // key and certificate in one file: one write
	cert, err := load(path)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && time.Until(cert.Leaf.NotAfter) < renewIn:
		if err := create(path, hosts); err != nil {
			return nil, err
		}
		if cert, err = load(path); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("%w; remove the file to have a new one made", err)
	}
	return config(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }), nil
}

func config(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get}
}

func load(path string) (*tls.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", path, err)
	}
	return &cert, nil
}

func create(path string, hosts []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("tls key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return fmt.Errorf("tls serial: %w", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Parley node"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if h != "" {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return fmt.Errorf("tls certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("tls key: %w", err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	return replace(path, text)
}

// replace writes path whole or not at all, with mode 0600.
func replace(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("tls file: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("tls file %s: %w", path, err)
	}
	return nil
}

// reloader holds the certificate of two files and reads them again when one
// of them is newer.
type reloader struct {
	certFile, keyFile string

	mu      sync.Mutex
	cert    *tls.Certificate
	stamp   time.Time // newest modification seen
	checked time.Time
}

func (r *reloader) get(now time.Time) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cert != nil && now.Sub(r.checked) < recheck {
		return r.cert, nil
	}
	r.checked = now
	stamp, err := newest(r.certFile, r.keyFile)
	if err == nil && (r.cert == nil || stamp.After(r.stamp)) {
		var c tls.Certificate
		if c, err = tls.LoadX509KeyPair(r.certFile, r.keyFile); err == nil {
			r.cert, r.stamp = &c, stamp
		}
	}
	if r.cert != nil { // half-written files are tried again at the next look
		return r.cert, nil
	}
	return nil, err
}

func newest(paths ...string) (time.Time, error) {
	var t time.Time
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			return t, err
		}
		if st.ModTime().After(t) {
			t = st.ModTime()
		}
	}
	return t, nil
}

// LocalHosts lists this machine's addresses, IPv4 first; none is no error: the
// node is then reached by names alone.
func LocalHosts() []string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var v4, v6 []string
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		switch {
		case !ok:
		case n.IP.To4() != nil:
			v4 = append(v4, n.IP.String())
		default:
			v6 = append(v6, n.IP.String())
		}
	}
	return append(v4, v6...)
}
