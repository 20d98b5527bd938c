// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"context"
	"crypto/md5" //nolint:gosec // RFC 3261 §22.4 asks for it
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
	"github.com/parley-jami/parley/services/conference/store"
)

const (
	// maxRooms bounds the rooms of a node; an idle one takes some 10 KiB.
	maxRooms = 10_000
	// maxTitle is in characters.
	maxTitle = 128
	// maxMembers is the highest limit that a room can have.
	maxMembers = 100_000
)

var pinRE = regexp.MustCompile(`^[0-9]{4,12}$`)

// known says whether there is such a room: nil, "not_found", or what is wrong with
// its files.
func (s *Service) known(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err, ok := s.exist[name]
	if !ok {
		return contract.ErrNotFound.With("there is no room %q", name)
	}
	return err
}

// names returns the names of all rooms in order.
func (s *Service) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(s.exist))
	for n := range s.exist {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (s *Service) setKnown(name string, err error) {
	s.mu.Lock()
	s.exist[name] = err
	n := len(s.exist)
	s.mu.Unlock()
	s.metrics.rooms.Set(float64(n))
}

func (s *Service) forget(name string) {
	s.mu.Lock()
	delete(s.exist, name)
	n := len(s.exist)
	s.mu.Unlock()
	s.metrics.rooms.Set(float64(n))
}

// loadRooms finds the rooms on disk and starts them. A damaged one is refused,
// and its files are left as they are.
func (s *Service) loadRooms(ctx context.Context) error {
	names, err := s.dir.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		s.setKnown(n, nil)
		if _, err := ask(ctx, s, n, func(*live) (bool, error) { return true, nil }); err != nil {
			s.log.Error("room refused", zap.String("room", n), zap.Error(err))
			s.setKnown(n, err)
		}
	}
	def := s.env.Config.Rooms.Default
	if def == "" || slices.Contains(names, def) {
		return nil
	}
	_, err = s.makeRoom(ctx, &contract.RoomCreate{Name: def})
	if err != nil {
		return fmt.Errorf("the default room (rooms.default): %w", err)
	}
	return nil
}

func newSettings(q *contract.RoomCreate, now time.Time) (room.Settings, error) {
	set := room.Settings{Name: q.Name, Title: strings.TrimSpace(q.Title), PIN: q.PIN, SIPAuth: q.SIPAuth,
		DefaultRole: room.Role(q.DefaultRole), Max: q.Max, Account: q.Account, Created: now.UTC(), NewChat: true}
	if set.DefaultRole == "" {
		set.DefaultRole = room.Speaker
	}
	switch {
	case !store.ValidName(q.Name):
		return set, contract.ErrBadRequest.With("a room's name has 1 to 64 of a-z, 0-9 and -")
	case !utf8.ValidString(set.Title) || utf8.RuneCountInString(set.Title) > maxTitle || strings.ContainsFunc(set.Title, unicode.IsControl):
		return set, contract.ErrBadRequest.With("a title has at most %d characters and no control characters", maxTitle)
	case q.PIN != "" && !pinRE.MatchString(q.PIN):
		return set, contract.ErrBadRequest.With("a PIN has 4 to 12 digits")
	case q.SIPAuth && q.PIN == "":
		return set, contract.ErrBadRequest.With("sip_auth needs a PIN: it is the password")
	case set.DefaultRole != room.Speaker && set.DefaultRole != room.Listener:
		return set, contract.ErrBadRequest.With("default_role is speaker or listener")
	case q.Max < 0 || q.Max > maxMembers:
		return set, contract.ErrBadRequest.With("max is 0 (no limit) to %d", maxMembers)
	}
	var token [16]byte
	rand.Read(token[:]) //nolint:errcheck // it ends the process rather than fail (crypto/rand)
	set.Token = hex.EncodeToString(token[:])
	return set, nil
}

// makeRoom makes a room: on disk first.
func (s *Service) makeRoom(ctx context.Context, q *contract.RoomCreate) (*contract.Room, error) {
	set, err := newSettings(q, s.now())
	if err != nil {
		return nil, err
	}
	switch acc, ok := s.account(q.Account); {
	case !ok:
		return nil, contract.ErrNotFound.With("the node has no account %.64q", q.Account)
	case acc.Ended:
		return nil, contract.ErrForbidden.With("the account %s was revoked: no room can be made of it", acc.ID)
	}
	if set.Account == s.bus.Account() {
		set.Account = ""
	}
	s.making.Lock()
	defer s.making.Unlock()
	switch err := s.known(q.Name); {
	case err == nil:
		return nil, contract.ErrExists.With("there is a room %q already", q.Name)
	case !errors.Is(err, contract.ErrNotFound):
		return nil, err
	}
	if len(s.names()) >= maxRooms {
		return nil, contract.ErrFull.With("a node has at most %d rooms", maxRooms)
	}
	if err := s.dir.Save(set); err != nil {
		return nil, contract.ErrStorage.With("the room was not made: %v", err)
	}
	s.setKnown(q.Name, nil)
	s.copies.changed(q.Name)
	out, err := ask(ctx, s, q.Name, func(l *live) (*contract.Room, error) {
		l.converse()
		return &l.joined(room.Caller{Operator: true}).Room, nil
	})
	s.copies.settle(ctx, q.Name)
	if err == nil {
		s.log.Info("room made", zap.String("room", q.Name), zap.Bool("pin", q.PIN != ""), zap.Int("max", q.Max))
	}
	return out, err
}

func (s *Service) create(ctx context.Context, r *bus.Request[contract.RoomCreate]) (*contract.Room, error) {
	return s.makeRoom(ctx, &r.Body)
}

// remove ends a room: from the disk first, then everybody is put out.
func (s *Service) remove(ctx context.Context, r *bus.Request[contract.RoomRef]) (*contract.None, error) {
	name := r.Body.Room
	s.making.Lock()
	defer s.making.Unlock()
	if err := s.known(name); err != nil {
		return nil, err // a damaged one too: its files are for a person to look at
	}
	_, err := ask(ctx, s, name, func(l *live) (bool, error) {
		if err := s.dir.Remove(name); err != nil {
			return false, contract.ErrStorage.With("the room was not removed: %v", err)
		}
		l.removed = true
		l.r.Close(s.now(), contract.Operator, room.ReasonRemoved)
		l.commitSoft()
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	s.forget(name)
	s.copies.changed(name)
	s.copies.settle(ctx, name)
	if err := s.rooms.Stop(ctx, name); err != nil {
		s.log.Warn("room not stopped", zap.String("room", name), zap.Error(err))
	}
	s.log.Info("room removed", zap.String("room", name))
	if err := s.feed.Purge(ctx, s.filter(name)); err != nil {
		s.log.Warn("events of a removed room stay until they are old", zap.String("room", name), zap.Error(err))
	}
	return &contract.None{}, nil
}

// listedQuality is how many participants are listed with the quality of their
// audio, which takes as much space as all else about one: with it a list of
// [contract.RosterMax] would exceed the bus's largest message.
const listedQuality = 500

// list shows all rooms to the operator. A damaged one is there with what to do as
// its title.
func (s *Service) list(ctx context.Context, r *bus.Request[contract.RoomQuery]) (*contract.RoomList, error) {
	out := &contract.RoomList{Rooms: []contract.Room{}}
	left, listed := contract.RosterMax, 0
	names := s.names()
	first, found := slices.BinarySearch(names, r.Body.After)
	if found {
		first++
	}
	names = names[first:]
	if len(names) > s.page {
		names = names[:s.page]
		out.Next = names[len(names)-1]
	}
	for _, n := range names {
		rm, err := ask(ctx, s, n, func(l *live) (*contract.Room, error) {
			rm := &l.joined(room.Caller{Operator: true}).Room
			for i := range rm.Participants[:min(len(rm.Participants), max(0, listedQuality-listed))] {
				if q := l.quality[rm.Participants[i].ID]; q != nil {
					rm.Participants[i].Quality = q.LegQuality
				}
			}
			return rm, nil
		})
		switch {
		case errors.Is(err, contract.ErrNotFound):
			continue // removed meanwhile
		case err != nil:
			rm = &contract.Room{RoomSettings: contract.RoomSettings{Name: n, Title: err.Error()}, Participants: []contract.Participant{}}
		}
		// A message of the bus has a limit: of very many participants the first
		// are listed, and Total tells.
		rm.Participants = rm.Participants[:min(left, len(rm.Participants))]
		left -= len(rm.Participants)
		listed += len(rm.Participants)
		out.Rooms = append(out.Rooms, *rm)
	}
	return out, nil
}

func (s *Service) face(ctx context.Context, r *bus.Request[contract.RoomRef]) (*contract.RoomFace, error) {
	return ask(ctx, s, r.Body.Room, func(l *live) (*contract.RoomFace, error) {
		p := l.r.Settings().Public()
		return &contract.RoomFace{Name: p.Name, Title: p.Title, PIN: p.HasPIN, Locked: p.Locked, SIPAuth: p.SIPAuth, Account: p.Account}, nil
	})
}

// sipSecret gives connect what it checks a digest with.
func (s *Service) sipSecret(ctx context.Context, r *bus.Request[contract.SIPSecret]) (*contract.SIPSecret, error) {
	realm := r.Body.Realm
	if realm == "" || strings.ContainsAny(realm, "\"\r\n") {
		return nil, contract.ErrBadRequest.With("a realm is not empty and has no quotes or line breaks")
	}
	return ask(ctx, s, r.Param(1), func(l *live) (*contract.SIPSecret, error) {
		set := l.r.Settings()
		if set.PIN == "" {
			return nil, contract.ErrNotFound.With("room %s has no PIN", set.Name)
		}
		secret := []byte(set.Name + ":" + realm + ":" + set.PIN)
		m, h := md5.Sum(secret), sha256.Sum256(secret) //nolint:gosec // see above
		return &contract.SIPSecret{Realm: realm, HA1: hex.EncodeToString(m[:]), HA1SHA256: hex.EncodeToString(h[:])}, nil
	})
}
