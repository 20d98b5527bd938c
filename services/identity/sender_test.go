package identity

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/identity/account"
)

// Who is shut out by an authority above, blocked or by that authority's list, neither
// asks nor is written to.
func TestSendersBelowAnAuthority(t *testing.T) {
	f := newField(t)
	alice := newPeer(t, f.over, pool()[0], pool()[1])
	alice.publish()
	v := &jami.Value{Owner: alice.chain.Device.RawSubjectPublicKeyInfo}
	acc := f.host().acc
	if _, err := f.host().sender(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	top, _ := jami.CertIDs(alice.chain.Authorities[0])
	if _, err := acc.ChangeContact(top, account.Block, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.host().sender(t.Context(), v); !errors.Is(err, errBlocked) {
		t.Errorf("its authority is blocked: %v", err)
	}
	if _, err := acc.ChangeContact(top, account.Unblock, time.Now()); err != nil {
		t.Fatal(err)
	}
	der, err := jami.ExtendCRL(alice.chain.Authorities[0], pool()[7], time.Now(), []*x509.Certificate{alice.chain.Account})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acc.Revocations().Add(der, alice.chain.Authorities[0]); err != nil { // as account crl does
		t.Fatal(err)
	}
	if _, err := f.host().sender(t.Context(), v); !errors.Is(err, &trust.Error{Reason: trust.Revoked}) {
		t.Errorf("its authority revoked it: %v", err)
	}
	if devices, _, err := f.host().devicesOf(t.Context(), alice.chain.JamiID); err != nil || len(devices) != 0 {
		t.Errorf("%d devices are written to, %v", len(devices), err)
	}
}
