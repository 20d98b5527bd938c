package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/identity/account"
)

// Bounds of what is looked at under one key of the overlay, where anyone can put values.
const (
	maxFound       = 64 // certificates of a device, revocation lists of an account
	maxPeerDevices = 16 // devices of one account that are written to
)

// errNotThere says that the overlay does not have what was looked for, or not yet.
var errNotThere = errors.New("not in the overlay now")

// device returns the account's device with that short id, if it is known.
func (s *hosted) device(short jami.ID) (account.Device, bool) {
	for _, d := range s.acc.Devices() {
		if d.Short == short {
			return d, true
		}
	}
	return account.Device{}, false
}

// Times between the first value that is found and the answer. Who calls, or is called, does not
// wait for nodes that have gone. Of a certificate one good copy does; where none came by then
// the search is waited for. At a Jami Id announcements and revocation lists lie together: most
// of the nodes that have them have answered by then.
const (
	soonChainMs   = 150
	soonAccountMs = 700
)

// chainOf finds the chain of a device by its key id and judges it (§2, §3.4): the first
// good one counts. The error is [errNotThere], of the bus, or a [*trust.Error].
func (s *hosted) chainOf(ctx context.Context, device jami.ID, rules *trust.Rules) (*trust.Chain, error) {
	found, err := bus.Call(ctx, s.conn, contract.DHTGetCmd, &contract.DHTKey{Key: device.String(), SoonMs: soonChainMs})
	if err != nil {
		return nil, err
	}
	c, why := chainIn(found.Values, device, rules)
	if why == nil || len(found.Values) == 0 { // then the search has ended
		return c, why
	}
	if found, err = bus.Call(ctx, s.conn, contract.DHTGetCmd, &contract.DHTKey{Key: device.String()}); err != nil {
		return nil, err
	}
	return chainIn(found.Values, device, rules)
}

func chainIn(values []contract.DHTValue, device jami.ID, rules *trust.Rules) (*trust.Chain, error) {
	refused := errNotThere
	n := 0
	for _, v := range values {
		if v.Type != typeCertificate {
			continue
		}
		if n++; n > maxFound {
			break
		}
		certs, err := certificates(v)
		if err != nil {
			continue
		}
		if id, _ := jami.CertIDs(certs[0]); id != device {
			continue
		}
		c, err := rules.Check(certs)
		if err == nil {
			return c, nil
		}
		refused = err
	}
	return nil, refused
}

// atAccount is what is found at a Jami Id: anyone can put values there, and the account's
// signature tells which count.
type atAccount struct {
	devices []jami.ID
	lists   [][]byte // revocation lists whose issuer is not known yet
}

func (s *hosted) lookAt(ctx context.Context, id jami.ID) (*atAccount, error) {
	found, err := bus.Call(ctx, s.conn, contract.DHTGetCmd, &contract.DHTKey{Key: id.String(), SoonMs: soonAccountMs})
	if err != nil {
		return nil, err
	}
	out := new(atAccount)
	had := map[jami.ID]bool{}
	for _, v := range found.Values {
		if der, err := jami.ParseBin(v.Data); err == nil {
			if len(out.lists) < maxFound {
				out.lists = append(out.lists, der)
			}
			continue
		}
		if a, ok := jami.AnnouncedDevice(v.Data, id); ok && !had[a] && len(out.devices) < maxPeerDevices {
			had[a] = true
			out.devices = append(out.devices, a)
		}
	}
	return out, nil
}

// revoked judges a chain by the account's own revocation lists.
func (l *atAccount) revoked(c *trust.Chain) error {
	r := new(trust.Revocations)
	for _, der := range l.lists {
		if _, err := r.Add(der, c.Account); err != nil {
			continue // another's, or no list
		}
	}
	return (&trust.Rules{Revoked: r}).Recheck(c)
}

// errBlocked says that the account has blocked another one, or an authority above it.
var errBlocked = errors.New("of a blocked account")

// sender finds out whose device signed a value: its chain is good, and neither its account
// nor an authority above has revoked it, as far as is known. Errors are as those of chainOf, and [errBlocked], after which nothing of
// that account is asked for.
func (s *hosted) sender(ctx context.Context, v *jami.Value) (*trust.Chain, error) {
	c, err := s.chainOf(ctx, v.Signer(), &trust.Rules{Now: s.now, Revoked: s.acc.Revocations()})
	if err != nil {
		return nil, err
	}
	if s.blocked(c) { // an authority too (§3.4)
		return nil, errBlocked
	}
	at, err := s.lookAt(ctx, c.JamiID)
	if err != nil {
		return nil, err
	}
	return c, at.revoked(c)
}

// devicesOf finds the devices of an account that may be written to. missing counts those
// whose certificates are not to be had now; those that are not good are left out.
func (s *hosted) devicesOf(ctx context.Context, id jami.ID) (out []*trust.Chain, missing int, err error) {
	return s.devicesWithin(ctx, id, 0)
}

// devicesWithin is devicesOf, but once there is one device the others are waited for no longer
// than laggards, unless that is 0.
func (s *hosted) devicesWithin(ctx context.Context, id jami.ID, laggards time.Duration) (out []*trust.Chain, missing int, err error) {
	at, err := s.lookAt(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	chains, errs := make([]*trust.Chain, len(at.devices)), make([]error, len(at.devices))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var first sync.Once
	for i, short := range at.devices {
		wg.Go(func() {
			chains[i], errs[i] = s.chainOf(ctx, short, &trust.Rules{Now: s.now, Account: id, Revoked: s.acc.Revocations()})
			if errs[i] == nil {
				errs[i] = at.revoked(chains[i])
			}
			if errs[i] == nil && laggards > 0 {
				first.Do(func() { time.AfterFunc(laggards, cancel) })
			}
		})
	}
	wg.Wait()
	for i, short := range at.devices {
		if err := errs[i]; err != nil {
			if !isRefused(err) {
				missing++
			}
			s.env.Log.Debug("a device is not written to", zap.Stringer("account", id), zap.Stringer("device", short), zap.Error(err))
			continue
		}
		out = append(out, chains[i])
	}
	return out, missing, nil
}

// post puts a message into a device's inbox, signed and encrypted, and returns the id of
// the value. It lives there for ten minutes (§1.7).
func (s *hosted) post(ctx context.Context, to *trust.Chain, typ uint16, data []byte) (uint64, error) {
	return s.postAt(ctx, jami.InboxKey(to.DeviceShort), to, &jami.Value{Type: typ, Data: data})
}

// postAt puts a value under a key, signed and encrypted for a device. This device takes
// it for nothing that is for itself, where it listens there.
func (s *hosted) postAt(ctx context.Context, key jami.ID, to *trust.Chain, v *jami.Value) (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	v.ID = binary.BigEndian.Uint64(b[:]) | 1 // never 0
	sealed, err := v.EncryptTo(to.Device.PublicKey, s.acc.DeviceKey())
	if err != nil {
		return 0, err
	}
	packed, err := sealed.Pack()
	if err != nil {
		return 0, err
	}
	if len(packed) > jami.MaxValue {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", jami.ErrTooLarge, len(packed), jami.MaxValue)
	}
	s.inbox.tried(sha256.Sum256(sealed.Cipher), maxTries)
	_, err = bus.Call(ctx, s.conn, contract.DHTPutCmd, &contract.DHTPut{
		Value: contract.DHTValue{Key: key.String(), ID: v.ID, Type: jami.TypeData, Data: packed}})
	return v.ID, err
}
