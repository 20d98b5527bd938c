package leg

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/parley-jami/parley/services/media/mix"
	"github.com/parley-jami/parley/services/media/trunk"
	"github.com/parley-jami/parley/services/media/wire"
)

// roomTrunks is who ordered a room's trunks last, and the mixer that they hold.
type roomTrunks struct {
	epoch, version uint64
	room           *Room // nil: no trunks
}

// Trunks joins a room with the same room at other workers; no peers: with none any more. An
// order that is older than the last one, by the epoch of the room's actor or within it by
// version, is refused as stale; the same one again changes nothing.
func (h *Host) Trunks(name string, epoch, version uint64, peers []trunk.Peer) error {
	h.ctl.Lock()
	defer h.ctl.Unlock()
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return ErrClosed
	}
	t := h.joined[name]
	if t == nil {
		t = new(roomTrunks)
	}
	if epoch < t.epoch || epoch == t.epoch && version < t.version {
		return ErrStale
	}
	r := t.room
	if r == nil {
		r = h.Room(name)
	}
	if err := h.trunks.Set(name, r.Mix, peers); err != nil {
		if t.room == nil {
			h.Release(r)
		}
		return fmt.Errorf("%w: %w", ErrOffer, err)
	}
	t.epoch, t.version, t.room = epoch, version, r
	h.joined[name] = t
	if len(peers) == 0 {
		t.room = nil
		h.Release(r)
	}
	return nil
}

// forgetTrunks ends all trunks. The caller holds h.ctl.
func (h *Host) forgetTrunks() {
	for name, t := range h.joined {
		if t.room == nil {
			continue
		}
		if err := h.trunks.Set(name, t.room.Mix, nil); err != nil {
			h.logError("trunks not ended", name, err)
		}
		h.Release(t.room)
		t.room = nil
	}
}

// trunkPacket takes what a worker sends.
func (h *Host) trunkPacket(pkt []byte, now int64) {
	switch err := h.trunks.Receive(pkt, now); {
	case err == nil:
		h.stats.packetsIn.Add(1)
	case errors.Is(err, trunk.ErrRefused):
		h.drop(dropTrunk)
	default:
		h.drop(dropMalformed)
	}
}

// TrunkCounts tells of the trunks that are there.
func (h *Host) TrunkCounts() trunk.Counts { return h.trunks.Counts() }

// trunkSocket sends from where browsers are served: it needs no port of its own.
type trunkSocket struct{ p *port }

func (s trunkSocket) Sockaddr(a netip.AddrPort) (wire.Sockaddr, bool) { return s.p.sock.Sockaddr(a) }

func (s trunkSocket) Writer() *wire.Writer { return s.p.getWriter() }

func (s trunkSocket) Done(w *wire.Writer) {
	w.Flush()
	s.p.putWriter(w)
}

var _ mix.Trunk = (*trunk.Set)(nil)
