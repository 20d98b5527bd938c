package secure

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"net"

	"github.com/parley-jami/parley/services/connect/device/tls13"
)

// Session is one after its handshake, of which no record was read or written. Who goes on with it elsewhere
// uses the secrets, and not the Conn.
type Session struct {
	*tls.Conn
	ReadSecret, WriteSecret []byte // traffic secrets (RFC 8446 §7.1)
}

// keys takes the traffic secrets out of what crypto/tls tells for others who are to read along
// (draft-ietf-tls-keylogfile): lines of a label, the client's random number, and the secret. They stay in memory.
type keys struct{ lines []byte }

// Write implements io.Writer.
func (k *keys) Write(line []byte) (int, error) {
	k.lines = append(k.lines, line...)
	return len(line), nil
}

// of is the first secret of who is "CLIENT" or "SERVER"; nil: none was told.
func (k *keys) of(who string) []byte {
	for line := range bytes.Lines(k.lines) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == who+"_TRAFFIC_SECRET_0" {
			if secret, err := hex.DecodeString(string(f[2])); err == nil {
				return secret
			}
		}
	}
	return nil
}

// records reads no further than to the end of a record, as crypto/tls otherwise does: what follows the
// handshake is for who goes on with the session.
type records struct {
	net.Conn
	head [tls13.Header]byte
	have int // of the header
	left int // of the record after it
}

// Read implements net.Conn.
func (r *records) Read(p []byte) (int, error) {
	limit := r.left
	if limit == 0 {
		limit = len(r.head) - r.have
	}
	n, err := r.Conn.Read(p[:min(len(p), limit)])
	if r.left > 0 {
		r.left -= n
		return n, err
	}
	r.have += copy(r.head[r.have:], p[:n])
	if r.have == len(r.head) {
		r.have, r.left = 0, int(r.head[3])<<8|int(r.head[4])
	}
	return n, err
}
