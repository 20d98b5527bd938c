package device

import (
	"context"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/device/secure"
)

// Judge says who may connect; bus/gate is one.
type Judge interface {
	secure.Judge
	// Watch calls fn once when the chain must not be let in any more, until stop is called.
	Watch(c *trust.Chain, fn func(error)) (stop func(), err error)
}

// Account is one of the node's accounts.
type Account struct {
	ID    jami.ID
	Own   secure.Own
	Judge Judge
	// Welcome refuses devices that are no contacts' where the account takes calls of those alone;
	// nil: anyone may call who is not banned. It may wait.
	Welcome func(context.Context, *trust.Chain) error
}

// Overlay carries messages of package request between devices. Its errors are told to
// who dials.
type Overlay interface {
	// Send puts a message where the peer's device listens for it, signed by the account's
	// device and encrypted.
	Send(ctx context.Context, account jami.ID, peer *trust.Chain, message []byte) error
}

// Add begins to serve an account, or takes what changed of one. Connections of the last process go on.
func (m *Manager) Add(a Account) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accounts[a.ID] = &a
	if m.closed {
		return // Close has ended them
	}
	for _, r := range m.restored[a.ID] {
		m.wg.Go(func() { m.resume(&a, r) })
	}
	delete(m.restored, a.ID)
}

// Remove ends what is done for an account, and its connections.
func (m *Manager) Remove(id jami.ID) {
	m.mu.Lock()
	delete(m.accounts, id)
	var gone []*link
	for k, ls := range m.links {
		if k.account == id {
			gone = append(gone, ls...)
		}
	}
	m.mu.Unlock()
	for _, l := range gone {
		l.sock.Close()
	}
}

func (m *Manager) account(id jami.ID) *Account {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accounts[id]
}
