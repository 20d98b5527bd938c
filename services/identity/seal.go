package identity

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
)

// sealValue makes a value that the device signed, for anybody or for the devices of one
// account.
func (s *hosted) sealValue(ctx context.Context, r *bus.Request[contract.DHTSeal]) (*contract.DHTSealed, error) {
	if err := s.acc.Revoked(); err != nil {
		return nil, contract.ErrStateDamaged.With("%v", err)
	}
	q := r.Body
	if q.ID == 0 {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, err
		}
		q.ID = binary.BigEndian.Uint64(b[:]) | 1 // never 0
	}
	v := &jami.Value{ID: q.ID, Type: q.Type, Data: q.Data, UserType: q.UserType}
	if q.To == "" {
		v.Seq = q.Seq
		if err := v.Sign(s.acc.DeviceKey()); err != nil {
			return nil, err
		}
		p, err := packed(v)
		if err != nil {
			return nil, err
		}
		return &contract.DHTSealed{Values: []contract.DHTPacked{{Packed: p}}}, nil
	}
	to, err := jami.ParseID(q.To)
	if err != nil || to.IsZero() {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	devices, missing, err := s.devicesOf(ctx, to)
	if err != nil {
		return nil, err
	}
	out := &contract.DHTSealed{Missing: missing}
	for _, d := range devices {
		e, err := v.EncryptTo(d.Device.PublicKey, s.acc.DeviceKey())
		if err != nil {
			return nil, sealError(err)
		}
		p, err := packed(e)
		if err != nil {
			return nil, err
		}
		_, long := jami.CertIDs(d.Device)
		out.Values = append(out.Values, contract.DHTPacked{Packed: p, Device: long.String()})
		v.ID++ // one key holds them all
		v.ID = max(v.ID, 1)
	}
	if len(out.Values) == 0 {
		return nil, contract.ErrNotFound.With("no device of %s is found whose certificate is good: it has to be online, or have been so within the last minutes", to)
	}
	return out, nil
}

func packed(v *jami.Value) ([]byte, error) {
	p, err := v.Pack()
	if err != nil {
		return nil, sealError(err)
	}
	return p, nil
}

func sealError(err error) error {
	if errors.Is(err, jami.ErrTooLarge) {
		return contract.ErrBadRequest.With("%v", err)
	}
	return err
}

// openValue decrypts a value and returns it signed, in clear.
func (s *hosted) openValue(_ context.Context, r *bus.Request[contract.DHTOpen]) (*contract.DHTPacked, error) {
	v, err := jami.ParseValue(r.Body.Packed)
	if err != nil || !v.Encrypted() {
		return nil, contract.ErrBadRequest.With("this is no encrypted value of the DHT")
	}
	clear, err := v.Decrypt(s.acc.DeviceKey())
	switch {
	case errors.Is(err, jami.ErrKeyFailed):
		return nil, err
	case err != nil: // which of the reasons it is tells nobody anything
		return nil, contract.ErrForbidden.With("the value is not for this device, or was not made rightly")
	}
	p, err := packed(clear)
	if err != nil {
		return nil, err
	}
	return &contract.DHTPacked{Packed: p}, nil
}
