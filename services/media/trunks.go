package media

import (
	"context"
	"net/netip"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/services/media/trunk"
)

// maxPeers bounds the trunks of one room: more workers than that are joined as a tree.
const maxPeers = 256

// trunkAddress is where other workers send to: the best of those that browsers are told.
func (s *Service) trunkAddress() string {
	if all := s.host.Addresses(); len(all) > 0 {
		return all[0].String()
	}
	return ""
}

func (s *Service) trunksSet(_ context.Context, r *bus.Request[contract.TrunksSet]) (*contract.None, error) {
	q := &r.Body
	if err := s.termed(q.Term); err != nil {
		return nil, err
	}
	if q.Room == "" || len(q.Room) > 128 || len(q.Peers) > maxPeers {
		return nil, contract.ErrBadRequest.With("a room has a name of 1 to 128 characters and at most %d peers", maxPeers)
	}
	peers := make([]trunk.Peer, 0, len(q.Peers))
	for _, p := range q.Peers {
		at, err := netip.ParseAddrPort(p.Address)
		if err != nil {
			return nil, contract.ErrBadRequest.With("%q is not the address of a worker", p.Address)
		}
		peers = append(peers, trunk.Peer{Worker: p.Worker, Started: p.Started, Public: p.Key, Addr: at, Nonce: p.Nonce, Leaf: p.Leaf})
	}
	if err := s.host.Trunks(q.Room, q.Epoch, q.Version, peers); err != nil {
		return nil, refusal(err)
	}
	return &contract.None{}, nil
}
