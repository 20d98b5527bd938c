package identity

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/services/identity/account"
)

// deviceLink puts the archive into the overlay, where the holder of a PIN and of the
// archive's password finds it for ten minutes (§3.6), and answers with the PIN.
func (s *hosted) deviceLink(ctx context.Context, r *bus.Request[contract.Sealed]) (*contract.Sealed, error) {
	x, err := s.unseal(&r.Body, contract.DeviceLink.Name)
	if err != nil {
		return nil, err
	}
	if len(x.Reply) != replyKey {
		return nil, contract.ErrBadRequest.With("the key for the answer has %d bytes, want %d", len(x.Reply), replyKey)
	}
	pin, err := jami.NewPIN()
	if err != nil {
		return nil, err
	}
	slot, value, err := s.acc.ForPIN(pin, x.Password, x.New, s.now())
	if errors.Is(err, jami.ErrArchiveTooLarge) {
		return nil, contract.ErrFull.With("the archive is too large for the overlay: export it as a file instead (parley account export)")
	}
	if err != nil {
		return nil, s.archiveError(err)
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	v, err := bus.Call(ctx, s.conn, contract.DHTPutCmd, &contract.DHTPut{Value: contract.DHTValue{Key: slot.Location.String(),
		ID: binary.BigEndian.Uint64(id[:]) | 1, Data: value}})
	if err != nil {
		return nil, err
	}
	s.env.Log.Info("archive put into the overlay for a PIN", zap.String("id", s.id()), zap.Int("peers", v.Peers))
	b, err := jami.Seal(x.Reply, []byte(pin.Show()))
	if err != nil {
		return nil, err
	}
	return &contract.Sealed{Cipher: b}, nil
}

// accountJoin takes the archive that another device put there for a PIN. Each place costs
// the stretching of the PIN, about a second.
func (s *Service) accountJoin(ctx context.Context, r *bus.Request[contract.Sealed]) (*contract.Account, error) {
	x, err := s.unseal(&r.Body, contract.AccountJoin.Name)
	if err != nil {
		return nil, err
	}
	pin, err := jami.ParsePIN(x.PIN)
	if err != nil {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	archive, err := s.findArchive(ctx, pin, x.Password)
	if err != nil {
		return nil, err
	}
	key, err := account.NewDeviceKey()
	if err != nil {
		return nil, err
	}
	file, err := archive.Pack(x.Password)
	if err != nil {
		return nil, err
	}
	return s.add(func() (*account.Account, error) {
		a, _, err := s.store.Import(file, x.Password, key, account.Beside, s.now())
		return a, err
	})
}

// findArchive looks where the PIN says, now and as of twenty minutes ago: the first value
// that opens is it, and anyone may have put others.
func (s *Service) findArchive(ctx context.Context, pin jami.PIN, password []byte) (*jami.Archive, error) {
	conn := s.conn
	if conn.Account() == "" { // of the first account that is to come
		conn = conn.For(jami.ID{}.String())
	}
	now := s.now()
	for _, at := range []time.Time{now, now.Add(-jami.PINPeriod)} {
		slot := pin.Slot(password, at)
		found, err := bus.Call(ctx, conn, contract.DHTGetCmd, &contract.DHTKey{Key: slot.Location.String()})
		if err != nil {
			return nil, err
		}
		for _, v := range found.Values {
			archive, err := jami.ParsePINArchive(slot, v.Data)
			if err == nil {
				return archive, nil
			}
			s.env.Log.Debug("a value at the PIN's place", zap.Error(err))
		}
	}
	return nil, contract.ErrNotFound.With("nothing is found with that PIN and password: a PIN is good for ten minutes, and both nodes have to be in one overlay (dht.bootstrap)")
}

// nameSign signs a name with the account's key, which is in the archive: for a name server.
func (s *hosted) nameSign(_ context.Context, r *bus.Request[contract.Sealed]) (*contract.NameClaim, error) {
	x, err := s.unseal(&r.Body, contract.NameSign.Name)
	if err != nil {
		return nil, err
	}
	var claim *contract.NameClaim
	err = s.acc.WithArchive(x.Password, func(a *jami.Archive) error {
		rec, err := names.Sign(x.Name, a.AccountKey)
		if err != nil {
			return err
		}
		claim = &contract.NameClaim{Name: rec.Name, Key: rec.Key, Signature: rec.Signature}
		if a.EthKey != nil {
			claim.Owner, err = jami.EthAddress(a.EthKey)
		}
		return err
	})
	if errors.Is(err, names.ErrInvalidName) || errors.Is(err, names.ErrUnsupported) {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	if err != nil {
		return nil, s.archiveError(err)
	}
	return claim, nil
}
