package relay

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"

	credentials "github.com/parley-jami/parley/internal/turn"
)

// raw is a client that can send anything.
type raw struct {
	t     testing.TB
	conn  net.Conn
	nonce stun.Nonce
	realm stun.Realm
	last  *stun.Message
}

func (r *rig) raw() *raw {
	r.t.Helper()
	c, err := net.Dial("udp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return &raw{t: r.t, conn: c}
}

type attr struct {
	typ   stun.AttrType
	value []byte
}

// AddTo implements stun.Setter.
func (a attr) AddTo(m *stun.Message) error {
	m.Add(a.typ, a.value)
	return nil
}

var udpTransport = attr{stun.AttrRequestedTransport, []byte{17, 0, 0, 0}}

func channelAttr(n uint16) attr {
	return attr{stun.AttrChannelNumber, binary.BigEndian.AppendUint32(nil, uint32(n)<<16)}
}

func lifetimeAttr(sec uint32) attr {
	return attr{stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, sec)}
}

type peerAttr string

// AddTo implements stun.Setter.
func (p peerAttr) AddTo(m *stun.Message) error {
	at := netip.MustParseAddrPort(string(p))
	return stun.XORMappedAddress{IP: at.Addr().AsSlice(), Port: int(at.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

// ask makes an authenticated request and returns the code of the error, 0 for success.
// No answer is a failure of the test.
func (c *raw) ask(cred credentials.Credential, method stun.Method, attrs ...stun.Setter) int {
	c.t.Helper()
	for range 2 {
		set := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)
		if len(c.nonce) > 0 {
			set = append(set, stun.NewUsername(cred.Username), c.realm, c.nonce, stun.NewLongTermIntegrity(cred.Username, c.realm.String(), cred.Password))
		}
		m := stun.MustBuild(set...)
		if _, err := c.conn.Write(m.Raw); err != nil {
			c.t.Fatal(err)
		}
		got := c.read(2 * time.Second)
		if got == nil {
			return -1
		}
		c.last = got
		if got.Type.Class == stun.ClassSuccessResponse {
			return 0
		}
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(got); err != nil {
			c.t.Fatal(err)
		}
		if len(c.nonce) > 0 {
			return int(code.Code)
		}
		if c.nonce.GetFrom(got) != nil || c.realm.GetFrom(got) != nil {
			c.t.Fatalf("%v without nonce and realm", code)
		}
	}
	return 401
}

// read returns the next STUN message, nil when none comes.
func (c *raw) read(within time.Duration) *stun.Message {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, 2000)
	n, err := c.conn.Read(b)
	if err != nil {
		return nil
	}
	m := &stun.Message{Raw: b[:n]}
	if err := m.Decode(); err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *raw) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}
