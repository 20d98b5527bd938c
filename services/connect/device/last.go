package device

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/pion/stun"
	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/sockets"
	"github.com/parley-jami/parley/internal/trust"
	"github.com/parley-jami/parley/services/connect/device/ice"
	"github.com/parley-jami/parley/services/connect/device/icetcp"
	"github.com/parley-jami/parley/services/connect/device/lasting"
	"github.com/parley-jami/parley/services/connect/device/mux"
	"github.com/parley-jami/parley/services/connect/device/request"
	"github.com/parley-jami/parley/services/connect/device/secure"
)

// Lasts is the name of channels that the next process goes on with: those with calls.
const Lasts = "sip"

// about is what the next process has to know of a connection by TCP beside its session.
type about struct {
	Account     string `json:"account"`
	Chain       string `json:"chain"` // PEM, of the peer
	TLS         string `json:"tls"`
	Suite       string `json:"suite"`
	Controlling bool   `json:"controlling,omitempty"`
	Tie         uint64 `json:"tie"`
	Ufrag       string `json:"ufrag"`
	Pwd         string `json:"pwd"`
	PeerUfrag   string `json:"peer_ufrag"`
	PeerPwd     string `json:"peer_pwd"`
}

// last has a session by TCP go on in what outlives the process.
func (m *Manager) last(acc *Account, s *session, conn *icetcp.Conn, sess *secure.Session, chain *trust.Chain) error {
	t, err := conn.Take()
	if err != nil {
		return err
	}
	st := sess.ConnectionState()
	x := about{Account: acc.ID.String(), Chain: string(chain.PEM()), TLS: tls.VersionName(st.Version), Suite: tls.CipherSuiteName(st.CipherSuite),
		Controlling: t.Checks.Controlling, Tie: t.Checks.Tie, Ufrag: t.Checks.Local.Ufrag, Pwd: t.Checks.Local.Pwd,
		PeerUfrag: t.Checks.Remote.Ufrag, PeerPwd: t.Checks.Remote.Pwd}
	info, err := json.Marshal(&x)
	if err != nil {
		return err
	}
	c, why, err := lasting.New(t.Conn, lasting.Session{Suite: st.CipherSuite, Read: sess.ReadSecret, Write: sess.WriteSecret,
		Early: t.Early, Left: t.Left, Info: info}, m.lasting(&x, t.Conn.RemoteAddr()))
	if err != nil {
		return fmt.Errorf("the session with the device: %w", err)
	}
	if why != nil {
		m.cfg.Log.Info("a connection would end with the process", zap.Stringer("device", chain.DeviceShort), zap.Error(why))
	}
	s.on(c, chain, &x)
	return nil
}

// on has a session be on a connection.
func (s *session) on(c *lasting.Conn, chain *trust.Chain, x *about) {
	s.chain, s.close, s.free = chain, c.Free, c.Free
	s.peer.Over, s.peer.TLS, s.peer.Suite = "tcp", x.TLS, x.Suite
	s.open = func(cfg mux.Config) *mux.Socket { return mux.New(c, cfg) }
}

// lasting is how a connection is kept alive, and checks that come late are answered.
func (m *Manager) lasting(x *about, from net.Addr) lasting.Config {
	side := &ice.Side{Controlling: x.Controlling, Tie: x.Tie, Local: request.Description{Ufrag: x.Ufrag, Pwd: x.Pwd}, Remote: request.Description{Ufrag: x.PeerUfrag, Pwd: x.PeerPwd}}
	at, err := netip.ParseAddrPort(from.String())
	answer := func(b []byte) []byte {
		q := &stun.Message{Raw: b}
		if err != nil || q.Decode() != nil || q.Type != stun.BindingRequest || side.Admit(q) != nil {
			return nil
		}
		a, _, err := side.Answer(q, at)
		if err != nil {
			return nil
		}
		return a.Raw
	}
	return lasting.Config{Keep: m.cfg.Keep, KeepAlive: icetcp.KeepAlive(), Pause: icetcp.KeepAlivePause, Answer: answer}
}

// restored is a connection of the last process, whose account is not served yet.
type restored struct {
	conn  *lasting.Conn
	about about
}

// restore takes what the last process had kept.
func (m *Manager) restore(kept []sockets.Kept) {
	for _, k := range kept {
		r := &restored{}
		c, err := lasting.Restore(k, func(info []byte, from net.Addr) (lasting.Config, error) {
			if err := json.Unmarshal(info, &r.about); err != nil {
				return lasting.Config{}, fmt.Errorf("what is known of the connection: %w", err)
			}
			return m.lasting(&r.about, from), nil
		}, m.cfg.Keep)
		var id jami.ID
		if err == nil {
			r.conn = c
			if id, err = jami.ParseID(r.about.Account); err != nil {
				c.Free()
			}
		}
		if err != nil {
			m.cfg.Log.Warn("a connection of before is not gone on with", zap.Error(err))
			continue
		}
		m.restored[id] = append(m.restored[id], r)
	}
}

// lasts are the channels of a connection that go on, by the numbers that [channel.Lasting] has.
func (r *restored) lasts() (ids []uint64) {
	for num, st := range r.conn.Channels() {
		if st.GoesOn() {
			ids = append(ids, r.conn.Number(num))
		}
	}
	return ids
}

// Expected are the channels with calls that the last process had and this one goes on with, by the numbers
// that [channel.Lasting] has. Each is given to its handler when the account is added, or told to Lost.
func (m *Manager) Expected() (ids []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rs := range m.restored {
		for _, r := range rs {
			ids = append(ids, r.lasts()...)
		}
	}
	return ids
}

// Settle is called when all accounts were added that the node has: connections of others end.
func (m *Manager) Settle() {
	m.mu.Lock()
	rest := m.restored
	m.restored = nil
	m.mu.Unlock()
	for id, rs := range rest {
		for _, r := range rs {
			m.lose(r, fmt.Errorf("%w: %s", ErrNoAccount, id))
		}
	}
}

// lose ends a connection of the last process.
func (m *Manager) lose(r *restored, why error) {
	ids := r.lasts()
	m.cfg.Log.Info("a connection of before is not gone on with", zap.Error(why))
	r.conn.Free()
	if m.cfg.Lost != nil {
		m.cfg.Lost(ids)
	}
}

// resume serves a connection of the last process, if its device may still connect.
func (m *Manager) resume(acc *Account, r *restored) {
	certs, err := trust.Certificates([]byte(r.about.Chain))
	var chain *trust.Chain
	if err == nil {
		chain, err = acc.Judge.Check(certs)
	}
	if err != nil {
		m.lose(r, err)
		return
	}
	s := &session{}
	s.on(r.conn, chain, &r.about)
	s.peer.Account, s.peer.Device, s.peer.DeviceLong = chain.JamiID, chain.DeviceShort, chain.DeviceID.String()
	expected := r.lasts()
	m.serve(acc, s, func(l *link, err error) {
		if err != nil {
			m.cfg.Log.Info("a connection of before is not gone on with", zap.Stringer("device", chain.DeviceShort), zap.Error(err))
			return
		}
		m.cfg.Log.Info("a connection goes on", zap.Stringer("device", chain.DeviceShort), zap.Int("channels", len(expected)))
	})
	if m.cfg.Lost != nil {
		m.cfg.Lost(expected) // which it is not told twice, of those that came
	}
}

// goOn takes a channel of the last process.
func (m *Manager) goOn(acc *Account, c *mux.Channel) error {
	err := m.accept(acc, c)
	if id, _ := c.Lasts(); err != nil && m.cfg.Lost != nil {
		m.cfg.Lost([]uint64{id})
	}
	return err
}
