package connect

import (
	"context"
	"errors"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/gitlink"
)

// gits opens channels of conversations for swarm.
type gits struct {
	links *gitlink.Links
	peers *devices
}

// fetch implements [contract.PeerGitCmd].
func (g *gits) fetch(ctx context.Context, r *bus.Request[contract.PeerGit]) (*contract.PeerGitFrom, error) {
	q := &r.Body
	own, err1 := jami.ParseID(r.Param(0))
	of, err2 := jami.ParseID(q.Of)
	var only jami.LongID
	var err3 error
	if q.Device != "" {
		only, err3 = jami.ParseLongID(q.Device)
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, contract.ErrBadRequest.With("%v", err)
	}
	if _, _, err := gitlink.ParseName(gitlink.Name(only, q.Conversation)); err != nil || q.Token == "" || len(q.Token) > 64 {
		return nil, contract.ErrBadRequest.With("a conversation has 40 hex digits, and a token 1 to 64 characters")
	}
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	c, err := g.peers.openOn(ctx, own, of, only, func(_, to jami.LongID) string { return gitlink.Name(to, q.Conversation) })
	if err != nil {
		return nil, contract.ErrUnavailable.With("%s: %v", of, err)
	}
	if err := g.links.Bring(own, c, q.Conversation, q.Token); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &contract.PeerGitFrom{Device: c.Peer().DeviceLong}, nil
}
