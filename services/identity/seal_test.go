package identity

import (
	"errors"
	"testing"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

func TestSealValue(t *testing.T) {
	s := testHosted(t)
	seal := func(q contract.DHTSeal) (*contract.DHTSealed, error) {
		return s.sealValue(t.Context(), &bus.Request[contract.DHTSeal]{Params: []string{"acc"}, Body: q})
	}
	got, err := seal(contract.DHTSeal{Type: 3, Data: []byte("hello"), UserType: "text", Seq: 7})
	if err != nil || len(got.Values) != 1 {
		t.Fatal(got, err)
	}
	v, err := jami.ParseValue(got.Values[0].Packed)
	if err != nil || v.Verify() != nil || v.ID == 0 || v.Seq != 7 || string(v.Data) != "hello" || v.Signer() != s.acc.Chain.DeviceShort {
		t.Errorf("%+v, %v", v, err)
	}
	for _, q := range []contract.DHTSeal{{Data: make([]byte, jami.MaxValue)}, {Data: []byte("x"), To: "me"}, {Data: []byte("x"), To: jami.ID{}.String()}} {
		if _, err := seal(q); !errors.Is(err, contract.ErrBadRequest) {
			t.Errorf("%.40v: %v", q, err)
		}
	}
}

func TestOpenValue(t *testing.T) {
	s := testHosted(t)
	open := func(b []byte) (*contract.DHTPacked, error) {
		return s.openValue(t.Context(), &bus.Request[contract.DHTOpen]{Params: []string{"acc"}, Body: contract.DHTOpen{Packed: b}})
	}
	mine, err := (&jami.Value{ID: 5, Type: 3, Data: []byte("secret")}).EncryptTo(s.acc.Chain.Device.PublicKey, testKeys().Account)
	if err != nil {
		t.Fatal(err)
	}
	b, err := mine.Pack()
	if err != nil {
		t.Fatal(err)
	}
	got, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := jami.ParseValue(got.Packed); err != nil || v.Verify() != nil || string(v.Data) != "secret" || v.Signer() != s.acc.Chain.JamiID {
		t.Errorf("%+v, %v", v, err)
	}
	others, err := (&jami.Value{ID: 5, Data: []byte("secret")}).EncryptTo(testKeys().CA.Public(), testKeys().Account)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = others.Pack(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(b); !errors.Is(err, contract.ErrForbidden) {
		t.Error(err)
	}
	if _, err := open([]byte("junk")); !errors.Is(err, contract.ErrBadRequest) {
		t.Error(err)
	}
}
