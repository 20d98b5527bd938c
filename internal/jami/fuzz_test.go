package jami

import (
	"bytes"
	"testing"
)

func FuzzParseValue(f *testing.F) {
	for _, name := range []string{"signed_text.value.bin", "device_announcement.value.bin", "certificate.value.bin", "enc_im_message.value.bin"} {
		f.Add(vector(f, name))
	}
	f.Add([]byte("\x82\xa2id\x01\xa3dat\x81\xa4body\x82\xa4type\x00\xa4data\x93\x01\x02\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseValue(b)
		if err != nil {
			return
		}
		packed, err := v.Pack()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseValue(packed)
		if err != nil {
			t.Fatalf("re-packed value does not parse: %v", err)
		}
		if packed2, err := again.Pack(); err != nil || !bytes.Equal(packed, packed2) {
			t.Errorf("packing is not stable, %v", err)
		}
	})
}

func FuzzParseAnnouncement(f *testing.F) {
	v, err := ParseValue(vector(f, "device_announcement.value.bin"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v.Data)
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := ParseAnnouncement(b); err == nil && a.Device.IsZero() {
			t.Error("no device")
		}
	})
}

func FuzzParseArchive(f *testing.F) {
	f.Add(vector(f, "archive_plain.gz"))
	f.Add([]byte(`{"ringAccountKey":"","ringAccountCert":"","conversations":{}}`))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseArchive(b, nil)
		if err != nil {
			return
		}
		if _, err := a.Pack(nil); err != nil {
			t.Error(err)
		}
	})
}

func FuzzParseReceipt(f *testing.F) {
	c := vecChain(f)
	f.Add(string(vector(f, "receipt.json")), vector(f, "receipt.sig"))
	f.Fuzz(func(t *testing.T, text string, sig []byte) {
		if r, err := ParseReceipt(text, sig, c.Device, c.Account); err == nil && r.Text != text {
			t.Error("another text")
		}
	})
}

func FuzzDecrypt(f *testing.F) {
	key := testKeys()[2]
	long, err := EncryptTo(&key.PublicKey, bytes.Repeat([]byte("x"), 300))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(long)
	f.Add(make([]byte, 256))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Decrypt(key, b); err != nil && len(b) == 0 {
			return
		}
		v := Value{Cipher: b}
		if got, err := v.Decrypt(key); err == nil && !got.Signed() {
			t.Error("an unsigned value was accepted")
		}
	})
}

func FuzzFiles(f *testing.F) {
	f.Add([]byte("\x80"))
	f.Add([]byte("\xdf\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseContacts(b); err == nil {
			if _, err := PackContacts(m); err != nil {
				t.Error(err)
			}
		}
		if m, err := ParseKnownDevices(b); err == nil {
			if _, err := PackKnownDevices(m); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzParseBin(f *testing.F) {
	for _, s := range []string{"\xc4\x02hi", "\xc5\x01\x00", "\xc6\xff\xff\xff\xff", "\xc4\x01ab", "\xa2hi", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := ParseBin(b)
		if err != nil {
			return
		}
		if again, err := PackBin(in); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x became %x, %v", b, again, err)
		}
	})
}
