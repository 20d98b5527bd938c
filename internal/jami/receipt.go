package jami

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrReceipt says that a device receipt is not what the account signed for this
// device.
var ErrReceipt = errors.New("device receipt")

// maxReceipt is far above the 2.4 KB of a receipt with RSA-4096 keys.
const maxReceipt = 16 << 10

// Receipt is the account's word that a device is its own (§3.2).
type Receipt struct {
	Text string // the exact bytes that are signed
	Sig  []byte // by the account key

	Account      ID
	Device       ID
	Eth          string
	Announcement *Value // id 0: it gets one when it is put
}

// receiptJSON fixes the order of the entries.
type receiptJSON struct {
	ID       string `json:"id"`
	Dev      string `json:"dev"`
	Eth      string `json:"eth"`
	Announce string `json:"announce"`
}

// NewReceipt makes and signs the receipt of a device.
func NewReceipt(account crypto.Signer, device crypto.PublicKey, eth string) (*Receipt, error) {
	id, _, err := PublicIDs(account.Public())
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(device)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	r := &Receipt{Account: id, Device: KeyID(spki), Eth: eth}
	ann := DeviceAnnouncement{Device: r.Device, PubKey: spki}
	data, err := ann.Pack()
	if err != nil {
		return nil, err
	}
	r.Announcement = &Value{Data: data}
	if err := r.Announcement.Sign(account); err != nil {
		return nil, err
	}
	packed, err := r.Announcement.Pack()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(receiptJSON{ID: id.String(), Dev: r.Device.String(), Eth: eth, Announce: base64.StdEncoding.EncodeToString(packed)})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	r.Text = string(text)
	r.Sig, err = SignBytes(account, text)
	return r, err
}

// ParseReceipt reads a receipt and checks all of it against the certificates of the
// device and its account, in the order of §3.2. That those are good is for
// internal/trust to say.
func ParseReceipt(text string, sig []byte, dev, acc *x509.Certificate) (*Receipt, error) {
	if text == "" || len(sig) == 0 {
		return nil, fmt.Errorf("%w: missing", ErrReceipt)
	}
	if len(text) > maxReceipt {
		return nil, fmt.Errorf("%w: %d bytes", ErrReceipt, len(text))
	}
	if err := VerifyBytes(acc.PublicKey, []byte(text), sig); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	var j receiptJSON
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	device, _ := CertIDs(dev)
	account, _ := CertIDs(acc)
	if j.Dev != device.String() {
		return nil, fmt.Errorf("%w: for device %q", ErrReceipt, j.Dev)
	}
	if j.ID != account.String() {
		return nil, fmt.Errorf("%w: of account %q", ErrReceipt, j.ID)
	}
	packed, err := base64.StdEncoding.DecodeString(j.Announce)
	if err != nil {
		return nil, fmt.Errorf("%w: announcement: %w", ErrReceipt, err)
	}
	v, err := ParseValue(packed)
	if err != nil {
		return nil, fmt.Errorf("%w: announcement: %w", ErrReceipt, err)
	}
	a, err := VerifyAnnouncement(v, account)
	if err != nil {
		return nil, fmt.Errorf("%w: announcement: %w", ErrReceipt, err)
	}
	if a.Device != device {
		return nil, fmt.Errorf("%w: announces device %s", ErrReceipt, a.Device)
	}
	return &Receipt{Text: text, Sig: sig, Account: account, Device: device, Eth: j.Eth, Announcement: v}, nil
}
