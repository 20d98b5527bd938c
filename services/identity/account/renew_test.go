package account

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// An account whose certificates are over gets new ones at the next start and at an import,
// with the same ids; a revocation list goes along.
func TestExpiredCertificatesAreRenewed(t *testing.T) {
	root := t.TempDir()
	made, err := (&Store{Root: root}).Create(testKeys(), testSettings, time.Now().Add(-jami.Validity-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if made.Dates(time.Now()) != nil {
		t.Error("not renewed when it was made") // it is loaded then
	}

	root = t.TempDir()
	past := time.Now().Add(-jami.Validity - time.Hour)
	then := &Store{Root: root, Now: func() time.Time { return past }}
	if made, err = then.Create(testKeys(), testSettings, past); err != nil {
		t.Fatal(err)
	}
	if made.Dates(time.Now()) == nil {
		t.Fatal("not over")
	}
	export, err := made.Export(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, a *Account) {
		t.Helper()
		c, err := (&trust.Rules{Account: made.Chain.JamiID}).Check(a.Chain.Certs())
		if err != nil || c.JamiID != made.Chain.JamiID {
			t.Errorf("%s: %v", what, err)
		}
		if a.Receipt.Text == "" || a.Dates(time.Now()) != nil {
			t.Errorf("%s: %v", what, a.Dates(time.Now()))
		}
	}
	for range 2 { // and what was renewed stays
		a, err := (&Store{Root: root}).Load()
		if err != nil {
			t.Fatal(err)
		}
		check("loaded", a)
		if a.Chain.DeviceID != made.Chain.DeviceID {
			t.Error("another device")
		}
	}
	a, _, err := (&Store{Root: t.TempDir()}).Import(export, nil, testKeys().Device, Alone, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	check("imported", a)

	// Killed between the two files: the archive is renewed, the chain is not.
	if err := os.WriteFile(filepath.Join(filepath.Join(root, filepath.Base(made.Dir)), fileChain), made.Chain.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err = (&Store{Root: root}).Load(); err != nil {
		t.Fatal(err)
	}
	check("half renewed", a)
}

func TestAccountOfAnAuthority(t *testing.T) {
	root := t.TempDir()
	s := &Store{Root: root}
	request, err := s.Request(testKeys(), testSettings, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	caKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	caCert, err := jami.NewCA(caKey, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := jami.NewAuthority(caCert, caKey, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.Issue(request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := jami.NewAccountRequest(caKey)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ca.Issue(other, time.Now())
	for name, x := range map[string]struct {
		chain []byte
		is    func(error) bool
	}{
		"nothing":           {nil, func(err error) bool { return err != nil }},
		"without authority": {jami.MarshalChain(issued[0]), func(err error) bool { return errors.Is(err, &trust.Error{Reason: trust.MissingCA}) }},
		"the wrong way":     {jami.MarshalChain(caCert, issued[0]), func(err error) bool { return errors.Is(err, ErrNotRequested) }},
	} {
		if _, err := s.Complete(x.chain, time.Now()); !x.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err == nil {
		if _, err := s.Complete(jami.MarshalChain(foreign...), time.Now()); !errors.Is(err, ErrNotRequested) {
			t.Errorf("for another key: %v", err)
		}
	}
	if _, err := s.Load(); !errors.Is(err, ErrNone) {
		t.Fatalf("an account before its certificate: %v", err)
	}
	a, err := s.Complete(jami.MarshalChain(issued...), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Chain.Authorities) != 1 || !a.Chain.Authorities[0].Equal(caCert) {
		t.Errorf("authorities %v", a.Chain.Authorities)
	}
	if err := a.ChangeArchive(nil, func(archive *jami.Archive) error {
		if archive.CAKey != nil || !archive.CA.Equal(caCert) {
			t.Error("the authority's key, or another certificate, is in the archive")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if left, err := s.requests(); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := s.Complete(jami.MarshalChain(issued...), time.Now()); !errors.Is(err, ErrNotRequested) {
		t.Errorf("once more: %v", err)
	}

	for range maxRequests {
		if _, err := s.Request(testKeys(), testSettings, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Request(testKeys(), testSettings, time.Now()); !errors.Is(err, ErrManyRequests) {
		t.Errorf("too many: %v", err)
	}
	if _, err := s.Request(testKeys(), testSettings, time.Now().Add(keepRequest+time.Hour)); err != nil {
		t.Errorf("after they were too old: %v", err)
	}
}
