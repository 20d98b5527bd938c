package dht

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/dht/overlay"
)

// An announcement that could not be made is tried again after the first of
// these, doubling to the second.
const (
	announceFirst = time.Second
	announceMost  = time.Minute
)

// announce puts the device's announcement at the Jami Id, with a fresh value id at
// each start (§3.2).
func (s *Service) announce(ctx context.Context) {
	for wait := announceFirst; ; wait = min(2*wait, announceMost) {
		err := s.announceDevice(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		s.env.Log.Warn("device not announced; trying again", zap.Error(err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (s *Service) announceDevice(ctx context.Context) error {
	c, err := bus.Call(ctx, s.conn, contract.IdentityCerts, &contract.None{})
	if err != nil {
		return err
	}
	id, err := jami.ParseID(s.account.ID)
	if err != nil {
		return err
	}
	v, err := jami.ParseValue(c.Announcement)
	if err != nil {
		return err
	}
	if _, err := jami.VerifyAnnouncement(v, id); err != nil {
		return fmt.Errorf("own announcement: %w", err)
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return err
	}
	v.ID = binary.BigEndian.Uint64(b[:]) | 1 // never 0
	packed, err := v.Pack()
	if err != nil {
		return err
	}
	st, err := s.node.Put(ctx, overlay.Value{Key: overlay.Key(id), ID: v.ID, Type: v.Type, Data: packed}, true)
	if err != nil {
		return err
	}
	s.env.Log.Info("device announced", zap.Int("peers", st.Peers))
	return nil
}

// presence looks for an announcement that the account itself signed: anyone can
// store values under anyone's id (§3.8).
func (s *Service) presence(ctx context.Context, r *bus.Request[contract.DHTPresence]) (*contract.DHTPresence, error) {
	id, err := jami.ParseID(r.Body.ID)
	if err != nil || id.IsZero() {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	vs, err := s.node.Get(ctx, overlay.Key(id))
	if err != nil {
		return nil, s.refusal(err)
	}
	for _, v := range vs {
		if announces(v.Data, id) {
			return &contract.DHTPresence{ID: id.String(), Online: true}, nil
		}
	}
	return &contract.DHTPresence{ID: id.String()}, nil
}

func announces(data []byte, id jami.ID) bool {
	v, err := jami.ParseValue(data)
	if err != nil {
		return false
	}
	_, err = jami.VerifyAnnouncement(v, id)
	return err == nil
}
