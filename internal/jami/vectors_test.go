package jami

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// The files in testdata were made by jamid 13.7.0 with throwaway accounts.
const (
	vecAccount  = "4f891b21a87d5e3c41f96563e358a295aba4e960"
	vecDevice   = "d740cf5d36c3e3b24fa44eb00d6861f325886fca"
	vecLong     = "7bf5d0a780cba1b866c05e9cb3d3c4d0442cf5c3bb303c651c91d5e3959e13c5"
	vecPassword = "s3cret pw"
)

func vector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// chain is a device's certificates.
type chain struct{ Device, Account, CA *x509.Certificate }

func (c *chain) JamiID() ID {
	id, _ := CertIDs(c.Account)
	return id
}

func vecChain(t testing.TB) *chain {
	t.Helper()
	c, err := ParseCerts(vector(t, "recipient_device.chain.pem"))
	if err != nil || len(c) != 3 {
		t.Fatal(len(c), err)
	}
	return &chain{c[0], c[1], c[2]}
}

func TestVectorIDs(t *testing.T) {
	c := vecChain(t)
	id, long := CertIDs(c.Device)
	for _, x := range []struct{ what, got, want string }{
		{"Jami Id", c.JamiID().String(), vecAccount},
		{"device id", id.String(), vecDevice},
		{"long device id", long.String(), vecLong},
		{"inbox key", InboxKey(id).String(), "fd100e275403844e46de93d3c2f5e3506880a252"},
		{"peer key", PeerKey(id).String(), "2e486517f911b09305368c5a09c546d580b381ea"},
		{"node id", NodeID(id).String(), "cb7ee40677c1f4e9cf4fb0ce9c92b2bf8e70901f"},
	} {
		if x.got != x.want {
			t.Errorf("%s = %s, want %s", x.what, x.got, x.want)
		}
	}
	key, err := ParseKey(vector(t, "recipient_device.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if kid, _, err := PublicIDs(key.Public()); err != nil || kid != id {
		t.Errorf("key id of the private key = %s, %v; want %s", kid, err, id)
	}
}

func TestVectorReceipt(t *testing.T) {
	c := vecChain(t)
	text, sig := vector(t, "receipt.json"), vector(t, "receipt.sig")
	r, err := ParseReceipt(string(text), sig, c.Device, c.Account)
	if err != nil {
		t.Fatal(err)
	}
	if r.Eth != "85c4d63e24982777261f5ee46813ddcd4a6819e1" {
		t.Errorf("eth = %s", r.Eth)
	}
	bad := bytes.Clone(sig)
	bad[7] ^= 1
	for name, x := range map[string]struct {
		text string
		sig  []byte
	}{
		"no receipt":    {"", sig},
		"no signature":  {string(text), nil},
		"bad signature": {string(text), bad},
		"changed text":  {string(text[:len(text)-1]) + " }", sig},
	} {
		if _, err := ParseReceipt(x.text, x.sig, c.Device, c.Account); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestVectorArchives(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	for _, x := range []struct {
		file, password, account string
		contacts                int
		crl                     bool
	}{
		{"archive_plain.gz", "", "", 0, false},
		{"archive_password_contacts_crl.gz", vecPassword, vecAccount, 1, true},
	} {
		t.Run(x.file, func(t *testing.T) {
			a, err := ParseArchive(vector(t, x.file), []byte(x.password))
			if err != nil {
				t.Fatal(err)
			}
			id, _ := CertIDs(a.Account)
			if x.account != "" && id.String() != x.account {
				t.Errorf("account %s, want %s", id, x.account)
			}
			if a.CAKey == nil || a.CA == nil || len(a.Contacts) != x.contacts || (a.CRL != nil) != x.crl {
				t.Errorf("CA %v, contacts %v, CRL %d bytes", a.CA != nil, a.Contacts, len(a.CRL))
			}
			if a.Settings["Account.type"] != "RING" {
				t.Errorf("settings %v", a.Settings)
			}
			for _, pw := range []string{"", "another"} {
				packed, err := a.Pack([]byte(pw))
				if err != nil {
					t.Fatal(err)
				}
				again, err := ParseArchive(packed, []byte(pw))
				if err != nil || !reflect.DeepEqual(a, again) {
					t.Errorf("re-encoded with password %q: differs, %v", pw, err)
				}
			}
		})
	}
	if _, err := ParseArchive(vector(t, "archive_password_contacts_crl.gz"), []byte("wrong")); err == nil {
		t.Error("opened with a wrong password")
	}
	if _, err := ParseArchive(vector(t, "archive_password_contacts_crl.gz"), nil); err == nil {
		t.Error("opened without its password")
	}
}

func TestVectorEthAddress(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	a, err := ParseArchive(vector(t, "archive_password_contacts_crl.gz"), []byte(vecPassword))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := EthAddress(a.EthKey); err != nil || got != "85c4d63e24982777261f5ee46813ddcd4a6819e1" {
		t.Errorf("eth address %s, %v", got, err)
	}
}

func TestVectorValues(t *testing.T) {
	for _, name := range []string{"signed_text.value.bin", "device_announcement.value.bin", "certificate.value.bin",
		"enc_im_message.value.bin", "enc_trust_request_confirm.value.bin"} {
		b := vector(t, name)
		v, err := ParseValue(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again, err := v.Pack(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: re-encoding differs, %v", name, err)
		}
		if v.Signed() {
			if err := v.Verify(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			v.Data[0] ^= 1
			if v.Verify() == nil {
				t.Errorf("%s: verifies with changed data", name)
			}
		}
	}
	v, err := ParseValue(vector(t, "device_announcement.value.bin"))
	if err != nil {
		t.Fatal(err)
	}
	acc, err := ParseID(vecAccount)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := VerifyAnnouncement(v, acc); err != nil || a.Device.String() != vecDevice {
		t.Errorf("announcement %+v, %v", a, err)
	}
	if _, err := VerifyAnnouncement(v, HashKey("another")); err == nil {
		t.Error("announcement accepted for another account")
	}
}

func TestVectorDecrypt(t *testing.T) {
	key, err := ParseKey(vector(t, "recipient_device.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name, signer string
		typ          uint16
	}{
		{"enc_im_message", "d240e060a1ba85d8c71c960fc463c6e4c73bb84d", 3},
		{"enc_trust_request_confirm", "d240e060a1ba85d8c71c960fc463c6e4c73bb84d", 4},
	} {
		v, err := ParseValue(vector(t, x.name+".value.bin"))
		if err != nil {
			t.Fatal(err)
		}
		clear, err := Decrypt(key, v.Cipher)
		if err != nil || !bytes.Equal(clear, vector(t, x.name+".clear.bin")) {
			t.Errorf("%s: clear text differs, %v", x.name, err)
		}
		c, err := v.Decrypt(key)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		if c.Signer().String() != x.signer || c.Type != x.typ {
			t.Errorf("%s: signer %s type %d", x.name, c.Signer(), c.Type)
		}
		var m map[string]any
		if err := msgpack.Unmarshal(c.Data, &m); err != nil || len(m) == 0 {
			t.Errorf("%s: content %v, %v", x.name, m, err)
		}
	}
}

func TestVectorFiles(t *testing.T) {
	contacts := unhex(t, "81c414beb3100b089bad29623bdf2cd204274908ca5c9385a56164646564ce6b04d660a772656d6f76656400a9636f6e6669726d6564c3a662616e6e6564c2ae636f6e766572736174696f6e4964d92834373838393134623233303537663539383338333837343032326564353330633834313532636138")
	m, err := ParseContacts(contacts)
	if err != nil || len(m) != 1 {
		t.Fatalf("contacts %v, %v", m, err)
	}
	if again, err := PackContacts(m); err != nil || !bytes.Equal(again, contacts) {
		t.Errorf("contacts re-encoded: %x, %v", again, err)
	}
	known := unhex(t, "81c4207bf5d0a780cba1b866c05e9cb3d3c4d0442cf5c3bb303c651c91d5e3959e13c592a2766dce6b04d5d5")
	k, err := ParseKnownDevices(known)
	if err != nil || len(k) != 1 {
		t.Fatalf("known devices %v, %v", k, err)
	}
	if again, err := PackKnownDevices(k); err != nil || !bytes.Equal(again, known) {
		t.Errorf("known devices re-encoded: %x, %v", again, err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestArchiveKeepsWhatIsNotKnown: a newer version's entries are not lost.
func TestArchiveKeepsWhatIsNotKnown(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	a, err := ParseArchive(vector(t, "archive_password_contacts_crl.gz"), []byte(vecPassword))
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.json()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	m["newer"], m["newer list"], m["nothing"] = map[string]any{"a": 1.0}, []any{"x"}, nil
	for _, c := range m[entryContacts].(map[string]any) {
		c.(map[string]any)["newer"] = []any{1.0}
	}
	if text, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if a, err = ParseArchive(b.Bytes(), nil); err != nil {
		t.Fatal(err)
	}
	packed, err := a.Pack(nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = inflate(packed, maxArchive); err != nil {
		t.Fatal(err)
	}
	var again map[string]any
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, again) {
		t.Errorf("kept %v\nof %v", again, m)
	}
}

// TestHostileArchives: cut, flipped and swollen ones are refused, or are the same.
func TestHostileArchives(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	for _, x := range []struct{ file, password string }{{"archive_plain.gz", ""}, {"archive_password_contacts_crl.gz", vecPassword}} {
		good := vector(t, x.file)
		want, err := ParseArchive(good, []byte(x.password))
		if err != nil {
			t.Fatal(err)
		}
		var key []byte
		if x.password != "" {
			key = StretchKey([]byte(x.password), good[:saltSize])
		}
		for at := 0; at < len(good); at += 1000 {
			b := bytes.Clone(good)
			b[at] ^= 0x10
			if x.password != "" && at > 0 { // without the half second of each
				if _, err := Open(key, b[saltSize:]); err == nil {
					t.Errorf("%s: byte %d flipped: opened", x.file, at)
				}
				if _, err := Open(key, good[saltSize:max(at, saltSize)]); err == nil {
					t.Errorf("%s: cut at %d: opened", x.file, at)
				}
				continue
			}
			if got, err := ParseArchive(b, []byte(x.password)); err == nil && !reflect.DeepEqual(got, want) {
				t.Errorf("%s: byte %d flipped: taken for another archive", x.file, at)
			} else if x.password != "" && !errors.Is(err, ErrPassword) {
				t.Errorf("%s: byte %d flipped: %v", x.file, at, err)
			}
			if _, err := ParseArchive(good[:at], []byte(x.password)); err == nil {
				t.Errorf("%s: cut at %d: taken", x.file, at)
			}
		}
	}
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	for range 40 { // of 10 MiB
		if _, err := w.Write(make([]byte, 10<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseArchive(bomb.Bytes(), nil); err == nil || !strings.Contains(err.Error(), "beyond") {
		t.Errorf("a bomb of %d bytes: %v", bomb.Len(), err)
	}
	wrong, none := error(nil), error(nil)
	_, wrong = ParseArchive(vector(t, "archive_password_contacts_crl.gz"), []byte("wrong"))
	_, none = ParseArchive(vector(t, "archive_password_contacts_crl.gz"), nil)
	if wrong == nil || none == nil || wrong.Error() != none.Error() {
		t.Errorf("a wrong password: %v, none: %v", wrong, none)
	}
}

func BenchmarkOpenArchiveWithPassword(b *testing.B) {
	text := vector(b, "archive_password_contacts_crl.gz")
	for b.Loop() {
		if _, err := ParseArchive(text, []byte(vecPassword)); err != nil {
			b.Fatal(err)
		}
	}
}
