package icetcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/pion/stun"

	"github.com/parley-jami/parley/services/connect/device/request"
)

// Errors of checks.
var (
	errIntegrity = errors.New("a check that was not made with our password")
	errUsername  = errors.New("a check for another connection")
	errAnswer    = errors.New("an answer to nothing that was asked")
	errRefused   = errors.New("the peer refused the check")
)

// prflxPriority is PRIORITY of a check: that of a peer-reflexive candidate, which the
// connection's local end is (RFC 8445 §7.1.1).
const prflxPriority = 110<<24 | 65535<<8 | 255

// side is what the two ends of a connection know each other by.
type side struct {
	controlling bool
	tie         uint64
	local       request.Description
	remote      request.Description // of a check that came before the answer: empty
}

// check makes a connectivity check.
func (s *side) check(use bool) (*stun.Message, error) {
	var prio [4]byte
	var tie [8]byte
	binary.BigEndian.PutUint32(prio[:], prflxPriority)
	binary.BigEndian.PutUint64(tie[:], s.tie)
	role := stun.AttrICEControlled
	if s.controlling {
		role = stun.AttrICEControlling
	}
	set := []stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(s.remote.Ufrag + ":" + s.local.Ufrag),
		stun.RawAttribute{Type: stun.AttrPriority, Value: prio[:]},
		stun.RawAttribute{Type: role, Value: tie[:]}}
	if use {
		set = append(set, stun.RawAttribute{Type: stun.AttrUseCandidate})
	}
	return stun.Build(append(set, stun.NewShortTermIntegrity(s.remote.Pwd), stun.Fingerprint)...)
}

// username splits that of a check that we got: ours, then the peer's.
func username(m *stun.Message) (local, remote string, err error) {
	var u stun.Username
	if err := u.GetFrom(m); err != nil {
		return "", "", errUsername
	}
	for i, c := range u {
		if c == ':' {
			return string(u[:i]), string(u[i+1:]), nil
		}
	}
	return "", "", errUsername
}

// admit judges a check that the peer sent.
func (s *side) admit(m *stun.Message) error {
	local, remote, err := username(m)
	if err != nil {
		return err
	}
	if local != s.local.Ufrag || s.remote.Ufrag != "" && remote != s.remote.Ufrag {
		return errUsername
	}
	if err := stun.NewShortTermIntegrity(s.local.Pwd).Check(m); err != nil {
		return fmt.Errorf("%w: %w", errIntegrity, err)
	}
	return nil
}

// answer answers a check that was admitted. A peer that takes itself for what we are is told
// to change (RFC 8445 §7.3.1.1): who asks is controlled, so we never do.
func (s *side) answer(m *stun.Message, from net.Addr) (out *stun.Message, conflict bool, err error) {
	sure := []stun.Setter{stun.NewShortTermIntegrity(s.local.Pwd), stun.Fingerprint}
	if m.Contains(stun.AttrICEControlling) && s.controlling || m.Contains(stun.AttrICEControlled) && !s.controlling {
		out, err = stun.Build(append([]stun.Setter{stun.NewTransactionIDSetter(m.TransactionID), stun.BindingError, stun.CodeRoleConflict}, sure...)...)
		return out, true, err
	}
	var addr stun.XORMappedAddress
	if t, ok := from.(*net.TCPAddr); ok {
		addr.IP, addr.Port = t.IP, t.Port
		if v4 := t.IP.To4(); v4 != nil {
			addr.IP = v4
		}
	}
	out, err = stun.Build(append([]stun.Setter{stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess, &addr}, sure...)...)
	return out, false, err
}

// answered judges an answer to one of our checks. Stock signs its answers; some errors are
// not (RFC 5389 §10.1.2).
func (s *side) answered(m *stun.Message) error {
	if m.Type == stun.BindingError {
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(m); err != nil {
			return errRefused
		}
		return fmt.Errorf("%w: %d", errRefused, code.Code)
	}
	if err := stun.NewShortTermIntegrity(s.remote.Pwd).Check(m); err != nil {
		return fmt.Errorf("%w: %w", errIntegrity, err)
	}
	return nil
}
