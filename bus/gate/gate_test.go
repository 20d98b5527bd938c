package gate

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// account is a Jami account with its keys.
type account struct {
	key, caKey *rsa.PrivateKey
	cert, ca   *x509.Certificate
	id         jami.ID
	deviceKey  *rsa.PrivateKey
	made       time.Time
}

var theAccount = sync.OnceValue(func() *account {
	a := &account{made: time.Now().Add(-time.Hour)}
	var err error
	for _, k := range []**rsa.PrivateKey{&a.key, &a.caKey, &a.deviceKey} {
		if *k, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	if a.ca, err = jami.NewCA(a.caKey, a.made); err == nil {
		a.cert, err = jami.NewAccount(&a.key.PublicKey, a.ca, a.caKey, a.made)
	}
	if err != nil {
		panic(err)
	}
	a.id, _ = jami.CertIDs(a.cert)
	return a
})

// device returns a new certificate of the account's device.
func (a *account) device(t testing.TB) *trust.Chain {
	t.Helper()
	c, err := jami.NewDevice(&a.deviceKey.PublicKey, a.cert, a.key, a.made)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := new(trust.Rules).Check([]*x509.Certificate{c, a.cert, a.ca})
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// crl revokes certificates.
func (a *account) crl(t testing.TB, number int64, certs ...*x509.Certificate) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now(), NextUpdate: a.cert.NotAfter, SignatureAlgorithm: x509.SHA512WithRSA}
	for _, c := range certs {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	issuer := *a.cert
	issuer.SubjectKeyId = a.id[:]
	der, err := x509.CreateRevocationList(rand.Reader, l, &issuer, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func is(err error, want trust.Reason) bool {
	if want == "" {
		return err == nil
	}
	e, ok := errors.AsType[*trust.Error](err)
	return ok && e.Reason == want
}

// watched has a gate watch a chain and returns the reasons that it is called with.
func watched(t *testing.T, g *Gate, c *trust.Chain) *[]trust.Reason {
	t.Helper()
	got := new([]trust.Reason)
	if _, err := g.Watch(c, func(err error) {
		e, _ := errors.AsType[*trust.Error](err)
		*got = append(*got, e.Reason)
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func ban(id jami.ID, banned bool, revision uint64) *contract.ContactChanged {
	return &contract.ContactChanged{Contact: contract.Contact{ID: id.String(), Banned: banned}, Revision: revision}
}

func stale(g *Gate) bool {
	select {
	case <-g.stale:
		return true
	default:
		return false
	}
}

// From the event on that tells of a revocation the device is refused everywhere, and what
// is watched has been called when the event is dealt with.
func TestRevoked(t *testing.T) {
	a := theAccount()
	g := newGate(time.Now)
	one, two := a.device(t), a.device(t)
	end1, end2 := watched(t, g, one), watched(t, g, two)
	stopped := watched(t, g, one)
	stop, err := g.Watch(one, func(error) { *stopped = append(*stopped, "called after stop") })
	if err != nil {
		t.Fatal(err)
	}
	stop()
	stop()
	*stopped = nil
	if errs := g.revoke(a.cert, [][]byte{a.crl(t, 1, one.Device), []byte("junk")}); len(errs) != 1 {
		t.Errorf("errors %v, want that of the junk alone", errs)
	}
	if len(*end1) != 1 || (*end1)[0] != trust.Revoked || len(*end2) != 0 || len(*stopped) != 1 {
		t.Errorf("called with %v, %v and %v", *end1, *end2, *stopped)
	}
	for what, err := range map[string]error{
		"check": func() error { _, err := g.Check(one.Certs()); return err }(), "allowed": g.Allowed(one),
		"watch": func() error { _, err := g.Watch(one, func(error) {}); return err }(),
	} {
		if !is(err, trust.Revoked) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := g.Allowed(two); err != nil {
		t.Error(err)
	}
	if g.revoke(a.cert, [][]byte{a.crl(t, 2, one.Device)}); len(*end1) != 1 {
		t.Errorf("called %d times", len(*end1))
	}
	if len(g.by) == 0 || len(g.by[one.DeviceShort]) != 1 {
		t.Errorf("%d watches of the device are left, want the other certificate's", len(g.by[one.DeviceShort]))
	}
}

func TestExpired(t *testing.T) {
	a := theAccount()
	c := a.device(t)
	at := time.Now()
	g := newGate(func() time.Time { return at })
	end := watched(t, g, c)
	at = c.Device.NotAfter.Add(time.Hour)
	if err := g.Allowed(c); !is(err, trust.Expired) {
		t.Error(err)
	}
	if _, err := g.Watch(c, func(error) {}); !is(err, trust.Expired) {
		t.Error(err)
	}
	g.changed(ban(jami.HashKey("another"), true, 1))
	if len(*end) != 0 {
		t.Errorf("called with %v", *end)
	}
}

// The changes of contacts as they may arrive.
func TestBanned(t *testing.T) {
	a := theAccount()
	c := a.device(t)
	caID, _ := jami.CertIDs(a.ca)
	other := jami.HashKey("another")
	for _, tt := range []struct {
		name  string
		do    func(*Gate)
		calls int
		why   trust.Reason // empty: allowed
		stale bool         // the list has to be read again
	}{
		{name: "nothing", do: func(*Gate) {}},
		{name: "another", do: func(g *Gate) { g.changed(ban(other, true, 11)) }},
		{name: "banned", do: func(g *Gate) { g.changed(ban(a.id, true, 11)) }, calls: 1, why: Banned},
		{name: "its device", do: func(g *Gate) { g.changed(ban(c.DeviceShort, true, 11)) }, calls: 1, why: Banned},
		{name: "its authority", do: func(g *Gate) { g.changed(ban(caID, true, 11)) }, calls: 1, why: Banned},
		{name: "and no longer", do: func(g *Gate) { g.changed(ban(a.id, true, 11)); g.changed(ban(a.id, false, 12)) }, calls: 1},
		{name: "an old event", do: func(g *Gate) { g.changed(ban(a.id, true, 10)) }},
		{name: "after a gap", do: func(g *Gate) { g.changed(ban(a.id, true, 13)) }, calls: 1, why: Banned, stale: true},
		{name: "identity began anew, with the clock set back", do: func(g *Gate) {
			g.changed(&contract.ContactChanged{Revision: 3})
			g.changed(ban(a.id, true, 4))
		}, calls: 1, why: Banned, stale: true},
		{name: "in the list", do: func(g *Gate) { g.begin(); g.read(map[jami.ID]struct{}{a.id: {}}, 20) }, calls: 1, why: Banned},
		{name: "while the list is read, which lacks it", do: func(g *Gate) {
			g.begin()
			g.changed(ban(a.id, true, 11))
			g.read(map[jami.ID]struct{}{}, 10)
		}, calls: 1, why: Banned},
		{name: "unbanned while the list is read, which lacks that", do: func(g *Gate) {
			g.begin()
			g.changed(ban(a.id, false, 11))
			g.read(map[jami.ID]struct{}{a.id: {}}, 10)
		}},
		{name: "the list is newer than the event", do: func(g *Gate) {
			g.begin()
			g.changed(ban(a.id, true, 11))
			g.read(map[jami.ID]struct{}{}, 12)
		}, calls: 1},
		{name: "a gap while the list is read", do: func(g *Gate) {
			g.begin()
			g.changed(ban(a.id, true, 11))
			g.changed(ban(other, true, 13))
			g.read(map[jami.ID]struct{}{}, 10)
		}, calls: 1, why: Banned, stale: true},
		{name: "too much while the list is read", do: func(g *Gate) {
			g.begin()
			for i := range uint64(maxBehind + 1) {
				g.changed(ban(other, true, 11+i))
			}
			g.read(map[jami.ID]struct{}{}, 10)
		}, stale: true},
		{name: "the list can't be read", do: func(g *Gate) { g.begin(); g.changed(ban(a.id, true, 11)); g.failed() }, calls: 1, why: Banned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(time.Now)
			g.begin()
			g.read(map[jami.ID]struct{}{}, 10)
			end := watched(t, g, c)
			tt.do(g)
			if len(*end) != tt.calls || tt.calls > 0 && (*end)[0] != Banned {
				t.Errorf("called with %v, want %d times", *end, tt.calls)
			}
			if err := g.Allowed(c); !is(err, tt.why) || err != nil && !strings.Contains(err.Error(), "blocked") {
				t.Errorf("%v, want %q", err, tt.why)
			}
			if _, err := g.Check(c.Certs()); !is(err, tt.why) {
				t.Errorf("%v, want %q", err, tt.why)
			}
			if got := stale(g); got != tt.stale {
				t.Errorf("to be read again: %v", got)
			}
		})
	}
}

func TestWatchID(t *testing.T) {
	g := newGate(time.Now)
	id := jami.HashKey("x")
	calls := 0
	if _, err := g.WatchID(id, func(err error) {
		calls++
		if err := g.AllowedIDs(id); !is(err, Banned) { // no lock is held
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	g.changed(ban(id, true, 1))
	if _, err := g.WatchID(id, func(error) {}); calls != 1 || !is(err, Banned) {
		t.Errorf("%d calls, %v", calls, err)
	}
	if len(g.by) != 0 {
		t.Errorf("%d watches are left", len(g.by))
	}
}

// A list of many and watches of many: a change costs what it is about alone.
func BenchmarkChanged(b *testing.B) {
	g := newGate(time.Now)
	for i := range 20_000 {
		if _, err := g.WatchID(jami.ID{1, byte(i), byte(i >> 8)}, func(error) {}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range b.N {
		g.changed(ban(jami.ID{2, byte(i), byte(i >> 8)}, i%2 == 0, uint64(i+1)))
	}
}
