package rules_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/swarm/commit"
	"github.com/parley-jami/parley/services/swarm/rules"
	"github.com/parley-jami/parley/services/swarm/swarmtest"
)

// FuzzCertificates has a commit's tree hold any bytes in the place of its author's
// certificates: nothing is accepted but what is signed by the device.
func FuzzCertificates(f *testing.F) {
	id := swarmtest.New(f)
	f.Add(id.DevicePEM, id.AccountPEM)
	f.Add(append(bytes.Clone(id.DevicePEM), id.AccountPEM...), id.AccountPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), id.AccountPEM)
	f.Add(id.DevicePEM, bytes.Replace(id.AccountPEM, []byte("CERTIFICATE"), []byte("X"), 2))
	f.Fuzz(func(t *testing.T, device, account []byte) {
		c := &commit.Commit{Name: "A", Device: id.Device, Time: time.Now(), Message: []byte(`{"mode":2,"type":"initial"}`)}
		files := tree(map[string][]byte{"admins/" + id.URI + ".crt": account, "devices/" + id.Device + ".crt": device})
		if _, err := rules.NewChecker(nil).Check(c, c.Unsigned(), files, nil); err == nil || !errors.Is(err, rules.ErrInvalid) {
			t.Errorf("a commit without a signature: %v", err)
		}
	})
}
