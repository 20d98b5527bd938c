package names_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/internal/names/namestest"
)

func TestNormalize(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"abc", "abc"}, {"Alice", "alice"}, {"ALICE-1_x", "alice-1_x"}, {"-ab", "-ab"}, {"___", "___"}, {"000", "000"},
		{strings.Repeat("Z", 32), strings.Repeat("z", 32)},
		{in: ""}, {in: "ab"}, {in: strings.Repeat("x", 33)}, {in: "a b"}, {in: "a/b"}, {in: "a%62c"}, {in: "..."}, {in: "abc\x00"}, {in: "abc\n"},
		{in: "аlice"},      // a Cyrillic letter
		{in: "\u212Aelly"}, // the Kelvin sign folds to k elsewhere
		{in: "ſam1"},       // a long s folds to s elsewhere
		{in: "ali\u0301ce"}, {in: "\xff\xfe\xfd"}, {in: "ａｌｉｃｅ"}, {in: "alice@"},
	} {
		got, err := names.Normalize(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, names.ErrInvalidName) {
			t.Errorf("%q: %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestParseAddr(t *testing.T) {
	const id = "4f891b21a87d5e3c41f96563e358a295aba4e960"
	for _, s := range []string{id, "0x" + id, "0X" + strings.ToUpper(id)} {
		if got, err := names.ParseAddr(s); err != nil || got.String() != id {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0x", id[:39], id + "0", "0x0x" + id[:38], strings.Repeat("0", 40), strings.Repeat("g", 40), "jami:" + id} {
		if _, err := names.ParseAddr(s); !errors.Is(err, names.ErrInvalidName) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func record(t testing.TB, name string, account crypto.Signer) names.Record {
	t.Helper()
	r, err := names.Sign(name, account)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoundTrip(t *testing.T) {
	r := record(t, "Alice", namestest.Accounts(t, 1)[0])
	if r.Name != "alice" || !r.Verified() {
		t.Fatalf("%+v", r)
	}
	for what, parse := range map[string]func() (names.Record, error){
		"registration": func() (names.Record, error) { return names.ParseRegistration("ALICE", r.Registration("00")) },
		"reply":        func() (names.Record, error) { return names.ParseReply("alice", r.Reply()) },
		"reverse":      func() (names.Record, error) { return names.ParseReply("", r.Reply()) },
	} {
		got, err := parse()
		if err != nil || got.Name != r.Name || got.Addr != r.Addr || !bytes.Equal(got.Key, r.Key) || !bytes.Equal(got.Signature, r.Signature) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

// edit is a registration with one field changed; nil removes it.
func edit(t testing.TB, body []byte, field string, value any) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	if m[field] = value; value == nil {
		delete(m, field)
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestHostileRegistrations(t *testing.T) {
	keys := namestest.Accounts(t, 2)
	mine, other := record(t, "alice", keys[0]), record(t, "alice", keys[1])
	good := mine.Registration("00")
	field := func(r *names.Record, f string) any {
		var m map[string]any
		if err := json.Unmarshal(r.Registration(""), &m); err != nil {
			t.Fatal(err)
		}
		return m[f]
	}
	text, err := base64.StdEncoding.DecodeString(field(&mine, "publickey").(string))
	if err != nil {
		t.Fatal(err)
	}
	pem := strings.TrimRight(string(text), "\x00\n")
	sha256Sig, err := keys[0].Sign(rand.Reader, make([]byte, 32), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum512([]byte("alice"))
	pss, err := rsa.SignPSS(rand.Reader, keys[0], crypto.SHA512, digest[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what, name string
		body       []byte
		want       error
	}{
		{"as it should be", "alice", good, nil},
		{"in capitals", "ALICE", good, nil},
		{"0x and capitals", "alice", edit(t, good, "addr", "0x"+strings.ToUpper(mine.Addr.String())), nil},
		{"no NUL after the key", "alice", edit(t, good, "publickey", b64(pem)), nil},
		{"a field more", "alice", edit(t, good, "avatar", "x"), nil},
		{"replayed for another name", "bobby", good, names.ErrBadSignature},
		{"replayed for a longer name", "alice1", good, names.ErrBadSignature},
		{"another's address", "alice", edit(t, good, "addr", other.Addr.String()), names.ErrBadSignature},
		{"another's key", "alice", edit(t, good, "publickey", field(&other, "publickey")), names.ErrBadSignature},
		{"another's signature", "alice", edit(t, good, "signature", field(&other, "signature")), names.ErrBadSignature},
		{"SHA-256", "alice", edit(t, good, "signature", b64(string(sha256Sig))), names.ErrBadSignature},
		{"PSS", "alice", edit(t, good, "signature", b64(string(pss))), names.ErrBadSignature},
		{"signature cut", "alice", edit(t, good, "signature", b64(string(mine.Signature[:255]))), names.ErrBadSignature},
		{"signature of zeros", "alice", edit(t, good, "signature", b64(strings.Repeat("\x00", 256))), names.ErrBadSignature},
		{"no signature", "alice", edit(t, good, "signature", nil), names.ErrIncomplete},
		{"empty signature", "alice", edit(t, good, "signature", ""), names.ErrIncomplete},
		{"no key", "alice", edit(t, good, "publickey", nil), names.ErrIncomplete},
		{"no address", "alice", edit(t, good, "addr", nil), names.ErrIncomplete},
		{"address is no id", "alice", edit(t, good, "addr", "alice"), names.ErrIncomplete},
		{"address is a number", "alice", edit(t, good, "addr", 7), names.ErrIncomplete},
		{"key not base64", "alice", edit(t, good, "publickey", "*"), names.ErrIncomplete},
		{"key not PEM", "alice", edit(t, good, "publickey", b64("x")), names.ErrIncomplete},
		{"words before the key", "alice", edit(t, good, "publickey", b64("x\n"+pem)), names.ErrIncomplete},
		{"two keys", "alice", edit(t, good, "publickey", b64(pem+"\n"+pem)), names.ErrIncomplete},
		{"key cut", "alice", edit(t, good, "publickey", b64(pem[:200])), names.ErrIncomplete},
		{"a NUL within the key", "alice", edit(t, good, "publickey", b64(pem[:100]+"\x00"+pem[100:])), names.ErrIncomplete},
		{"certificate for a key", "alice", edit(t, good, "publickey", b64(strings.ReplaceAll(pem, "PUBLIC KEY", "CERTIFICATE"))), names.ErrIncomplete},
		{"not JSON", "alice", []byte("alice"), names.ErrIncomplete},
		{"empty", "alice", nil, names.ErrIncomplete},
		{"null", "alice", []byte("null"), names.ErrIncomplete},
		{"a list", "alice", []byte("[]"), names.ErrIncomplete},
		{"two objects", "alice", append(bytes.Clone(good), good...), names.ErrIncomplete},
		{"deep", "alice", []byte(strings.Repeat("[", 8000)), names.ErrIncomplete},
		{"too long", "alice", edit(t, good, "x", strings.Repeat("x", names.MaxBody)), names.ErrIncomplete},
		{"name is a path", "../alice", good, names.ErrInvalidName},
		{"name in Cyrillic", "аlice", good, names.ErrInvalidName},
	} {
		if _, err := names.ParseRegistration(tt.name, tt.body); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
		}
	}
	for n := range good {
		if _, err := names.ParseRegistration("alice", good[:n]); err == nil {
			t.Errorf("cut to %d bytes it is taken", n)
		}
	}
}

// Which keys are refused: one that is small could be made by others, one that is
// large would make checking it an attack.
func TestUnfitKeys(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []crypto.Signer{ec, weak} {
		if _, err := names.Sign("alice", k); !errors.Is(err, names.ErrUnsupported) {
			t.Errorf("%T: %v", k, err)
		}
	}
	r := record(t, "alice", namestest.Accounts(t, 1)[0])
	r.Key = append(r.Key, 0)
	r.Addr = jami.KeyID(r.Key)
	if err := r.Verify(); !errors.Is(err, names.ErrBadSignature) {
		t.Errorf("a byte after the key: %v", err)
	}
}

func TestHostileReplies(t *testing.T) {
	keys := namestest.Accounts(t, 2)
	mine, other := record(t, "alice", keys[0]), record(t, "alice", keys[1])
	good := mine.Reply()
	for _, tt := range []struct {
		what, name string
		body       []byte
		want       error
		verified   bool
	}{
		{"as it should be", "alice", good, nil, true},
		{"address alone", "alice", []byte(`{"addr":"0x` + mine.Addr.String() + `"}`), nil, false},
		{"key without signature", "alice", edit(t, good, "signature", nil), nil, false},
		{"name alone", "", []byte(`{"name":"alice"}`), nil, false},
		{"of another name", "bobby", good, names.ErrInvalidReply, false},
		{"another's address", "alice", edit(t, good, "addr", other.Addr.String()), names.ErrInvalidReply, false},
		{"key is noise", "alice", edit(t, good, "publickey", "AAAA"), names.ErrInvalidReply, false},
		{"no address", "alice", []byte(`{}`), names.ErrNotFound, false},
		{"no name", "", []byte(`{}`), names.ErrNotFound, false},
		{"name is markup", "", []byte(`{"name":"<b>"}`), names.ErrInvalidReply, false},
		{"address is zero", "alice", []byte(`{"addr":"` + strings.Repeat("0", 40) + `"}`), names.ErrInvalidReply, false},
		{"not JSON", "alice", []byte("<html>"), names.ErrInvalidReply, false},
		{"empty", "alice", nil, names.ErrInvalidReply, false},
	} {
		r, err := names.ParseReply(tt.name, tt.body)
		if !errors.Is(err, tt.want) || r.Verified() != tt.verified {
			t.Errorf("%s: %v verified %v, want %v %v", tt.what, err, r.Verified(), tt.want, tt.verified)
		}
	}
}

func TestResultsOfThePeer(t *testing.T) {
	for _, tt := range []struct {
		err                  error
		lookup, registration int
	}{
		{nil, 0, 0}, {names.ErrInvalidName, 1, 2}, {names.ErrNotFound, 2, 4}, {names.ErrTaken, 3, 3}, {names.ErrIncomplete, 3, 5},
		{names.ErrBadSignature, 3, 6}, {names.ErrUnsupported, 3, 7}, {names.ErrUnavailable, 3, 4}, {errors.New("x"), 3, 4},
	} {
		if l, r := names.LookupResult(tt.err), names.RegistrationResult(tt.err); l != tt.lookup || r != tt.registration {
			t.Errorf("%v: %d, %d", tt.err, l, r)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	r := record(f, "alice", namestest.Accounts(f, 1)[0])
	f.Add("alice", r.Reply())
	f.Add("", r.Reply())
	f.Add("", []byte(`{"name":"alice"}`))
	f.Add(strings.Repeat("\xff", 9000), []byte(`{"addr":"271130a0ab1459f07ccb6cdfe6ec2c0eba084acd"}`))
	f.Add("alice", []byte(`{"addr":"0x4f891b21a87d5e3c41f96563e358a295aba4e960"}`))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		r, err := names.ParseReply(name, body)
		if err != nil {
			return
		}
		name = r.Name
		if r.Verified() && r.Verify() != nil {
			t.Error("verified, and does not verify")
		}
		if r.Addr.IsZero() {
			return
		}
		again, err := names.ParseReply(name, r.Reply())
		if err != nil || again.Addr != r.Addr || again.Verified() != r.Verified() {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzParseRegistration(f *testing.F) {
	r := record(f, "alice", namestest.Accounts(f, 1)[0])
	f.Add("alice", r.Registration("00"))
	f.Add("ALICE", r.Reply())
	f.Add("alice", r.Registration("00")[:300])
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		r, err := names.ParseRegistration(name, body)
		if err != nil {
			return
		}
		if want, err := names.Normalize(name); err != nil || r.Name != want || r.Verify() != nil || !r.Verified() {
			t.Errorf("taken: %q %+v", name, r)
		}
	})
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"alice", "Al-1_x", "аlice", "", "a@b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := names.Normalize(s)
		if err != nil {
			return
		}
		if again, err := names.Normalize(n); err != nil || again != n || len(n) != len(s) || n != strings.ToLower(s) {
			t.Errorf("%q became %q, %q, %v", s, n, again, err)
		}
	})
}
