package files

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
)

// Bounds of what is given at once.
const (
	maxGiven       = 64
	maxGivenDevice = 4
)

// Giver gives the files that are offered. It implements [channel.Handler], and is safe for
// concurrent use.
type Giver struct {
	offers *Offers
	may    May
	tell   func(Progress) // may not wait
	log    *zap.Logger
	open   *channel.Set
}

// NewGiver returns a giver, which is told on of what goes on. may is asked of files of conversations; nil:
// there are none. It works until Close.
func NewGiver(o *Offers, may May, tell func(Progress), log *zap.Logger) *Giver {
	return &Giver{offers: o, may: may, tell: tell, log: log, open: channel.NewSet(maxGiven, maxGivenDevice)}
}

// Close ends all that is being given and waits.
func (g *Giver) Close() { g.open.Close() }

// Accept implements [channel.Handler] (swarm §5.2).
func (g *Giver) Accept(account jami.ID, c channel.Channel) error {
	q, err := ParseName(c.Name())
	if err != nil {
		return err
	}
	peer := c.Peer()
	if q.Device.String() != peer.DeviceLong {
		return fmt.Errorf("%w: the channel is of another device", ErrRefused)
	}
	x, file, err := g.offers.open(account, peer, q.Ref, g.may)
	if err != nil {
		g.log.Info("file not given", zap.Stringer("account", account), zap.Stringer("jami_id", peer.Account), zap.Error(err))
		return err
	}
	end := q.End
	if end == 0 {
		end = x.Size
	}
	if q.Start > end || end > x.Size {
		return errors.Join(fmt.Errorf("%w: bytes %d to %d of %d", ErrName, q.Start, end, x.Size), file.Close())
	}
	err = g.open.Serve(c, func() {
		defer file.Close()
		g.give(c, file, q.Start, end, Progress{Ref: x.Ref, ID: newID(), Out: true, Account: account, Peer: peer.Account, Device: peer.DeviceLong, Name: x.Name, Size: x.Size})
	})
	if err != nil {
		return errors.Join(err, file.Close())
	}
	return nil
}

func newID() string { return rand.Text()[:16] }

// give writes bytes of a file.
func (g *Giver) give(c channel.Channel, file *os.File, start, end int64, p Progress) {
	p.State, p.Bytes = Running, start
	g.tell(p)
	r, b, told := io.NewSectionReader(file, start, end-start), make([]byte, channel.MaxMessage), time.Now()
	for {
		n, err := r.Read(b)
		if n > 0 {
			w, werr := c.Write(b[:n])
			p.Bytes += int64(w)
			if werr != nil {
				err = werr
			}
		}
		switch now := time.Now(); {
		case p.Bytes == end && (err == nil || err == io.EOF):
			p.State = Done
			g.tell(p)
			return
		case err == io.EOF: // somebody made it shorter
			p.State, p.Err = Failed, ErrChanged
			g.tell(p)
			return
		case err != nil:
			p.State, p.Err = Failed, fmt.Errorf("the device took %d bytes of %d: %w", p.Bytes, end, err)
			g.tell(p)
			return
		case now.Sub(told) >= progressEvery:
			told = now
			g.tell(p)
		}
	}
}
