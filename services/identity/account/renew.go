package account

import (
	"crypto/x509"
	"errors"
	"path/filepath"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// renewAhead is how long before their end certificates are signed again; they are valid
// for ten years.
const renewAhead = 90 * 24 * time.Hour

// renew signs the certificates again that are over or soon will be, where the archive has
// the keys for it and opens; else [Account.Dates] tells what the operator has to do. Keys
// and ids stay (§3.1). It is for who loads the account, before it is used.
func (a *Account) renew() error {
	now := a.store.now()
	due := false
	for _, c := range a.Chain.Certs() {
		due = due || jami.NeedsRenewal(c, now, renewAhead)
	}
	if !due || a.guard != Plain && a.guard != Known {
		return nil
	}
	var chain []*x509.Certificate
	err := a.ChangeArchive(nil, func(archive *jami.Archive) error {
		if _, err := renewArchive(archive, now); err != nil {
			return err
		}
		dev := a.Chain.Device
		// Also one whose account was renewed when this was killed the last time.
		if jami.NeedsRenewal(dev, now, renewAhead) {
			var err error
			if dev, err = jami.RenewDevice(dev, archive.Account, archive.AccountKey, now); err != nil {
				return err
			}
		}
		chain = append([]*x509.Certificate{dev}, archive.Chain()...)
		return nil
	})
	if errors.Is(err, jami.ErrNoCAKey) {
		return nil // an authority elsewhere has to
	}
	if err != nil {
		return err
	}
	fresh, err := (&trust.Rules{AnyTime: true, Account: a.Chain.JamiID, Device: a.Chain.DeviceID}).Check(chain)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(a.Dir, fileChain), fresh.PEM(), fileMode); err != nil {
		return err
	}
	a.Chain = fresh
	if a.Receipt, err = jami.ParseReceipt(a.Receipt.Text, a.Receipt.Sig, fresh.Device, fresh.Account); err != nil {
		return err
	}
	return nil
}

// renewArchive signs again what of an archive is over or soon will be, and its revocation
// list with it.
func renewArchive(archive *jami.Archive, now time.Time) (renewed bool, err error) {
	if renewed, err = archive.Renew(now, renewAhead); err != nil || !renewed || archive.CRL == nil {
		return renewed, err
	}
	old, err := trust.ParseCRL(archive.CRL, archive.Account)
	if err != nil {
		return false, err
	}
	archive.CRL, err = jami.ExtendCRL(archive.Account, archive.AccountKey, now, nil, old)
	return renewed, err
}
