package trunk

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/parley-jami/parley/services/media/srtp"
)

// Key is what a worker's process proves itself with.
type Key struct {
	worker, started string
	private         *ecdh.PrivateKey
}

// NewKey makes the key of a process: the worker's name and the word of its start.
func NewKey(worker, started string) (*Key, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("trunk key: %w", err)
	}
	return &Key{worker: worker, started: started, private: k}, nil
}

// Public returns the half that others are told, 32 bytes.
func (k *Key) Public() []byte { return k.private.PublicKey().Bytes() }

// Peer is another worker of a room.
type Peer struct {
	Worker, Started string
	Public          []byte // of its key
	Addr            netip.AddrPort
	// Nonce is made anew each time that the two are joined in a room, and the same at both:
	// keys are never used twice. It is not secret.
	Nonce string
	// Leaf says that the peer hears the other workers of the room through this one.
	Leaf bool
}

// ErrPeer is a peer that cannot be one.
var ErrPeer = errors.New("trunk: not a peer")

// sessionMark is the first byte of a session's id; see wire.Trunk.
const sessionMark = 0xC0

// half is one direction of a session.
type half struct {
	id   uint64
	keys srtp.Keys
}

// halves derives both directions of the session with a peer.
func (k *Key) halves(room string, p *Peer) (out, in half, err error) {
	if p.Worker == "" || p.Nonce == "" || !p.Addr.IsValid() || p.Worker == k.worker {
		return out, in, fmt.Errorf("%w: worker %q at %v", ErrPeer, p.Worker, p.Addr)
	}
	public, err := ecdh.X25519().NewPublicKey(p.Public)
	if err != nil {
		return out, in, fmt.Errorf("%w: worker %q: %w", ErrPeer, p.Worker, err)
	}
	secret, err := k.private.ECDH(public)
	if err != nil {
		return out, in, fmt.Errorf("%w: worker %q: %w", ErrPeer, p.Worker, err)
	}
	if out, err = derive(secret, p.Nonce, room, k.worker, k.started, p.Worker, p.Started); err != nil {
		return out, in, err
	}
	in, err = derive(secret, p.Nonce, room, p.Worker, p.Started, k.worker, k.started)
	return out, in, err
}

// derive makes the half in which the first process sends to the second. The names have no
// zero byte in them, so that no two lists are written alike.
func derive(secret []byte, nonce string, names ...string) (half, error) {
	const saltLen, idLen = 12, 7
	info := "parley trunk\x00" + strings.Join(names, "\x00")
	if strings.Count(info, "\x00") != len(names) {
		return half{}, fmt.Errorf("%w: a name has a zero byte", ErrPeer)
	}
	b, err := hkdf.Key(sha256.New, secret, []byte(nonce), info, srtp.KeyLen+saltLen+idLen)
	if err != nil {
		return half{}, fmt.Errorf("trunk keys: %w", err)
	}
	var id [8]byte
	id[0] = sessionMark
	copy(id[1:], b[srtp.KeyLen+saltLen:])
	return half{id: binary.BigEndian.Uint64(id[:]), keys: srtp.Keys{Profile: srtp.GCM, Key: b[:srtp.KeyLen], Salt: b[srtp.KeyLen : srtp.KeyLen+saltLen]}}, nil
}
