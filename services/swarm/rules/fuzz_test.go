package rules_test

import (
	"bytes"
	"testing"

	"github.com/parley-jami/parley/services/swarm/rules"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

// FuzzCert covers FirstPEM and ParseCert: both read what a repository holds.
func FuzzCert(f *testing.F) {
	id := swarmtest.New(f)
	f.Add(id.DevicePEM)
	f.Add(id.AccountPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add(bytes.Replace(id.DevicePEM, []byte("CERTIFICATE"), []byte("X"), 2))
	f.Fuzz(func(t *testing.T, text []byte) {
		first, err := rules.FirstPEM(text)
		if err != nil {
			return
		}
		c, err := rules.ParseCert(text)
		again, err2 := rules.ParseCert(first)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("the whole text: %v, its first part: %v", err, err2)
		}
		if err == nil && (c.LongID != again.LongID || len(c.ID) != 40 || c.Key == nil) {
			t.Errorf("%+v, %+v", c, again)
		}
	})
}
