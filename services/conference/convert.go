// SPDX-License-Identifier: Apache-2.0

package conference

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/conference/room"
	"github.com/parley-jami/parley/services/conference/store"
)

func participant(m *room.Member) contract.Participant {
	return contract.Participant{
		ID: m.ID, Name: m.Name, Kind: contract.ParticipantKind(m.Kind), JamiID: m.JamiID, JamiDevice: m.Device, Role: contract.Role(m.Role),
		Muted: m.Muted, MutedBy: m.MutedBy, Speaking: m.Speaking, Hand: m.Hand, Transport: m.Transport, Codec: m.Codec,
		Joined: m.Joined, Connected: m.Connected, Worker: m.Worker, Signalling: m.Signalling,
	}
}

func settings(p room.Public) contract.RoomSettings {
	return contract.RoomSettings{Name: p.Name, Title: p.Title, HasPIN: p.HasPIN, Locked: p.Locked, SIPAuth: p.SIPAuth,
		DefaultRole: contract.Role(p.DefaultRole), Max: p.Max, Account: p.Account}
}

func roomEvent(name string, e *room.Event) (*contract.RoomEvent, error) {
	out := &contract.RoomEvent{Seq: e.Seq, Time: e.Time, Room: name, Type: contract.EventType(e.Type), By: e.By, Digit: e.Digit, Reason: e.Reason}
	if e.Member != nil {
		p := participant(e.Member)
		out.Participant = &p
	}
	if e.Settings != nil {
		s := settings(*e.Settings)
		out.Settings = &s
	}
	if e.Chat != nil {
		out.Chat = new(contract.ChatMessage)
		if err := json.Unmarshal(e.Chat, out.Chat); err != nil {
			return nil, fmt.Errorf("room %s, event %d: %w", name, e.Seq, err)
		}
	}
	return out, nil
}

func leg(l *contract.LegInfo) room.Leg {
	return room.Leg{ID: l.Leg, Transport: l.Transport, Codec: l.Codec, Connected: l.Connected, CanSpeak: l.CanSpeak, Muted: l.Muted,
		Speaking: l.Speaking, Packets: l.Quality.PacketsIn}
}

// refusals maps what package room refuses to what crosses the bus. The message is
// room's where it says more than the code.
var refusals = []struct {
	err  error
	code *contract.Error
	say  bool
}{
	{room.ErrPINRequired, contract.ErrPINRequired, false},
	{room.ErrPINWrong, contract.ErrPINWrong, false},
	{room.ErrLocked, contract.ErrLocked, false},
	{room.ErrFull, contract.ErrFull, false},
	{room.ErrRendezvous, contract.ErrRendezvous, false},
	{room.ErrJoining, contract.ErrBusy, true},
	{room.ErrNoMember, contract.ErrNotFound, true},
	{room.ErrForbidden, contract.ErrForbidden, true},
	{room.ErrBad, contract.ErrBadRequest, true},
	{room.ErrGone, contract.ErrGone, true},
}

// refusal turns an error of the packages below into one that crosses the bus.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*contract.Error](err); ok {
		return err
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			if r.say {
				return r.code.With("%s", err)
			}
			return r.code
		}
	}
	if d, ok := errors.AsType[*store.DamagedError](err); ok {
		return contract.ErrStateDamaged.With("%s", d)
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return contract.ErrStorage.With("%s", err)
	}
	return err
}
