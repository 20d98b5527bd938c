package trust

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"
)

// What was signed in the past is judged by what held then.
func TestAt(t *testing.T) {
	s := good()
	s[0].t.NotBefore, s[0].t.NotAfter = now.AddDate(-1, 0, 0), now.AddDate(0, 0, -1)
	ended := build(t, s)
	fine := build(t, good())
	revoked := new(Revocations)
	if _, err := revoked.Add(crl(t, fine[1], "account", fine[0].SerialNumber), fine[1]); err != nil { // at now
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		certs []*x509.Certificate
		at    time.Time
		why   Reason // empty: good
	}{
		{"in its time", ended, now.AddDate(0, -1, 0), ""},
		{"in its last second", ended, ended[0].NotAfter, ""},
		{"a second late", ended, ended[0].NotAfter.Add(time.Second), Expired},
		{"before it began: the writer's clock", ended, now.AddDate(-2, 0, 0), ""},
		{"before it was revoked", fine, now.Add(-time.Hour), ""},
		{"when it was revoked", fine, now, ""},
		{"clocks differ", fine, now.Add(clockSlack), ""},
		{"after it was revoked", fine, now.Add(clockSlack + time.Second), Revoked},
		{"now", fine, time.Time{}, Revoked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rules()
			r.At, r.Revoked = tt.at, revoked
			c, err := r.Check(tt.certs)
			if tt.why == "" && err != nil || tt.why != "" && !errors.Is(err, &Error{Reason: tt.why}) {
				t.Fatalf("%v, want %q", err, tt.why)
			}
			if c == nil {
				c = &Chain{Device: tt.certs[0], Account: tt.certs[1], Authorities: tt.certs[2:]}
			}
			if again := r.Recheck(c); (again == nil) != (err == nil) || err != nil && again.Error() != err.Error() {
				t.Errorf("first %v, again %v", err, again)
			}
		})
	}
}

func TestNews(t *testing.T) {
	c := build(t, good())
	r := new(Revocations)
	news := r.News()
	if _, err := r.Add(crl(t, c[1], "account"), c[1]); err != nil {
		t.Fatal(err)
	}
	select {
	case <-news:
		t.Error("an empty list is news")
	default:
	}
	if _, err := r.Add(crl(t, c[1], "account", c[0].SerialNumber), c[1]); err != nil {
		t.Fatal(err)
	}
	select {
	case <-news:
	default:
		t.Error("a revocation is none")
	}
	if since, is := r.Since(c[0], c[1]); !is || !since.Equal(now) {
		t.Errorf("since %v, %v", since, is)
	}
}

// The lists that are kept name all that is revoked, and no more than that takes.
func TestLists(t *testing.T) {
	c := build(t, good())
	r := new(Revocations)
	two, three := big.NewInt(2), big.NewInt(3)
	for _, tt := range []struct {
		serials []*big.Int
		want    int
	}{
		{nil, 0}, {[]*big.Int{two}, 1}, {[]*big.Int{two}, 1}, {[]*big.Int{three}, 2}, {[]*big.Int{two, three}, 2}, {[]*big.Int{two, three, c[0].SerialNumber}, 1},
	} {
		if _, err := r.Add(crl(t, c[1], "account", tt.serials...), c[1]); err != nil {
			t.Fatal(err)
		}
		lists := r.Lists(c[1])
		again := new(Revocations)
		for _, der := range lists {
			if _, err := again.Add(der, c[1]); err != nil {
				t.Fatal(err)
			}
		}
		if len(lists) != tt.want || r.Has(c[0], c[1]) != again.Has(c[0], c[1]) {
			t.Errorf("after %v: %d lists, want %d", tt.serials, len(lists), tt.want)
		}
	}
	if r.Lists(c[2]) != nil || (*Revocations)(nil).Lists(c[1]) != nil {
		t.Error("lists of who has none")
	}
}

func TestClaimsDevice(t *testing.T) {
	jami := build(t, good())
	nameless := good()
	nameless[0].noUID = true
	factory := good()
	for i := range factory {
		factory[i].noUID = true
	}
	user := good()[:2]
	user[0].noUID, user[1].noUID = true, true
	user[0].t.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier(oidUID), Value: "alice"}}}
	for name, tt := range map[string]struct {
		certs []*x509.Certificate
		want  bool
	}{
		"none":                       {nil, false},
		"a device's chain":           {jami, true},
		"a device alone":             {jami[:1], true},
		"only its account has a UID": {build(t, nameless), true},
		"a factory's":                {build(t, factory), false},
		"a person's":                 {build(t, user), false},
	} {
		if got := ClaimsDevice(tt.certs); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
