package connect

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/bus"
	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
	"github.com/parley-jami/parley/services/connect/device/mux"
	"github.com/parley-jami/parley/services/connect/files"
)

// fileReach bounds the search for a device that has a file, and the way to it.
const fileReach = time.Minute

// desk is the files of this process.
type desk struct {
	folder  *files.Folder
	offers  *files.Offers
	giver   *files.Giver
	fetcher *files.Fetcher
	limit   int64
	conn    *bus.Conn
	log     *zap.Logger
}

// openDesk opens the folder of files. limit is in bytes.
func openDesk(dir string, limit int64, conn *bus.Conn, log *zap.Logger) (*desk, error) {
	folder, err := files.OpenFolder(filepath.Join(dir, "files"))
	if err != nil {
		return nil, err
	}
	d := &desk{folder: folder, limit: limit, conn: conn, log: log}
	if d.offers, err = files.OpenOffers(folder, limit); err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	d.giver = files.NewGiver(d.offers, d.tell, log)
	return d, nil
}

// fetchFrom says who opens channels.
func (d *desk) fetchFrom(peers files.Opener) {
	d.fetcher = files.NewFetcher(d.folder, peers, d.limit, d.tell, d.log)
}

func (d *desk) close() {
	d.giver.Close()
	if d.fetcher != nil {
		d.fetcher.Close()
	}
	if err := d.folder.Close(); err != nil {
		d.log.Debug("folder of files", zap.Error(err))
	}
}

func (d *desk) serve(svc *bus.Service) error {
	return errors.Join(
		bus.Serve(svc, contract.FileOfferCmd, d.offer),
		bus.Serve(svc, contract.FileRemoveCmd, d.remove),
		bus.Serve(svc, contract.FileGetCmd, d.get),
		bus.Serve(svc, contract.FileCancelCmd, d.cancel),
		bus.Serve(svc, contract.FileListCmd, d.list))
}

// tell publishes how far a transfer is.
func (d *desk) tell(p files.Progress) {
	e := transfer(p)
	if err := bus.Publish(context.Background(), d.conn.For(p.Account.String()), contract.FileTransfers, &e, e.Peer); err != nil {
		d.log.Warn("state of a file not published", zap.String("id", p.ID), zap.Error(err))
	}
}

func transfer(p files.Progress) contract.FileTransfer {
	e := contract.FileTransfer{FileRef: contract.FileRef(p.Ref), ID: p.ID, Given: p.Out, Peer: p.Peer.String(), Device: p.Device, Name: p.Name, Size: p.Size, Bytes: p.Bytes,
		State: string(p.State), Path: p.Path}
	if p.Err != nil {
		e.Why = p.Err.Error()
	}
	return e
}

func offered(x *files.Offer) *contract.FileOffered {
	out := &contract.FileOffered{FileRef: contract.FileRef(x.Ref), Name: x.Name, Size: x.Size, SHA3: x.SHA3, Path: x.Path}
	for _, id := range x.To {
		out.To = append(out.To, id.String())
	}
	return out
}

// fileError gives an error of a file its code.
func fileError(err error) error {
	for _, c := range []struct {
		is error
		to *contract.Error
	}{
		{files.ErrName, contract.ErrBadRequest}, {files.ErrTooLarge, contract.ErrBadRequest}, {files.ErrNoFile, contract.ErrNotFound}, {files.ErrChanged, contract.ErrBusy},
		{files.ErrOffered, contract.ErrExists}, {files.ErrRunning, contract.ErrExists}, {files.ErrMany, contract.ErrFull}, {files.ErrBusy, contract.ErrBusy}, {files.ErrDisk, contract.ErrStorage},
	} {
		if errors.Is(err, c.is) {
			return c.to.With("%v", err)
		}
	}
	return err
}

func (d *desk) account(param string) (jami.ID, error) {
	id, err := jami.ParseID(param)
	if err != nil {
		return id, contract.ErrBadRequest.With("%v", err)
	}
	return id, nil
}

func (d *desk) offer(ctx context.Context, r *bus.Request[contract.FileOffer]) (*contract.FileOffered, error) {
	own, err := d.account(r.Param(0))
	if err != nil {
		return nil, err
	}
	x := files.Offer{Account: own, Name: r.Body.Name, Path: r.Body.Path}
	if r.Body.Ref != nil {
		x.Ref = files.Ref(*r.Body.Ref)
	}
	for _, s := range r.Body.To {
		id, err := jami.ParseID(s)
		if err != nil || id.IsZero() {
			return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
		}
		x.To = append(x.To, id)
	}
	have, err := d.offers.Add(ctx, x)
	if err != nil {
		return nil, fileError(err)
	}
	return offered(have), nil
}

func (d *desk) remove(_ context.Context, r *bus.Request[contract.FileRef]) (*contract.None, error) {
	own, err := d.account(r.Param(0))
	if err != nil {
		return nil, err
	}
	had, err := d.offers.Remove(own, files.Ref(r.Body))
	switch {
	case err != nil:
		return nil, fileError(err)
	case !had:
		return nil, contract.ErrNotFound.With("the account offers no such file")
	}
	return &contract.None{}, nil
}

func (d *desk) get(_ context.Context, r *bus.Request[contract.FileGet]) (*contract.FileID, error) {
	own, err1 := d.account(r.Param(0))
	from, err2 := d.account(r.Body.From)
	if err := errors.Join(err1, err2); err != nil {
		return nil, contract.ErrBadRequest.With("a Jami Id is 40 hex digits")
	}
	id, err := d.fetcher.Start(files.Wish{Ref: files.Ref(r.Body.FileRef), Account: own, From: from, Name: r.Body.Name, Size: r.Body.Size, SHA3: r.Body.SHA3})
	if err != nil {
		return nil, fileError(err)
	}
	return &contract.FileID{ID: id}, nil
}

func (d *desk) cancel(_ context.Context, r *bus.Request[contract.FileID]) (*contract.None, error) {
	own, err := d.account(r.Param(0))
	if err != nil {
		return nil, err
	}
	if !d.fetcher.Cancel(own, r.Body.ID) {
		return nil, contract.ErrNotFound.With("the account gets no such file now")
	}
	return &contract.None{}, nil
}

func (d *desk) list(_ context.Context, r *bus.Request[contract.None]) (*contract.Files, error) {
	own, err := d.account(r.Param(0))
	if err != nil {
		return nil, err
	}
	out := &contract.Files{Offered: []contract.FileOffered{}, Transfers: []contract.FileTransfer{}}
	for _, x := range d.offers.List(own) {
		out.Offered = append(out.Offered, *offered(x))
	}
	for _, p := range d.fetcher.List(own) {
		out.Transfers = append(out.Transfers, transfer(p))
	}
	return out, nil
}

var errNoDevice = errors.New("no device of the account is online (it is off, or in another network: setting dht.overlay), or none has the file")

// Open implements [files.Opener]: on a connection that is there, else on a new one.
func (d *devices) Open(ctx context.Context, account, of jami.ID, name func(own jami.LongID) string) (channel.Channel, error) {
	ctx, cancel := context.WithTimeout(ctx, fileReach)
	defer cancel()
	own, ok := d.manager.Device(account)
	if !ok {
		return nil, contract.ErrUnavailable.With("account %s is not ready to be connected with", account)
	}
	s := name(own)
	had := map[string]bool{}
	var tries []func(context.Context) (channel.Channel, error)
	for _, p := range d.manager.Connected(account, of) {
		long, err := jami.ParseLongID(p.DeviceLong)
		if err != nil {
			return nil, err
		}
		had[p.DeviceLong] = true
		tries = append(tries, func(ctx context.Context) (channel.Channel, error) { return d.manager.OpenOn(ctx, account, long, s) })
	}
	c, declined := first(ctx, tries)
	if c != nil {
		return c, nil
	}
	chains, _, err := d.find(ctx, account, of)
	if err != nil {
		return nil, errors.Join(errNoDevice, declined, err)
	}
	tries = nil
	for _, to := range chains {
		if had[to.DeviceID.String()] && errors.Is(declined, mux.ErrDeclined) {
			continue
		}
		tries = append(tries, func(ctx context.Context) (channel.Channel, error) { return d.manager.Dial(ctx, account, to, s, "") })
	}
	if c, err = first(ctx, tries); c != nil {
		return c, nil
	}
	return nil, errors.Join(errNoDevice, declined, err)
}

// first tries all at once and returns the first channel that opens; others are closed. It is nil, with
// the errors, where none does.
func first(ctx context.Context, tries []func(context.Context) (channel.Channel, error)) (channel.Channel, error) {
	type result struct {
		c   channel.Channel
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan result)
	for _, try := range tries {
		go func() {
			c, err := try(ctx)
			done <- result{c, err}
		}()
	}
	var won channel.Channel
	var errs []error
	for range tries {
		switch r := <-done; {
		case r.err != nil:
			errs = append(errs, r.err)
		case won == nil:
			won = r.c
			cancel()
		default:
			errs = append(errs, r.c.Close())
		}
	}
	if won != nil {
		return won, nil
	}
	return nil, errors.Join(errs...)
}
