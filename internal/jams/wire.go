package jams

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/parley-jami/parley/internal/jami"
)

// Bounds of what is sent, in bytes and in entries.
const (
	MaxBody         = 64 << 10 // of every request but contacts
	MaxContacts     = 10_000
	MaxContactBody  = 4 << 20
	MaxName         = 64  // of a user
	MaxPassword     = 256 //
	MaxDeviceName   = 128 // cut, not refused
	maxReply        = 4 << 20
	maxConversation = 128
)

// Scopes of a token.
const (
	ScopeDevice = "DEVICE"
	ScopeUser   = "USER"
)

// EnrolRequest is the body of POST /api/auth/device.
type EnrolRequest struct {
	CSR        string `json:"csr"`
	DeviceName string `json:"deviceName"`
}

// ParseEnrolRequest reads the body; the device's name is made fit to be shown.
func ParseEnrolRequest(body []byte) (r EnrolRequest, err error) {
	if err := decode(body, MaxBody, &r); err != nil {
		return r, err
	}
	r.DeviceName = Printable(r.DeviceName, MaxDeviceName)
	return r, nil
}

// EnrolReply is the answer to it. Every other text is an account setting, which
// [EnrolReply.Settings] has.
type EnrolReply struct {
	CertificateChain string // PEM: device, account, CA
	DeviceReceipt    string
	ReceiptSignature []byte
	NameServer       string
	UserPhoto        string // base64
	Settings         map[string]string
}

// MarshalJSON writes one flat object.
func (r EnrolReply) MarshalJSON() ([]byte, error) {
	m := map[string]string{}
	for k, v := range r.Settings {
		m[k] = v
	}
	for k, v := range map[string]string{"certificateChain": r.CertificateChain, "deviceReceipt": r.DeviceReceipt,
		"receiptSignature": base64.StdEncoding.EncodeToString(r.ReceiptSignature), "nameServer": r.NameServer, "userPhoto": r.UserPhoto} {
		if v != "" {
			m[k] = v
		}
	}
	return json.Marshal(m)
}

// ParseEnrolReply reads the answer without checking what it says.
func ParseEnrolReply(body []byte) (r EnrolReply, err error) {
	var m map[string]any
	if err := decode(body, maxReply, &m); err != nil {
		return r, err
	}
	r.Settings = map[string]string{}
	for k, v := range m {
		s, ok := v.(string)
		if !ok {
			continue // not for this client
		}
		switch k {
		case "certificateChain":
			r.CertificateChain = s
		case "deviceReceipt":
			r.DeviceReceipt = s
		case "receiptSignature":
			if r.ReceiptSignature, err = base64.StdEncoding.DecodeString(s); err != nil {
				return EnrolReply{}, ErrInvalidReply.With("the receipt's signature is not base64")
			}
		case "nameServer":
			r.NameServer = s
		case "userPhoto":
			r.UserPhoto = s
		default:
			r.Settings[k] = s
		}
	}
	return r, nil
}

// LoginReply is the answer to POST /api/login.
type LoginReply struct {
	Scope   string `json:"scope"`
	Token   string `json:"access_token"`
	Expires int64  `json:"expires_in"` // seconds
}

// Device is an entry of GET /api/auth/devices.
type Device struct {
	ID    string `json:"deviceId"` // long id
	Alias string `json:"alias"`
}

// ParseDevices reads the answer to GET /api/auth/devices.
func ParseDevices(body []byte) ([]Device, error) {
	var list []Device
	if err := decode(body, maxReply, &list); err != nil {
		return nil, ErrInvalidReply.Because(err)
	}
	for i, d := range list {
		id, err := ParseDeviceID(d.ID)
		if err != nil {
			return nil, ErrInvalidReply.With("a device's id is %.70q", d.ID)
		}
		list[i] = Device{ID: id.String(), Alias: Printable(d.Alias, MaxDeviceName)}
	}
	return list, nil
}

// Profile is somebody in the directory.
type Profile struct {
	Username  string `json:"username"`
	JamiID    string `json:"id"`
	FirstName string `json:"firstName,omitempty"`
	LastName  string `json:"lastName,omitempty"`
	Email     string `json:"email,omitempty"`
}

// Profiles is the answer to GET /api/auth/directory/search.
type Profiles struct {
	Profiles []Profile `json:"profiles"`
}

// Refusal is the body of an answer that is no success. ErrorDetails is where stock
// Jami looks.
type Refusal struct {
	Code         string `json:"code"`
	ErrorDetails string `json:"errorDetails"`
}

// contact is how one travels.
type contact struct {
	URI string `json:"uri"`
	jami.Contact
}

// Contacts are the contacts of an account.
type Contacts map[jami.ID]jami.Contact

// MarshalJSON writes an array.
func (c Contacts) MarshalJSON() ([]byte, error) {
	list := make([]contact, 0, len(c))
	for id, one := range c {
		list = append(list, contact{id.String(), one})
	}
	return json.Marshal(list)
}

// ParseContacts reads an array of contacts; twice the same one is merged.
func ParseContacts(body []byte) (Contacts, error) {
	var list []contact
	if err := decode(body, MaxContactBody, &list); err != nil {
		return nil, err
	}
	if len(list) > MaxContacts {
		return nil, ErrRefused.With("%d contacts, %d are allowed", len(list), MaxContacts)
	}
	out := make(Contacts, len(list))
	for _, c := range list {
		uri := strings.TrimPrefix(strings.TrimPrefix(c.URI, "jami:"), "ring:")
		id, err := jami.ParseID(uri)
		if err != nil {
			return nil, ErrRefused.With("a contact's uri is %.48q", c.URI)
		}
		if c.Added < 0 || c.Removed < 0 || len(c.ConversationID) > maxConversation {
			return nil, ErrRefused.With("contact %s can't be true", id)
		}
		out.mergeOne(id, c.Contact)
	}
	return out, nil
}

// Merge takes in what another device knows (dht-and-identity §3.8). The order in
// which devices tell what they know does not matter.
func (c Contacts) Merge(other Contacts) {
	for id, o := range other {
		c.mergeOne(id, o)
	}
}

func (c Contacts) mergeOne(id jami.ID, o jami.Contact) {
	if have, ok := c[id]; ok {
		o = have.Merge(o)
	}
	c[id] = o
}

// decode reads one JSON value of at most limit bytes and nothing after it.
func decode(body []byte, limit int, v any) error {
	if len(body) > limit {
		return ErrRefused.With("%d bytes or more, %d are allowed", len(body), limit)
	}
	if !utf8.Valid(body) {
		return ErrRefused.With("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(v); err != nil {
		return ErrRefused.With("not the JSON that is expected")
	}
	if _, err := d.Token(); err != io.EOF {
		return ErrRefused.With("more follows the JSON value")
	}
	return nil
}

// UserName returns the name in the form in which it is kept: small letters. It
// refuses what could mean something to a file system, a directory or Basic
// authentication.
func UserName(s string) (string, error) {
	s = strings.ToLower(s)
	if s == "" || len(s) > MaxName || strings.Trim(s, ".") == "" {
		return "", ErrInvalid.With("a user's name has 1 to %d characters", MaxName)
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("._@-", c) >= 0) {
			return "", ErrInvalid.With("a user's name has a-z, 0-9 and . _ @ - alone")
		}
	}
	return s, nil
}

// ParseDeviceID reads the long id of a device: 64 hex digits.
func ParseDeviceID(s string) (id jami.LongID, err error) {
	if len(s) != hex.EncodedLen(len(id)) {
		return id, ErrInvalid.With("a device's id has 64 hex digits")
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return jami.LongID{}, ErrInvalid.With("a device's id has 64 hex digits")
	}
	return id, nil
}

// Printable returns s without what can't be shown, cut to limit bytes.
func Printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	for len(s) > limit {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimSpace(s)
}
