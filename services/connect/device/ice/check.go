// Package ice is what connections between Jami devices by TCP and by UDP have in common: the
// connectivity checks (RFC 8445 §7), which are STUN messages with short-term credentials
// (RFC 5389 §10.1), and the addresses of this machine.
package ice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/request"
)

// Errors of checks.
var (
	ErrIntegrity = errors.New("a check that was not made with our password")
	ErrUsername  = errors.New("a check for another connection")
	ErrAnswer    = errors.New("an answer to nothing that was asked")
	ErrRefused   = errors.New("the peer refused the check")
)

// prflxPriority is PRIORITY of a check: that of a peer-reflexive candidate, which the
// connection's local end is (RFC 8445 §7.1.1).
const prflxPriority = 110<<24 | 65535<<8 | 255

// Side is what the two ends of a connection know each other by.
type Side struct {
	Controlling bool
	Tie         uint64
	Local       request.Description
	Remote      request.Description // of a check that came before the answer: empty
}

// Check makes a connectivity check; use selects the path (RFC 8445 §8.1.1).
func (s *Side) Check(use bool) (*stun.Message, error) {
	var prio [4]byte
	var tie [8]byte
	binary.BigEndian.PutUint32(prio[:], prflxPriority)
	binary.BigEndian.PutUint64(tie[:], s.Tie)
	role := stun.AttrICEControlled
	if s.Controlling {
		role = stun.AttrICEControlling
	}
	set := []stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(s.Remote.Ufrag + ":" + s.Local.Ufrag),
		stun.RawAttribute{Type: stun.AttrPriority, Value: prio[:]},
		stun.RawAttribute{Type: role, Value: tie[:]}}
	if use {
		set = append(set, stun.RawAttribute{Type: stun.AttrUseCandidate})
	}
	return stun.Build(append(set, stun.NewShortTermIntegrity(s.Remote.Pwd), stun.Fingerprint)...)
}

// Username splits that of a check that we got: ours, then the peer's.
func Username(m *stun.Message) (local, remote string, err error) {
	var u stun.Username
	if err := u.GetFrom(m); err != nil {
		return "", "", ErrUsername
	}
	for i, c := range u {
		if c == ':' {
			return string(u[:i]), string(u[i+1:]), nil
		}
	}
	return "", "", ErrUsername
}

// Admit judges a check that the peer sent.
func (s *Side) Admit(m *stun.Message) error {
	local, remote, err := Username(m)
	if err != nil {
		return err
	}
	if local != s.Local.Ufrag || s.Remote.Ufrag != "" && remote != s.Remote.Ufrag {
		return ErrUsername
	}
	if err := stun.NewShortTermIntegrity(s.Local.Pwd).Check(m); err != nil {
		return fmt.Errorf("%w: %w", ErrIntegrity, err)
	}
	return nil
}

// Answer answers a check that was admitted. A peer that takes itself for what we are is told
// to change (RFC 8445 §7.3.1.1): who asks is controlled, so we never do.
func (s *Side) Answer(m *stun.Message, from netip.AddrPort) (out *stun.Message, conflict bool, err error) {
	sure := []stun.Setter{stun.NewShortTermIntegrity(s.Local.Pwd), stun.Fingerprint}
	if m.Contains(stun.AttrICEControlling) && s.Controlling || m.Contains(stun.AttrICEControlled) && !s.Controlling {
		out, err = stun.Build(append([]stun.Setter{stun.NewTransactionIDSetter(m.TransactionID), stun.BindingError, stun.CodeRoleConflict}, sure...)...)
		return out, true, err
	}
	addr := stun.XORMappedAddress{IP: from.Addr().Unmap().AsSlice(), Port: int(from.Port())}
	out, err = stun.Build(append([]stun.Setter{stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess, &addr}, sure...)...)
	return out, false, err
}

// Answered judges an answer to one of our checks. Stock signs its answers; some errors are
// not (RFC 5389 §10.1.2).
func (s *Side) Answered(m *stun.Message) error {
	if m.Type == stun.BindingError {
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(m); err != nil {
			return ErrRefused
		}
		return fmt.Errorf("%w: %d", ErrRefused, code.Code)
	}
	if err := stun.NewShortTermIntegrity(s.Remote.Pwd).Check(m); err != nil {
		return fmt.Errorf("%w: %w", ErrIntegrity, err)
	}
	return nil
}
