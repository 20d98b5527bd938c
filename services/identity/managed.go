package identity

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/jams"
)

// How often an account's server is asked: after a change of a contact, and without one.
const (
	managedRest  = 5 * time.Second
	managedEvery = time.Minute
)

// keepManaged keeps the contacts as the account server has them, and learns from it when
// the device or the account is ended, until ctx ends (§5.3).
func (s *hosted) keepManaged(ctx context.Context) {
	m := s.acc.Managed()
	client, err := managerOf(&m, s.now)
	if err != nil {
		s.env.Log.Error("account server", zap.String("id", s.id()), zap.Error(err))
		return
	}
	defer client.Close()
	session, err := client.AsDevice(s.acc.DeviceKey(), s.acc.Chain)
	if err != nil {
		s.env.Log.Error("account server", zap.String("id", s.id()), zap.Error(err))
		return
	}
	defer session.Close()
	away := false
	for {
		wait := s.managedEvery
		changed := s.acc.ContactsChanged() // before, so that what changes meanwhile is not missed
		err := s.syncManaged(ctx, session)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, jams.ErrRevoked), errors.Is(err, jams.ErrBadCredentials):
			if s.endManaged(err) {
				return
			}
		case err != nil:
			if d, ok := jams.RetryAfter(err); ok {
				wait = max(wait, d)
			}
			if !away {
				s.env.Log.Warn("account server; trying again", zap.String("id", s.id()), zap.Error(err))
			}
		case away:
			s.env.Log.Info("account server is back", zap.String("id", s.id()))
		}
		away = err != nil
		if !awaitManaged(ctx, wait, changed) {
			return
		}
	}
}

// endManaged notes that the server ended the account or the device: for good, where it says
// so. A device that it does not know, or a user who is disabled, may be let in again.
func (s *hosted) endManaged(err error) (ended bool) {
	if !errors.Is(err, jams.ErrRevoked) {
		s.env.Log.Error("the account server does not take this device", zap.String("id", s.id()), zap.Error(err))
		return false
	}
	if werr := s.acc.End("the account server says: " + strings.TrimSpace(err.Error())); werr != nil {
		s.env.Log.Error("not noted that the account server ended the account; asking again", zap.Error(werr))
		return false
	}
	s.tellShutOut()
	return true
}

// awaitManaged waits until the server is to be asked again; false when ctx ends.
func awaitManaged(ctx context.Context, wait time.Duration, changed <-chan struct{}) bool {
	rest, over := time.NewTimer(min(managedRest, wait)), time.NewTimer(wait)
	defer rest.Stop()
	defer over.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-rest.C:
	}
	select {
	case <-ctx.Done():
		return false
	case <-over.C:
	case <-changed:
	}
	return true
}

// syncManaged tells the server of the contacts and takes what it has.
func (s *hosted) syncManaged(ctx context.Context, session *jams.Session) error {
	all, err := session.Merge(ctx, s.acc.Contacts())
	if err != nil {
		return err
	}
	changed, skipped, err := s.acc.MergeContacts(all, s.now())
	if err != nil {
		return err
	}
	if skipped > 0 {
		s.env.Log.Warn("contacts of the account server are not taken: dated ahead of this clock, or too many", zap.Int("contacts", skipped))
	}
	if len(changed) > tellEach {
		changed = []jami.ID{{}}
	}
	for _, id := range changed {
		s.tellContact(ctx, id)
	}
	return nil
}
