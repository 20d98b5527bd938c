package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// dhtValue is a value as `dht get` and `dht listen` print it.
type dhtValue struct {
	Key       string `json:"key"`
	ID        string `json:"id"`
	Type      uint16 `json:"type"`
	UserType  string `json:"user_type,omitempty"`
	Writer    string `json:"writer,omitempty"` // as the overlay names who put it, with its signature checked
	Signer    string `json:"signer,omitempty"` // key id of who signed it
	Verified  bool   `json:"verified"`         // the signature is the signer's
	Encrypted bool   `json:"encrypted"`
	Decrypted bool   `json:"decrypted"` // it was for the account's device
	Seq       uint16 `json:"seq,omitempty"`
	TTLMs     int64  `json:"ttl_ms"` // time left to live, at most
	Data      []byte `json:"data"`
	Text      string `json:"text,omitempty"` // Data, where it is printable
	What      string `json:"what,omitempty"` // "certificate", "announcement", "revocation list", "trust request", "message"
	Says      string `json:"says,omitempty"` // what such a one says
}

// valueReader reads packed values, and has identity decrypt them.
type valueReader struct {
	s *session
}

func (r *valueReader) read(ctx context.Context, v contract.DHTValue) *dhtValue {
	x := &dhtValue{Key: v.Key, ID: strconv.FormatUint(v.ID, 10), Type: v.Type, Writer: v.Writer, Verified: v.Writer != "", TTLMs: v.TTLMs, Data: v.Data}
	if p, err := jami.ParseValue(v.Data); err == nil && (p.Signed() || p.Encrypted()) {
		if p.Encrypted() {
			x.Encrypted = true
			p = r.decrypt(ctx, v.Data, x)
		}
		if p != nil {
			x.Type, x.UserType, x.Data, x.Seq = p.Type, p.UserType, p.Data, p.Seq
			x.Signer, x.Verified = p.Signer().String(), p.Verify() == nil
		}
	}
	if x.Encrypted && !x.Decrypted {
		return x
	}
	x.What, x.Says = meaning(x)
	if x.What == "" && isText(x.Data) {
		x.Text = string(x.Data)
	}
	return x
}

// decrypt returns the clear value; nil when it is for another.
func (r *valueReader) decrypt(ctx context.Context, packed []byte, x *dhtValue) *jami.Value {
	open, err := call(ctx, &session{Conn: r.s.Conn, acc: r.s.acc}, contract.DHTOpenCmd, &contract.DHTOpen{Packed: packed})
	if err != nil {
		if !errors.Is(err, contract.ErrForbidden) {
			x.Says = "not decrypted: " + err.Error()
		}
		return nil
	}
	p, err := jami.ParseValue(open.Packed)
	if err != nil {
		return nil
	}
	x.Decrypted = true
	return p
}

// meaning knows Jami's own values (§2, §3).
func meaning(x *dhtValue) (what, says string) {
	bin, err := jami.ParseBin(x.Data)
	if err != nil {
		bin = x.Data
	}
	if x.Type == jami.TypeCertificate {
		if certs, err := trust.Certificates(bin); err == nil {
			_, long := jami.CertIDs(certs[0])
			says = fmt.Sprintf("device %s until %s", long, certs[0].NotAfter.UTC().Format(time.DateOnly))
			if len(certs) > 1 {
				id, _ := jami.CertIDs(certs[1])
				says += fmt.Sprintf(", of account %s", id)
			}
			return "certificate", says
		}
	}
	if a, err := jami.ParseAnnouncement(x.Data); err == nil {
		says = "device " + a.Device.String()
		if x.Signer != x.Key {
			says += ", not signed by the account at this key: it does not count"
		}
		return "announcement", says
	}
	if x.Type == jami.TypeTrustRequest {
		if t, err := jami.ParseTrustRequest(x.Data); err == nil {
			says = "asks to be a contact"
			if t.Confirm {
				says = "confirms a contact"
			}
			if t.ConversationID != "" {
				says += ", conversation " + printable(t.ConversationID)
			}
			return "trust request", says
		}
	}
	if x.Type == jami.TypeImMessage {
		if m, err := jami.ParseImMessage(x.Data); err == nil {
			return "message", printable(m.Text)
		}
	}
	if crl, err := parseCRL(bin); err == nil {
		return "revocation list", crl
	}
	return "", ""
}

// isText reports whether bytes can be shown to a person as they are.
func isText(b []byte) bool {
	if len(b) == 0 || !utf8.Valid(b) {
		return false
	}
	for _, c := range string(b) {
		if c != '\n' && c != '\t' && !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

// by says who signed it.
func (v *dhtValue) by() string {
	switch {
	case v.Encrypted && !v.Decrypted:
		return "encrypted to another"
	case v.Signer != "" && !v.Verified:
		return "SIGNATURE WRONG, claims " + v.Signer
	case v.Signer != "" && v.Decrypted:
		return "signed by " + v.Signer + ", encrypted to this device"
	case v.Signer != "":
		return "signed by " + v.Signer
	case v.Writer != "":
		return "signed by node " + v.Writer
	}
	return "not signed"
}

// body is the data in one line, or several of text.
func (v *dhtValue) body() string {
	switch {
	case v.What != "":
		return v.What + ": " + v.Says
	case v.Says != "":
		return v.Says
	case v.Text != "":
		return strings.TrimRight(v.Text, "\n")
	case len(v.Data) > maxHex:
		return fmt.Sprintf("%s… (%d bytes; --json has them all)", hex.EncodeToString(v.Data[:maxHex]), len(v.Data))
	}
	return hex.EncodeToString(v.Data)
}

// maxHex bounds the bytes that are printed as hex.
const maxHex = 64

func (v *dhtValue) line() []string {
	return []string{v.ID, "type " + strconv.Itoa(int(v.Type)), v.by(), strings.ReplaceAll(v.body(), "\n", "⏎")}
}

func (v *dhtValue) show(w io.Writer) {
	fmt.Fprintf(w, "value\t%s\n", v.ID)
	typ := strconv.Itoa(int(v.Type))
	if v.UserType != "" {
		typ += ", " + printable(v.UserType)
	}
	if v.Encrypted && !v.Decrypted {
		typ = "hidden"
	}
	fmt.Fprintf(w, "type\t%s\n", typ)
	fmt.Fprintf(w, "from\t%s\n", v.by())
	fmt.Fprintf(w, "lives\t%s at most\n", (time.Duration(v.TTLMs) * time.Millisecond).Round(time.Second))
	fmt.Fprintf(w, "data\t%s\n", strings.ReplaceAll(v.body(), "\n", "\n\t"))
}

// parseCRL says what a revocation list names. Who signed it is for readers of the
// account's certificate to check.
func parseCRL(der []byte) (string, error) {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return "", err
	}
	n := len(l.RevokedCertificateEntries)
	return fmt.Sprintf("%d certificates revoked, issued %s", n, l.ThisUpdate.UTC().Format(time.DateOnly)), nil
}
