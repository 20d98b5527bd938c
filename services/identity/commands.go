package identity

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/names"
	"github.com/parley-jami/parley/services/identity/account"
)

// maxAlias bounds a display name, in characters.
const maxAlias = 128

func (s *hosted) set(_ context.Context, r *bus.Request[contract.AccountChange]) (*contract.Account, error) {
	if a := r.Body.Alias; a != nil {
		if err := checkAlias(*a); err != nil {
			return nil, err
		}
	}
	if n := r.Body.Name; n != nil {
		if _, err := names.Normalize(*n); err != nil {
			return nil, contract.ErrBadRequest.With("%v", err)
		}
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	_, err := s.acc.Change(func(set *account.Settings) {
		if r.Body.Alias != nil {
			set.Alias = strings.TrimSpace(*r.Body.Alias)
		}
		if r.Body.Name != nil {
			set.Name = *r.Body.Name
		}
		if r.Body.Rendezvous != nil {
			set.Rendezvous = *r.Body.Rendezvous
		}
	})
	if err != nil {
		s.env.Log.Error("settings not written", zap.Error(err))
		return nil, contract.ErrStorage.With("the settings could not be written: %v", err)
	}
	return s.shown(), nil
}

func checkAlias(a string) error {
	if strings.TrimSpace(a) == "" || utf8.RuneCountInString(a) > maxAlias || !utf8.ValidString(a) ||
		strings.ContainsFunc(a, unicode.IsControl) {
		return contract.ErrBadRequest.With("an alias has 1 to %d characters and no control characters", maxAlias)
	}
	return nil
}

func (s *hosted) certs(context.Context, *bus.Request[contract.None]) (*contract.Certificates, error) {
	c := s.acc.Chain
	ann, err := s.acc.Receipt.Announcement.Pack()
	if err != nil {
		return nil, err
	}
	return &contract.Certificates{DevicePEM: string(jami.MarshalChain(c.Device)), AccountPEM: string(jami.MarshalChain(c.Certs()[1:]...)),
		Announcement: ann, CRL: s.acc.CRL(), OlderCRLs: s.olderLists(), Authorities: s.authorityLists()}, nil
}
