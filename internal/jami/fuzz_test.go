package jami

import (
	"bytes"
	"net/netip"
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

// stable checks that what was parsed is the same when packed and parsed again.
func stable[T any](t *testing.T, b []byte, parse func([]byte) (T, error), pack func(T) ([]byte, error)) {
	t.Helper()
	v, err := parse(b)
	if err != nil {
		return
	}
	packed, err := pack(v)
	if err != nil {
		t.Fatalf("what was parsed does not pack: %v", err)
	}
	again, err := parse(packed)
	if err != nil {
		t.Fatalf("what was packed does not parse: %v", err)
	}
	if twice, err := pack(again); err != nil || !bytes.Equal(packed, twice) {
		t.Errorf("packing is not stable: %x, %x, %v", packed, twice, err)
	}
}

func FuzzParseTrustRequest(f *testing.F) {
	f.Add(vectorData(f, "enc_trust_request_confirm"))
	f.Add([]byte("\x82\xa7service\xa7cx.ring\xa7payload\xc0"))
	f.Fuzz(func(t *testing.T, b []byte) { stable(t, b, ParseTrustRequest, (*TrustRequest).Pack) })
}

func FuzzParseImMessage(f *testing.F) {
	f.Add(vectorData(f, "enc_im_message"))
	f.Add([]byte("\x81\xa9metadatas\x82\xa1b\xa0\xa1a\xa1x"))
	f.Fuzz(func(t *testing.T, b []byte) { stable(t, b, ParseImMessage, (*ImMessage).Pack) })
}

func FuzzParseDeviceSync(f *testing.F) {
	b, err := sampleSync().Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x81\xa5peers\xdf\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) { stable(t, b, ParseDeviceSync, (*DeviceSync).Pack) })
}

func FuzzParseSyncMsg(f *testing.F) {
	b, err := sampleSyncMsg().Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x94\x80\x80\x80\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, token, err := SplitSyncMsg(b, true)
		if err == nil && (n != len(token) || n > len(b)) {
			t.Errorf("%d bytes of %d are a token of %d", n, len(b), len(token))
		}
		stable(t, b, ParseSyncMsg, (*SyncMsg).Pack)
	})
}

func FuzzParseRequests(f *testing.F) {
	b, err := PackRequests(map[ID]PendingRequest{{1}: {ConversationID: "c", Received: 1, Payload: []byte("p")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\xdf\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) { stable(t, b, ParseRequests, PackRequests) })
}

// FuzzParsePINArchive has what is under the encryption: nothing else gets past that.
func FuzzParsePINArchive(f *testing.F) {
	s := vecSlot(f)
	v, err := ParseValue(vector(f, "pin_archive.value.bin"))
	if err != nil {
		f.Fatal(err)
	}
	packed, err := Open(s.Key, v.Data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add([]byte("x\x9c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, err := Seal(s.Key, b)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := ParsePINArchive(s, data); err == nil && a.AccountKey == nil {
			t.Error("an archive without a key")
		}
		if _, err := ParsePINArchive(s, b); err == nil {
			t.Error("taken in the clear")
		}
	})
}

func FuzzParsePIN(f *testing.F) {
	f.Add(vecPIN)
	f.Add(" ABCDEFGH ")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePIN(s)
		if err != nil {
			return
		}
		if again, err := ParsePIN(p.Show()); err != nil || again != p || len(p) != pinSize {
			t.Errorf("%q", s)
		}
	})
}

func FuzzParseAddresses(f *testing.F) {
	b, err := (&Addresses{ID: 7, Answer: true, List: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x81\xa5addrs\xdd\xff\xff\xff\xff"))
	f.Add([]byte("\x81\xa5addrs\x91\xc4\x04\xe0\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) { stable(t, b, ParseAddresses, (*Addresses).Pack) })
}
