package identity

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/identity/account"
)

// What the account's other devices put into the overlay is looked for so often. A
// revocation by this node takes effect at once.
const lookAgain = time.Minute

// typeCertificate is the type, and certificateID the id, of a certificate's value (§2).
const (
	typeCertificate = 8
	certificateID   = 1
)

func (s *hosted) deviceList(context.Context, *bus.Request[contract.None]) (*contract.Devices, error) {
	out := new(contract.Devices)
	for _, d := range s.acc.Devices() {
		out.Devices = append(out.Devices, deviceView(d))
	}
	return out, nil
}

func deviceView(d account.Device) contract.Device {
	return contract.Device{ID: d.ID.String(), Short: d.Short.String(), Name: d.Name, Created: d.Created.UTC(), Seen: d.Seen.UTC(), This: d.This, Revoked: d.Revoked}
}

func (s *hosted) deviceRename(_ context.Context, r *bus.Request[contract.DeviceName]) (*contract.Device, error) {
	if err := checkAlias(r.Body.Name); err != nil {
		return nil, err
	}
	if err := s.acc.Rename(strings.TrimSpace(r.Body.Name), s.now()); err != nil {
		s.env.Log.Error("name of the device not written", zap.Error(err))
		return nil, contract.ErrStorage.With("the name could not be written: %v", err)
	}
	d := deviceView(s.acc.Devices()[0])
	return &d, nil
}

func (s *hosted) deviceRevoke(ctx context.Context, r *bus.Request[contract.Sealed]) (*contract.DeviceRevoked, error) {
	x, err := s.unseal(&r.Body, contract.DeviceRevoke.Name)
	if err != nil {
		return nil, err
	}
	if x.Certificate != "" {
		certs, err := trust.Certificates([]byte(x.Certificate))
		if err == nil && len(certs) == 1 { // the device alone
			certs = append(certs, s.acc.Chain.Certs()[1:]...)
		}
		if err == nil {
			_, err = s.acc.Learn(certs, s.now())
		}
		if err != nil {
			return nil, contract.ErrBadRequest.With("the certificate is not of a device of this account: %v", err)
		}
	}
	d, err := s.acc.Revoke(x.Device, x.Password, s.now())
	// It is shut out as far as is known; then it may have been certified anew meanwhile.
	if err == nil && s.learn(ctx, d.Short) {
		d, err = s.acc.Revoke(x.Device, x.Password, s.now())
	}
	switch {
	case errors.Is(err, account.ErrNoDevice):
		return nil, contract.ErrNotFound.With("no device of that id is known; with its certificate (--certificate) it can be revoked all the same")
	case errors.Is(err, account.ErrThisDevice):
		return nil, contract.ErrForbidden.With("that is the device of this node: revoke it from another device of the account")
	case err != nil:
		return nil, s.archiveError(err)
	}
	s.env.Log.Info("device revoked", zap.String("device", d.ID.String()))
	peers, err := s.putCRL(ctx)
	if err != nil {
		s.isPut.Store(false)
		s.env.Log.Warn("revocation list not put into the overlay; trying again", zap.Error(err))
	}
	return &contract.DeviceRevoked{Device: deviceView(d), Peers: peers}, nil
}

// maxLists bounds the account's revocation lists in one message, in bytes: in base64 they fit into
// one of the bus.
const maxLists = 640<<10 - account.MaxAuthorityCRLs

// olderLists are those beside the newest that a message has place for. It is said where
// that is not all; some hundred revoked devices take 10 KiB.
func (s *hosted) olderLists() (older [][]byte) {
	left := maxLists - len(s.acc.CRL())
	for _, der := range slices.Backward(s.acc.OlderCRLs()) {
		if left -= len(der); left < 0 {
			s.env.Log.Error("the account has more revocation lists than a message can carry: revoke a device again to merge them")
			break
		}
		older = append(older, der)
	}
	return older
}

// tellRevocations has those who check certificates refuse what is revoked, from the moment
// at which that is known here, whoever revoked it. It tells at the start and when the
// bus is back, since what was told before may have got lost; who starts later reads the
// lists with the certificates.
func (s *hosted) tellRevocations(ctx context.Context) {
	defer s.conn.OnReconnect(func() {
		if ctx.Err() == nil && s.revokedSome() {
			s.tellRevoked(ctx)
		}
	})()
	for first := true; ; first = false {
		news := s.acc.Revocations().News() // before it is told, so that none is missed
		if !first || s.revokedSome() {
			s.tellRevoked(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		}
	}
}

func (s *hosted) revokedSome() bool {
	return s.acc.CRL() != nil || len(s.acc.OlderCRLs()) > 0 || len(s.authorityLists()) > 0
}

// authorityLists are what the authorities above the account revoked.
func (s *hosted) authorityLists() (out []contract.RevocationList) {
	for _, issuer := range s.acc.Chain.Authorities {
		if lists := s.acc.Revocations().Lists(issuer); len(lists) > 0 {
			last := len(lists) - 1
			out = append(out, contract.RevocationList{AccountPEM: string(jami.MarshalChain(issuer)), CRL: lists[last], Older: lists[:last]})
		}
	}
	return out
}

// accountCRL takes a revocation list of an authority: tellRevocations sees the news.
func (s *hosted) accountCRL(_ context.Context, r *bus.Request[contract.AuthorityList]) (*contract.Account, error) {
	issuer, err := s.acc.AddAuthorityCRL(r.Body.CRL)
	if errors.Is(err, account.ErrNoAuthority) {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	if err != nil {
		s.env.Log.Error("revocation list not written", zap.Error(err))
		return nil, contract.ErrStorage.With("the list could not be written: %v", err)
	}
	s.env.Log.Info("revocation list of an authority", zap.String("authority", issuer.Subject.CommonName))
	v := s.view()
	return &v, nil
}

func (s *hosted) tellRevoked(ctx context.Context) {
	all := append(s.authorityLists(), contract.RevocationList{AccountPEM: string(jami.MarshalChain(s.acc.Chain.Account)), CRL: s.acc.CRL(), Older: s.olderLists()})
	for i := range all {
		if err := bus.Publish(ctx, s.conn, contract.AccountRevoked, &all[i]); err != nil {
			s.env.Log.Warn("revocation not published; others will ask", zap.Error(err))
		}
	}
	s.tellShutOut()
}

// overlay keeps what the account has in the overlay there and looks for what its other
// devices put, until ctx ends.
func (s *hosted) overlay(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.tellRevocations(ctx) })
	for wait := s.pause; ; wait = min(2*wait, s.lookEvery) {
		if !s.isPut.Load() {
			s.isPut.Store(true) // before, so that what comes meanwhile is not missed
			_, err := s.putCRL(ctx)
			if err = errors.Join(err, s.putCertificate(ctx)); err != nil {
				s.isPut.Store(false)
			}
		}
		if s.isPut.Load() {
			wait = s.lookEvery
			s.look(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-s.lookSoon:
			select { // those that put much there don't keep it busy
			case <-ctx.Done():
				return
			case <-time.After(s.pause):
			}
		}
	}
}

// lookNow has the overlay looked at soon.
func (s *hosted) lookNow() {
	select {
	case s.lookSoon <- struct{}{}:
	default: // it will be
	}
}

// putCRL puts the revocation list at the Jami Id, in place of an older one.
func (s *hosted) putCRL(ctx context.Context) (peers int, err error) {
	der := s.acc.CRL()
	if der == nil {
		return 0, nil
	}
	id := s.acc.Chain.JamiID
	return s.put(ctx, id, binary.BigEndian.Uint64(id[:])|1, 0, der)
}

// putCertificate puts the device's chain where peers look for it (§2).
func (s *hosted) putCertificate(ctx context.Context) error {
	_, err := s.put(ctx, s.acc.Chain.DeviceShort, certificateID, typeCertificate, s.acc.Chain.PEM())
	return err
}

func (s *hosted) put(ctx context.Context, key jami.ID, id uint64, typ uint16, b []byte) (peers int, err error) {
	data, err := jami.PackBin(b)
	if err != nil {
		return 0, err
	}
	v, err := bus.Call(ctx, s.conn, contract.DHTPutCmd, &contract.DHTPut{Permanent: true,
		Value: contract.DHTValue{Key: key.String(), ID: id, Type: typ, Data: data}})
	if err != nil {
		return 0, err
	}
	return v.Peers, nil
}

// takeOut no longer keeps the device's chain in the overlay. The revocation list stays:
// others may need it.
func (s *hosted) takeOut(ctx context.Context) {
	_, err := bus.Call(ctx, s.conn, contract.DHTCancelCmd, &contract.DHTCancel{Key: s.acc.Chain.DeviceShort.String(), ID: certificateID})
	if err != nil && !errors.Is(err, contract.ErrNotFound) {
		s.env.Log.Warn("the certificate stays in the overlay until it expires", zap.Error(err))
	}
}

// look takes revocation lists and announcements at the Jami Id: anyone can store values
// there, and the account's signature tells whose they are.
func (s *hosted) look(ctx context.Context) {
	id := s.acc.Chain.JamiID
	found, err := bus.Call(ctx, s.conn, contract.DHTGetCmd, &contract.DHTKey{Key: id.String()})
	if err != nil {
		s.env.Log.Debug("looking for other devices", zap.Error(err))
		return
	}
	for _, v := range found.Values {
		if der, err := jami.ParseBin(v.Data); err == nil {
			s.take(ctx, der)
			continue
		}
		value, err := jami.ParseValue(v.Data)
		if err != nil {
			continue
		}
		if a, err := jami.VerifyAnnouncement(value, id); err == nil && !s.knows(a.Device) {
			s.learn(ctx, a.Device)
		}
	}
}

// take takes a revocation list from the overlay.
func (s *hosted) take(ctx context.Context, der []byte) {
	news, err := s.acc.AddCRL(der)
	if err != nil {
		s.env.Log.Debug("revocation list from the overlay", zap.Error(err))
	}
	if news {
		s.isPut.Store(false)
		s.env.Log.Info("a device was revoked elsewhere")
	}
}

func (s *hosted) knows(short jami.ID) bool {
	return slices.ContainsFunc(s.acc.Devices(), func(d account.Device) bool { return d.Short == short })
}

// learn finds the certificates of a device that the account announced, and reports whether
// there are some that were not known.
func (s *hosted) learn(ctx context.Context, short jami.ID) (some bool) {
	found, err := bus.Call(ctx, s.conn, contract.DHTGetCmd, &contract.DHTKey{Key: short.String()})
	if err != nil {
		s.env.Log.Debug("looking for a device's certificate", zap.Error(err))
		return false
	}
	for _, v := range found.Values {
		certs, err := certificates(v)
		if err != nil {
			continue
		}
		if news, err := s.acc.Learn(certs, s.now()); err != nil {
			s.env.Log.Debug("a device's certificate", zap.Error(err))
		} else if news {
			s.env.Log.Info("another device of the account, or a new certificate of one", zap.String("short_id", short.String()))
			some = true
		}
	}
	if some && s.inbox != nil {
		s.inbox.sync.changed()
	}
	return some
}

func certificates(v contract.DHTValue) ([]*x509.Certificate, error) {
	pem, err := jami.ParseBin(v.Data)
	if err != nil {
		return nil, err
	}
	return trust.Certificates(pem)
}
