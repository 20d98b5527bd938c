package jami

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	vecPIN     = "5kmd1nf6"
	vecPINTime = 1795479091
)

func vecSlot(t testing.TB) PINSlot {
	t.Helper()
	p, err := ParsePIN(vecPIN)
	if err != nil {
		t.Fatal(err)
	}
	return p.Slot([]byte(vecPassword), time.Unix(vecPINTime, 0))
}

func TestVectorPIN(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	s := vecSlot(t)
	if got := hex.EncodeToString(s.Key); got != "999a324e8faec09550840b13153736433eb7c5f7b0575639d5fc4f519e26e59c" {
		t.Errorf("key %s", got)
	}
	if got := s.Location.String(); got != "2976973aa5dcf6e96b56899659c0875d317eddb0" {
		t.Errorf("location %s", got)
	}
	v, err := ParseValue(vector(t, "pin_archive.value.bin"))
	if err != nil || v.Type != TypeData || v.Signed() {
		t.Fatal(v, err)
	}
	a, err := ParsePINArchive(s, v.Data)
	if err != nil || a.ID().String() != vecAccount || a.CAKey == nil {
		t.Fatal(a, err)
	}
	b, err := a.PackForPIN(s)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParsePINArchive(s, b); err != nil || !reflect.DeepEqual(a, again) {
		t.Errorf("packed again it differs, %v", err)
	}
}

// An importer finds it with the seed of now or the one before.
func TestPINSlotsFollowTime(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	p, err := NewPIN()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1200*1000+1199, 0)
	slot := p.Slot(nil, at)
	if later := at.Add(time.Second); !reflect.DeepEqual(p.Slot(nil, later.Add(-PINPeriod)), slot) {
		t.Error("the slot before is another")
	} else if reflect.DeepEqual(p.Slot(nil, later), slot) {
		t.Error("a new period has the same slot")
	}
	if reflect.DeepEqual(p.Slot([]byte("pw"), at), slot) {
		t.Error("the password makes no difference")
	}
}

func TestNewPIN(t *testing.T) {
	const n = 36_000
	count := map[rune]int{}
	for range n {
		p, err := NewPIN()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParsePIN(p.Show()); err != nil || again != p {
			t.Fatalf("%q, %v", string(p), err)
		}
		for _, c := range string(p) {
			count[c]++
		}
	}
	// 8,000 of each on average, give or take 88; bytes mod 36 alone would give four of them 9,000.
	for _, c := range pinChars {
		if d := count[c] - n*pinSize/len(pinChars); d < -500 || d > 500 {
			t.Errorf("%c came %d times", c, count[c])
		}
	}
}

func TestParsePIN(t *testing.T) {
	for in, want := range map[string]string{" 5kMD1nf6\n": "5KMD1NF6", "00000000": "00000000", "": "", "5kmd1nf": "", "5kmd1nf61": "", "5kmd-nf6": "",
		"5kmd nf6": "", "ßkmd1nf": "", "ıkmd1nf": "", "ıkmd1nf6": "", "5kmd1nf\x00": ""} {
		got, err := ParsePIN(in)
		if string(got) != want || (want == "") != errors.Is(err, ErrPIN) {
			t.Errorf("%q is %q, %v", in, string(got), err)
		}
	}
	p := PIN("5KMD1NF6")
	if s := fmt.Sprintf("%v %s %#v %+v", p, p, p, []any{p}); strings.Contains(strings.ToUpper(s), string(p)) {
		t.Errorf("a PIN shows: %s", s)
	}
}

func TestPINArchiveErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("long computation without concurrency")
	}
	s := PINSlot{Key: make([]byte, 32)}
	a, err := ParseArchive(vector(t, "archive_plain.gz"), nil)
	if err != nil {
		t.Fatal(err)
	}
	good, err := a.PackForPIN(s)
	if err != nil {
		t.Fatal(err)
	}
	zip := func(text []byte) []byte {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out, err := Seal(s.Key, b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for what, x := range map[string]struct {
		data []byte
		want error
	}{
		"nothing": {nil, ErrDecrypt}, "cut": {good[:len(good)-1], ErrDecrypt}, "someone else's": {make([]byte, 1000), ErrDecrypt},
		"too long": {make([]byte, MaxValue+1), ErrDecrypt}, "a bomb": {zip(make([]byte, maxLinked+1)), ErrArchive},
		"no JSON": {zip([]byte("text")), ErrArchive}, "no archive": {zip([]byte("{}")), ErrArchive},
	} {
		if got, err := ParsePINArchive(s, x.data); got != nil || !errors.Is(err, x.want) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	a.Contacts = map[string]Contact{}
	for i := range 3000 {
		a.Contacts[HashKey(fmt.Sprint(i)).String()] = Contact{Added: 1, ConversationID: HashKey(fmt.Sprint(-i)).String()}
	}
	if _, err := a.PackForPIN(s); !errors.Is(err, ErrArchiveTooLarge) || !errors.Is(err, ErrArchive) {
		t.Error(err)
	}
}
