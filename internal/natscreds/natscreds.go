// Package natscreds reads and writes credentials files of the bus: those of NATS (a user's JWT and
// the seed of its key, as `nats` and every client library read them), followed by how the bus is
// reached and verified, for who connects from another machine:
//
//	-----BEGIN PARLEY BUS-----
//	{"urls":["nats://10.0.0.5:4223"],"tls":true,"server_name":"parley-bus"}
//	------END PARLEY BUS------
//	-----BEGIN CERTIFICATE-----
//	…
//
// The certificates are the authorities that sign the bus's; without any the system's do. A file
// without that part is one for a bus that does not encrypt.
package natscreds

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nats-io/jwt/v2"

	"github.com/parley-jami/parley/bus/contract"
)

// MaxSize bounds a file, in bytes.
const MaxSize = 64 << 10

const (
	begin = "-----BEGIN PARLEY BUS-----\n"
	end   = "\n------END PARLEY BUS------\n"

	beginKey = "-----BEGIN PARLEY ROOMS KEY-----\n"
	endKey   = "\n------END PARLEY ROOMS KEY------\n"
)

// ErrMalformed says that a file is not one of credentials.
var ErrMalformed = errors.New("not a file of credentials")

// File is what a credentials file says, but for its secret.
type File struct {
	User   *jwt.UserClaims
	Access contract.BusAccess
	// RoomsKey opens the copies of rooms, in hex: of a conference that stands by.
	RoomsKey string
}

// Read reads the file at path.
func Read(path string) (*File, error) {
	raw, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	f, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// ReadAccess reads only how the bus is reached, from a file whose user may be anybody's.
func ReadAccess(path string) (contract.BusAccess, error) {
	raw, err := load(path)
	if err != nil {
		return contract.BusAccess{}, fmt.Errorf("credentials: %w", err)
	}
	a, err := access(raw)
	if err != nil {
		return a, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

func load(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

// Parse reads a file's content. Errors are ErrMalformed.
func Parse(raw []byte) (*File, error) {
	tok, err := jwt.ParseDecoratedJWT(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	f := new(File)
	if f.User, err = jwt.DecodeUserClaims(tok); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := jwt.ParseDecoratedUserNKey(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if f.Access, err = access(raw); err != nil {
		return nil, err
	}
	if _, rest, ok := strings.Cut(strings.ReplaceAll(string(raw), "\r\n", "\n"), beginKey); ok {
		if f.RoomsKey, _, ok = strings.Cut(rest, endKey); !ok {
			return nil, fmt.Errorf("%w: its key has no end", ErrMalformed)
		}
	}
	return f, nil
}

func access(raw []byte) (a contract.BusAccess, err error) {
	if len(raw) > MaxSize {
		return a, fmt.Errorf("%w: more than %d bytes", ErrMalformed, MaxSize)
	}
	_, rest, ok := bytes.Cut(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte(begin))
	if !ok {
		return a, nil
	}
	line, rest, ok := bytes.Cut(rest, []byte(end))
	if !ok {
		return a, fmt.Errorf("%w: its part about the bus has no end", ErrMalformed)
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("%w: about the bus: %w", ErrMalformed, err)
	}
	a.CA = ""
	var certs bytes.Buffer
	for len(rest) > 0 {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return a, fmt.Errorf("%w: certificate: %w", ErrMalformed, err)
		}
		certs.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Bytes}))
	}
	if a.CA = certs.String(); a.CA == "" && a.ServerName != "" {
		return a, fmt.Errorf("%w: the certificate that verifies the bus is missing", ErrMalformed)
	}
	return a, nil
}

// Format is the file of a user with that seed.
func Format(token string, seed []byte, a contract.BusAccess) ([]byte, error) {
	out, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	about, err := Trust(a)
	return append(out, about...), err
}

// RoomsKey is the part of a file with the key of rooms' copies.
func RoomsKey(key string) []byte { return []byte("\n" + beginKey + key + endKey) }

// Trust is the part of a file about the bus; nil when there is nothing to say.
func Trust(a contract.BusAccess) ([]byte, error) {
	certs := a.CA
	a.CA = ""
	line, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if string(line) == "{}" {
		return nil, nil
	}
	out := "\n" + begin + string(line) + end
	if certs != "" {
		out += strings.TrimRight(certs, "\n") + "\n"
	}
	return []byte(out), nil
}

// TLS is how the bus is verified; nil: it does not encrypt.
func TLS(a contract.BusAccess) (*tls.Config, error) {
	if !a.TLS {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.ServerName}
	if a.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(a.CA)) {
			return nil, fmt.Errorf("%w: no certificate that verifies the bus", ErrMalformed)
		}
	}
	return c, nil
}
