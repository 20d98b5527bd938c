package device

import (
	"context"
	"errors"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
)

// ErrNoLink says that there is no connection with a device.
var ErrNoLink = errors.New("there is no connection with the device")

// Device is the long id of an account's device on this node; false: it is not served.
func (m *Manager) Device(account jami.ID) (jami.LongID, bool) {
	acc := m.account(account)
	if acc == nil {
		return jami.LongID{}, false
	}
	return acc.Own.Chain.DeviceID, true
}

// Connected returns the devices of an account with which one of the node's has a connection. Each is
// asked for a sign of life: one whose other end is gone ends within seconds.
func (m *Manager) Connected(account, of jami.ID) []channel.Peer {
	m.mu.Lock()
	var all []*link
	for k, ls := range m.links {
		if k.account == account && ls[0].chain.JamiID == of {
			all = append(all, ls[len(ls)-1])
		}
	}
	m.mu.Unlock()
	var out []channel.Peer
	for _, l := range all {
		select {
		case <-l.sock.Done():
		default:
			l.sock.Beacon()
			out = append(out, l.sock.Peer())
		}
	}
	return out
}

// OpenOn opens a channel on the connection with a device that is there. The error may be
// [ErrNoLink] or [mux.ErrDeclined].
func (m *Manager) OpenOn(ctx context.Context, account jami.ID, device jami.LongID, name string) (channel.Channel, error) {
	l := m.live(linkKey{account, device})
	if l == nil {
		return nil, ErrNoLink
	}
	c, err := m.open(ctx, l, name)
	return channelOrNil(c), err
}
