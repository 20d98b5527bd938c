package jams

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	mrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names/namestest"
)

// What requests are made of: labels of stock and of RFC 7468.
const (
	pemStock = "NEW CERTIFICATE REQUEST"
	pemCSR   = "CERTIFICATE REQUEST"
)

var oidUID = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}

func csrOf(t testing.TB, tmpl *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCSR, Bytes: der})
}

// hostile are requests that are refused, by what is wrong with them.
func hostile(t testing.TB) map[string][]byte {
	keys := namestest.Accounts(t, 2)
	good, err := NewCSR(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewCSR(keys[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	flipped := bytes.Clone(block.Bytes)
	flipped[len(flipped)-1] ^= 1
	block2, _ := pem.Decode(other)
	mixed := bytes.Clone(block2.Bytes) // the signature of another key
	copy(mixed[len(mixed)-256:], block.Bytes[len(block.Bytes)-256:])
	raw := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	uid := pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidUID, Value: strings.Repeat("0", 40)}}}
	return map[string][]byte{
		"nothing": nil, "no PEM": []byte("hello"), "another block": raw("CERTIFICATE", block.Bytes), "two": append(bytes.Clone(good), other...),
		"cut off": raw(pemCSR, block.Bytes[:len(block.Bytes)/2]), "bit flipped": raw(pemCSR, flipped), "signature of another": raw(pemCSR, mixed),
		"huge": append(bytes.Clone(good), bytes.Repeat([]byte("\n"), MaxCSR)...), "small key": csrOf(t, &x509.CertificateRequest{}, small),
		"ecdsa": csrOf(t, &x509.CertificateRequest{}, ec), "another key's UID": csrOf(t, &x509.CertificateRequest{Subject: uid}, keys[0]),
	}
}

func TestCSR(t *testing.T) {
	key := namestest.Accounts(t, 1)[0]
	good, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string][]byte{"as it is": good, "with stock's NUL": append(bytes.Clone(good), 0),
		"of RFC 7468": bytes.ReplaceAll(good, []byte(pemStock), []byte(pemCSR))} {
		if pub, err := ParseCSR(text); err != nil || !pub.Equal(&key.PublicKey) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, text := range hostile(t) {
		if _, err := ParseCSR(text); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestUserName(t *testing.T) {
	for in, want := range map[string]string{"Alice": "alice", "a.b@c-d_1": "a.b@c-d_1", "": "", "a/b": "", "../x": "", "..": "", "a:b": "", "a\x00": "", "ä": "",
		"a b": "", strings.Repeat("a", 65): "", "a,dc=x": "", "*": ""} {
		got, err := UserName(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// Whatever the order in which devices tell what they know, all come to the same.
func TestMergeKnowsNoOrder(t *testing.T) {
	for range 500 {
		parts := make([]Contacts, 4)
		for i := range parts {
			parts[i] = Contacts{}
			for id := range byte(3) {
				parts[i][jami.ID{id}] = jami.Contact{Added: mrand.Int64N(4), Removed: mrand.Int64N(4), Confirmed: mrand.IntN(2) == 0,
					Banned: mrand.IntN(2) == 0, ConversationID: string(rune('a' + mrand.IntN(3)))}
			}
		}
		var first Contacts
		for range 6 {
			all := Contacts{}
			for _, i := range mrand.Perm(len(parts)) {
				all.Merge(parts[i])
				all.Merge(parts[i]) // told twice
			}
			if first == nil {
				first = all
			} else if !maps.Equal(first, all) {
				t.Fatalf("%v\n%v\n%v", parts, first, all)
			}
		}
	}
}

// A server can lie: nothing of this is believed.
func TestLyingServer(t *testing.T) {
	keys := namestest.Accounts(t, 5)
	now := time.Now()
	ca, err := jami.NewCA(keys[0], now)
	if err != nil {
		t.Fatal(err)
	}
	account, err := jami.NewAccount(&keys[1].PublicKey, ca, keys[0], now)
	if err != nil {
		t.Fatal(err)
	}
	device, err := jami.NewDevice(&keys[2].PublicKey, account, keys[1], now)
	if err != nil {
		t.Fatal(err)
	}
	old, err := jami.NewDevice(&keys[2].PublicKey, account, keys[1], now.Add(-2*jami.Validity))
	if err != nil {
		t.Fatal(err)
	}
	other, err := jami.NewDevice(&keys[3].PublicKey, account, keys[1], now)
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := jami.NewReceipt(keys[1], &keys[2].PublicKey, "00")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := jami.NewReceipt(keys[4], &keys[2].PublicKey, "00")
	if err != nil {
		t.Fatal(err)
	}
	good := EnrolReply{CertificateChain: string(jami.MarshalChain(device, account, ca)), DeviceReceipt: receipt.Text, ReceiptSignature: receipt.Sig, NameServer: "/ns",
		Settings: map[string]string{"Account.displayName": "A"}}
	for _, tt := range []struct {
		what string
		edit func(r *EnrolReply)
		ok   bool
	}{
		{"the truth", func(*EnrolReply) {}, true},
		{"nothing", func(r *EnrolReply) { *r = EnrolReply{} }, false},
		{"another device's certificate", func(r *EnrolReply) { r.CertificateChain = string(jami.MarshalChain(other, account, ca)) }, false},
		{"expired", func(r *EnrolReply) { r.CertificateChain = string(jami.MarshalChain(old, account, ca)) }, false},
		{"no account", func(r *EnrolReply) { r.CertificateChain = string(jami.MarshalChain(device, ca)) }, false},
		{"no authority", func(r *EnrolReply) { r.CertificateChain = string(jami.MarshalChain(device, account)) }, false},
		{"wrong order", func(r *EnrolReply) { r.CertificateChain = string(jami.MarshalChain(device, ca, account)) }, false},
		{"receipt of another account", func(r *EnrolReply) { r.DeviceReceipt, r.ReceiptSignature = foreign.Text, foreign.Sig }, false},
		{"receipt changed", func(r *EnrolReply) { r.DeviceReceipt += " " }, false},
		{"no receipt", func(r *EnrolReply) { r.DeviceReceipt = "" }, false},
	} {
		r := good
		tt.edit(&r)
		body, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
		c, err := New(Options{Server: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		e, err := c.Enrol(t.Context(), "alice", "pw", "laptop", keys[2])
		if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, ErrInvalidReply) {
			t.Errorf("%s: %v", tt.what, err)
		}
		if tt.ok && (e.NameServer != srv.URL+"/ns" || e.Settings["Account.displayName"] != "A" || e.Chain.JamiID != receipt.Account) {
			t.Errorf("%+v", e)
		}
		c.Close()
		srv.Close()
	}
}

func TestAnswers(t *testing.T) {
	status, body := 0, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status == 302 {
			w.Header().Set("Location", "http://192.0.2.1/")
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	defer srv.Close()
	c, err := New(Options{Server: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tt := range []struct {
		status int
		body   string
		want   error
	}{
		{401, "", ErrBadCredentials}, {403, `{"code":"forbidden","errorDetails":"no"}`, ErrForbidden}, {404, "", ErrNotFound}, {429, "", ErrLimited}, {400, "", ErrRefused},
		{401, `{"code":"revoked","errorDetails":"for good"}`, ErrRevoked}, {403, `{"code":"revoked","errorDetails":"for good"}`, ErrRevoked},
		{404, `{"code":"revoked","errorDetails":"x"}`, ErrNotFound}, {500, `{"code":"revoked","errorDetails":"x"}`, ErrUnavailable}, {503, `{"code":"revoked"}`, ErrUnavailable},
		{500, "", ErrUnavailable}, {302, "", ErrUnavailable}, {200, "", ErrInvalidReply}, {200, "{}", ErrInvalidReply},
		{200, `{"scope":"DEVICE","access_token":"x","expires_in":9}`, ErrInvalidReply}, {200, `{"scope":"USER","access_token":"a\r\nb","expires_in":9}`, ErrInvalidReply},
		{200, `{"scope":"USER","access_token":"x","expires_in":9}`, nil}, {200, strings.Repeat("x", maxReply+1), ErrInvalidReply},
	} {
		status, body = tt.status, tt.body
		if err := c.AsUser("a", "b").Login(t.Context()); !errors.Is(err, tt.want) {
			t.Errorf("%d %.60s: %v, want %v", tt.status, tt.body, err, tt.want)
		}
	}
	for _, bad := range []string{"", "ftp://x", "http://a@b", "https://h/?q", "https://"} {
		if _, err := New(Options{Server: bad}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A server may say when to come back, within reason.
func TestRetryAfter(t *testing.T) {
	value := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", value)
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer srv.Close()
	c, err := New(Options{Server: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for in, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "999999999": maxWait} {
		value = in
		err := c.AsUser("a", "b").Login(t.Context())
		if wait, ok := RetryAfter(err); !errors.Is(err, ErrLimited) || wait != want || ok != (want > 0) {
			t.Errorf("%q: %s, %v", in, wait, err)
		}
	}
}

func FuzzParseDevices(f *testing.F) {
	f.Add([]byte(`[{"deviceId":"` + strings.Repeat("aB", 32) + `","alias":"laptop\u0000"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"deviceId":"../x"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseDevices(b)
		if err != nil && !errors.Is(err, ErrInvalidReply) {
			t.Error(err)
		}
		for _, d := range list {
			if _, err := ParseDeviceID(d.ID); err != nil || len(d.Alias) > MaxDeviceName || d.ID != strings.ToLower(d.ID) {
				t.Errorf("%+v", d)
			}
		}
	})
}

func FuzzParseCSR(f *testing.F) {
	good, err := NewCSR(namestest.Accounts(f, 1)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, text := range hostile(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pub, err := ParseCSR(b)
		if (pub == nil) != (err != nil) || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%v, %v", pub, err)
		}
	})
}

func FuzzParseContacts(f *testing.F) {
	f.Add([]byte(`[{"uri":"4f891b21a87d5e3c41f96563e358a295aba4e960","added":1,"removed":2,"banned":true,"conversationId":"x"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`[{"uri":"jami:4f891b21a87d5e3c41f96563e358a295aba4e960"},{"uri":"4f891b21a87d5e3c41f96563e358a295aba4e960","added":9}]`))
	f.Add([]byte(`[{"uri":"../x"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseContacts(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseContacts(text)
		if err != nil || !maps.Equal(c, back) {
			t.Errorf("%v, %v, %v", c, back, err)
		}
	})
}

func FuzzParseReplies(f *testing.F) {
	f.Add([]byte(`{"certificateChain":"x","deviceReceipt":"y","receiptSignature":"AA==","nameServer":"/ns","Account.displayName":"A","n":1}`))
	f.Add([]byte(`{"csr":"x","deviceName":"\u0000 a"}`))
	f.Add([]byte(`{}x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseEnrolRequest(b); err == nil && len(r.DeviceName) > MaxDeviceName {
			t.Errorf("%q", r.DeviceName)
		}
		r, err := ParseEnrolReply(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseEnrolReply(text); err != nil || back.CertificateChain != r.CertificateChain || !bytes.Equal(back.ReceiptSignature, r.ReceiptSignature) ||
			!maps.Equal(back.Settings, r.Settings) {
			t.Errorf("%+v, %+v, %v", r, back, err)
		}
	})
}
