package presence

import (
	"context"
	"slices"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// MaxDevices bounds the devices of an account whose certificates are looked for: anyone
// who has the account's key can announce any number.
const MaxDevices = 16

// maxLists bounds the revocation lists at a Jami Id that are looked at, and maxChains the
// certificates at a device's id: anyone can put values there.
const (
	maxLists  = 64
	maxChains = 64
)

// Finder finds the values of a key. [overlay.Overlay] is one.
type Finder interface {
	Get(ctx context.Context, key overlay.Key) ([]overlay.Value, error)
}

// Announced returns the devices that values at a Jami Id announce, and what may be
// revocation lists there. The account itself has to have signed an announcement, since anyone
// can store values under anyone's id (dht-and-identity §3.8). What it signed says no time: who keeps a
// copy can put it again.
func Announced(vs []overlay.Value, id jami.ID) (devices []jami.ID, lists [][]byte) {
	for _, v := range vs {
		if der, err := jami.ParseBin(v.Data); err == nil {
			if len(lists) < maxLists {
				lists = append(lists, der)
			}
			continue
		}
		if d, ok := jami.AnnouncedDevice(v.Data, id); ok && len(devices) < MaxDevices && !slices.Contains(devices, d) {
			devices = append(devices, d)
		}
	}
	return devices, lists
}

// Find returns the chain of an account's device: those who write to it or call it need its
// certificates too (§2, §3.4). nil: it is not there, or not good. The error is that of the search.
func Find(ctx context.Context, o Finder, id, device jami.ID) (*trust.Chain, error) {
	vs, err := o.Get(ctx, overlay.Key(device))
	if err != nil {
		return nil, err
	}
	for _, v := range vs[:min(len(vs), maxChains)] {
		pem, err := jami.ParseBin(v.Data)
		if err != nil {
			continue
		}
		certs, err := trust.Certificates(pem)
		if err != nil {
			continue
		}
		c, err := (&trust.Rules{Account: id}).Check(certs)
		if err == nil && c.DeviceShort == device {
			return c, nil
		}
	}
	return nil, nil
}

// RevokedBy looks at lists that anybody may have put at the Jami Id (§3.7); those that the
// account did not sign are passed over.
func RevokedBy(c *trust.Chain, lists [][]byte) error {
	found := new(trust.Revocations)
	for _, der := range lists {
		if _, err := found.Add(der, c.Account); err != nil {
			continue
		}
	}
	return (&trust.Rules{Revoked: found, AnyTime: true}).Recheck(c)
}
