package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// How fast values at the accounts' keys for connections are opened, as with inboxes.
const (
	ringRate  = 40 // a second
	ringBurst = 100
)

// Bounds of those who ask: their certificates are looked up.
const (
	askersAtOnce  = 16
	askersWaiting = 256
)

// A chain that was found good is good for chainTime, if nobody says otherwise; so many are
// remembered.
const (
	chainTime = 5 * time.Minute
	// laggards is how long a device that was found waits for the others of its account.
	laggards  = 300 * time.Millisecond
	maxChains = 4096
)

// connections takes what devices send to have a connection, and sends what the account's
// device sends for that. What it is about, connect alone knows.
type connections struct {
	s     *hosted
	queue *fairQueue
	known *chains
	asker chan *jami.Value
}

func newConnections(s *hosted) *connections {
	return &connections{s: s, queue: newFairQueue(), known: newChains(), asker: make(chan *jami.Value, askersWaiting)}
}

// run tells of what comes until ctx ends.
func (c *connections) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	c.s.watch.add(jami.PeerKey(c.s.acc.Chain.DeviceShort), c.offer)
	for range askersAtOnce {
		wg.Go(func() { c.tellAll(ctx) })
	}
	for {
		w, ok := c.queue.pop()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-c.queue.ready:
			}
			continue
		}
		if c.s.ringing.Wait(ctx) != nil {
			return
		}
		c.open(ctx, w)
	}
}

// offer takes a value from the overlay if it may be one for us. What finds no place comes
// again with the next renewal of the lease.
func (c *connections) offer(v contract.DHTValue, gone bool) (had bool) {
	if gone {
		return false
	}
	value, err := jami.ParseValue(v.Data)
	if err != nil || len(value.Cipher) < minCipher || len(value.Cipher) > jami.MaxValue {
		return true
	}
	return !c.queue.push(v.Writer, waiting{value, sha256.Sum256(value.Cipher)})
}

// open opens a value with the device's key. Contacts tell their addresses at the same key.
func (c *connections) open(ctx context.Context, w waiting) {
	clear, err := w.value.Decrypt(c.s.acc.DeviceKey())
	if err == nil && clear.UserType == jami.UserTypeAddresses && c.s.inbox != nil {
		c.s.inbox.opened(ctx, clear, w.digest)
		return
	}
	if err != nil || clear.Type != jami.TypeData || clear.UserType != jami.UserTypePeerRequest || len(clear.Data) > contract.MaxPeerMessage {
		c.s.env.Log.Debug("no request for a connection", zap.Error(err))
		return
	}
	select {
	case c.asker <- clear:
	default:
		c.s.env.Log.Warn("more devices ask for connections than can be looked up")
	}
}

// tellAll tells of messages whose senders are looked up.
func (c *connections) tellAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case v := <-c.asker:
			chain, err := c.sender(ctx, v)
			if err != nil {
				c.s.env.Log.Info("request for a connection refused", zap.Stringer("device", v.Signer()), zap.Error(err))
				continue
			}
			if err := bus.Publish(ctx, c.s.conn, contract.PeerMessages, &contract.PeerMessage{Chain: string(chain.PEM()), Message: v.Data}); err != nil {
				c.s.env.Log.Warn("request for a connection not told", zap.Error(err))
			}
		}
	}
}

// sender finds out whose device signed a message.
func (c *connections) sender(ctx context.Context, v *jami.Value) (*trust.Chain, error) {
	rules := &trust.Rules{Now: c.s.now, Revoked: c.s.acc.Revocations()}
	if chain := c.known.get(v.Signer(), c.s.now()); chain != nil && rules.Recheck(chain) == nil {
		if c.s.blocked(chain) {
			return nil, errBlocked
		}
		return chain, nil
	}
	chain, err := c.s.sender(ctx, v)
	if err != nil {
		return nil, err
	}
	c.known.put(chain, c.s.now())
	return chain, nil
}

// peerSend sends a message to a device.
func (s *hosted) peerSend(ctx context.Context, r *bus.Request[contract.PeerMessage]) (*contract.None, error) {
	if n := len(r.Body.Message); n == 0 || n > contract.MaxPeerMessage {
		return nil, contract.ErrBadRequest.With("a message of %d bytes, 1 to %d", n, contract.MaxPeerMessage)
	}
	if err := s.acc.Revoked(); err != nil {
		return nil, contract.ErrStateDamaged.With("%v", err)
	}
	to, err := (&trust.Rules{Now: s.now, Revoked: s.acc.Revocations()}).Parse([]byte(r.Body.Chain))
	if err != nil {
		return nil, contract.ErrForbidden.With("%v", err)
	}
	if s.blocked(to) {
		return nil, contract.ErrForbidden.With("%v", errBlocked)
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	id := binary.BigEndian.Uint64(b[:]) | 1 // never 0
	v, err := (&jami.Value{ID: id, Type: jami.TypeData, UserType: jami.UserTypePeerRequest, Data: r.Body.Message}).EncryptTo(to.Device.PublicKey, s.acc.DeviceKey())
	if err != nil {
		return nil, err
	}
	packed, err := v.Pack()
	if err != nil {
		return nil, err
	}
	_, err = bus.Call(ctx, s.conn, contract.DHTPutCmd, &contract.DHTPut{
		Value: contract.DHTValue{Key: jami.PeerKey(to.DeviceShort).String(), ID: id, Type: jami.TypeData, Data: packed}})
	return &contract.None{}, err
}

// peerFind finds the devices of an account.
func (s *hosted) peerFind(ctx context.Context, r *bus.Request[contract.PeerAccount]) (*contract.PeerDevices, error) {
	id, err := jami.ParseID(r.Body.ID)
	if err != nil || id.IsZero() {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	if x, _ := s.acc.Contact(id); x.Blocked() {
		return nil, contract.ErrForbidden.With("%v", errBlocked)
	}
	found, missing, err := s.devicesWithin(ctx, id, laggards)
	if err != nil {
		return nil, err
	}
	out := &contract.PeerDevices{Chains: []string{}, Missing: missing}
	for _, c := range found {
		if s.blocked(c) || c.DeviceID == s.acc.Chain.DeviceID {
			continue
		}
		s.connections.known.put(c, s.now())
		out.Chains = append(out.Chains, string(c.PEM()))
	}
	return out, nil
}

// blocked reports whether the account has blocked another one, or an authority above it.
func (s *hosted) blocked(c *trust.Chain) bool {
	for _, cert := range c.Certs() {
		id, _ := jami.CertIDs(cert)
		if x, _ := s.acc.Contact(id); x.Blocked() {
			return true
		}
	}
	return false
}

// chains remembers those that were found good. It is safe for concurrent use.
type chains struct {
	mu sync.Mutex
	by map[jami.ID]knownChain // by the device's short id
}

type knownChain struct {
	*trust.Chain
	until time.Time
}

func newChains() *chains { return &chains{by: map[jami.ID]knownChain{}} }

func (k *chains) get(device jami.ID, now time.Time) *trust.Chain {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.by[device]; now.Before(c.until) {
		return c.Chain
	}
	return nil
}

func (k *chains) put(c *trust.Chain, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.by) >= maxChains {
		clear(k.by) // it is looked up again
	}
	k.by[c.DeviceShort] = knownChain{c, now.Add(chainTime)}
}
