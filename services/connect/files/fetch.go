package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
)

// Bounds of what is got.
const (
	maxGot     = 4   // at once
	maxWaiting = 64  // that wait for their turn
	maxPast    = 128 // of which it is remembered what became of them
)

// A transfer that brought nothing is tried again after the first of these, doubling, so often.
const (
	againFirst = time.Second
	tries      = 4
)

// stallTime is how long a peer may send nothing.
const stallTime = 30 * time.Second

// Errors of what is got.
var (
	ErrBusy    = errors.New("too many files are being fetched")
	ErrRunning = errors.New("that file is being fetched already")
	ErrShort   = errors.New("the device closed the channel before all bytes had come")
	ErrLong    = errors.New("the device sent more bytes than were announced")
	ErrStalled = errors.New("the device sent nothing for too long")

	errCancelled = errors.New("cancelled")
	errEnded     = errors.New("files are not fetched any more")
)

// Wish is a file that an account is to get.
type Wish struct {
	Ref
	Account jami.ID `json:"account"` // of the node
	From    jami.ID `json:"from"`    // account that has it
	Name    string  `json:"name"`    // as people see it
	Size    int64   `json:"size"`    // bytes
	SHA3    string  `json:"sha3"`    // SHA3-512, 128 hex digits
}

// check refuses what cannot be fetched. limit is in bytes.
func (w *Wish) check(limit int64) error {
	if err := errors.Join(w.Check(), CheckName(w.Name)); err != nil {
		return err
	}
	switch {
	case len(w.SHA3) != 128 || strings.Trim(w.SHA3, "0123456789abcdef") != "":
		return fmt.Errorf("%w: a SHA3-512 is 128 hex digits", ErrName)
	case w.Size < 0:
		return fmt.Errorf("%w: %d bytes", ErrName, w.Size)
	case w.Size > limit:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, w.Size, limit)
	}
	return nil
}

// Opener opens channels to who has a file.
type Opener interface {
	// Open opens a channel to a device of an account. Its name is made of the long id of the
	// node's own device. The error says that no device accepts it now.
	Open(ctx context.Context, account, of jami.ID, name func(own jami.LongID) string) (channel.Channel, error)
}

// Fetcher gets files. It is safe for concurrent use.
type Fetcher struct {
	folder *Folder
	opener Opener
	limit  int64
	tell   func(Progress) // may not wait
	log    *zap.Logger
	slots  chan struct{}
	again  time.Duration
	stall  time.Duration

	ctx  context.Context //nolint:containedctx // ends what is fetched, with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	jobs []*job // the oldest first
}

// job is a wish that is being fulfilled, or was.
type job struct {
	Wish
	ctx    context.Context //nolint:containedctx // of this fetch
	cancel context.CancelCauseFunc
	path   string // below "in"

	p Progress // under Fetcher.mu
}

// NewFetcher returns a fetcher, which is told on of what goes on. limit bounds a file, in bytes. It
// works until Close.
func NewFetcher(folder *Folder, opener Opener, limit int64, tell func(Progress), log *zap.Logger) *Fetcher {
	f := &Fetcher{folder: folder, opener: opener, limit: min(limit, MaxStart), tell: tell, log: log, slots: make(chan struct{}, maxGot), again: againFirst, stall: stallTime}
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

// Close ends all and waits. What there is of files stays: who asks again goes on there.
func (f *Fetcher) Close() {
	f.mu.Lock()
	f.stop() // nothing begins after this
	f.mu.Unlock()
	f.wg.Wait()
}

// Start begins to get a file, and returns how that is called. It goes on where the process ends before it is
// there, by [Fetcher.Resume].
func (f *Fetcher) Start(w Wish) (string, error) {
	id := newID()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.startLocked(id, w); err != nil {
		return "", err
	}
	if err := f.saveLocked(); err != nil { // it is fetched, and not again after a restart
		f.log.Warn("what is fetched is not noted", zap.Error(err))
	}
	return id, nil
}

func (f *Fetcher) startLocked(id string, w Wish) error {
	if err := w.check(f.limit); err != nil {
		return err
	}
	if f.ctx.Err() != nil {
		return errEnded
	}
	open := 0
	for _, j := range f.jobs {
		switch {
		case j.p.State.Final():
		case j.Account == w.Account && j.Ref == w.Ref:
			return ErrRunning
		default:
			open++
		}
	}
	if open >= maxGot+maxWaiting {
		return ErrBusy
	}
	if i := slices.IndexFunc(f.jobs, func(j *job) bool { return j.p.State.Final() }); i >= 0 && len(f.jobs)-open >= maxPast {
		f.jobs = slices.Delete(f.jobs, i, i+1)
	}
	j := &job{Wish: w, path: localName(w.Account, w.Ref, w.Name)}
	j.p = Progress{Ref: w.Ref, ID: id, Account: w.Account, Peer: w.From, Name: w.Name, Size: w.Size, State: Waiting}
	j.ctx, j.cancel = context.WithCancelCause(f.ctx)
	f.jobs = append(f.jobs, j)
	f.wg.Go(func() { f.run(j) })
	return nil
}

// kept is one as it is kept for the next process.
type kept struct {
	ID string `json:"id"`
	Wish
}

// saveLocked writes down what is being fetched.
func (f *Fetcher) saveLocked() error {
	all := []kept{}
	for _, j := range f.jobs {
		if !j.p.State.Final() {
			all = append(all, kept{j.p.ID, j.Wish})
		}
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = atomicfile.Write(filepath.Join(f.folder.dir, "wishes.json"), b, 0o600)
	}
	return diskError(err)
}

// Resume goes on with what was being fetched when the process before ended, under the same ids.
func (f *Fetcher) Resume() error {
	b, err := os.ReadFile(filepath.Join(f.folder.dir, "wishes.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var all []kept
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return fmt.Errorf("list of files that are fetched: %w; remove it to begin a new one", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range all {
		if err := f.startLocked(w.ID, w.Wish); err != nil {
			f.log.Warn("file is not fetched any more", zap.String("id", w.ID), zap.Error(err))
		}
	}
	return nil
}

// Cancel ends a fetch; false: there is none of that name that goes on. What there is of the file is removed.
func (f *Fetcher) Cancel(account jami.ID, id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, j := range f.jobs {
		if j.p.ID == id && j.Account == account && !j.p.State.Final() {
			j.cancel(errCancelled)
			return true
		}
	}
	return false
}

// List returns what an account gets, and what became of what it got, the oldest first.
func (f *Fetcher) List(account jami.ID) []Progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Progress
	for _, j := range f.jobs {
		if j.Account == account {
			out = append(out, j.p)
		}
	}
	return out
}

// change notes how far a fetch is, and tells it.
func (f *Fetcher) change(j *job, fn func(p *Progress)) {
	f.mu.Lock()
	fn(&j.p)
	p := j.p
	f.mu.Unlock()
	f.tell(p)
}

func (f *Fetcher) run(j *job) {
	defer j.cancel(nil)
	err := f.fulfil(j)
	switch {
	case errors.Is(context.Cause(j.ctx), errCancelled):
		err = f.folder.drop(j.path)
		f.change(j, func(p *Progress) { p.State, p.Err = Cancelled, err })
	case err == nil:
		f.change(j, func(p *Progress) { p.State, p.Bytes, p.Path = Done, j.Size, f.folder.path(j.path) })
	case f.ctx.Err() != nil:
		return // the next process goes on
	default:
		f.change(j, func(p *Progress) { p.State, p.Err = Failed, err })
	}
	f.mu.Lock()
	if f.ctx.Err() == nil || err == nil {
		if err := f.saveLocked(); err != nil {
			f.log.Warn("what is fetched is not noted", zap.Error(err))
		}
	}
	f.mu.Unlock()
	f.log.Info("file fetched", zap.Stringer("account", j.Account), zap.Stringer("from", j.From), zap.String("id", j.p.ID), zap.String("state", string(j.p.State)),
		zap.Int64("bytes", j.Size), zap.Error(err))
}

// fulfil tries until the file is there or there is no hope.
func (f *Fetcher) fulfil(j *job) error {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-j.ctx.Done():
		return j.ctx.Err()
	}
	if f.folder.got(j.ctx, j.path, j.Size, j.SHA3) {
		return nil
	}
	wait, anew := f.again, false
	for try := 1; ; try++ {
		came, resumed, err := f.once(j)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrHash) && resumed && !anew:
			// What was there before was of another file, maybe: from the beginning, once.
			anew, try = true, 0
			continue
		case j.ctx.Err() != nil, errors.Is(err, ErrHash), errors.Is(err, ErrLong), errors.Is(err, ErrDisk):
			return err
		case came > 0:
			wait, try = f.again, 1
		case try >= tries:
			return err
		}
		f.log.Debug("file is tried again", zap.String("id", j.p.ID), zap.Int64("bytes", came), zap.Error(err))
		f.change(j, func(p *Progress) { p.State = Waiting })
		select {
		case <-j.ctx.Done():
			return j.ctx.Err()
		case <-time.After(wait):
			wait *= 2
		}
	}
}

// once opens a channel and gets what is missing. came is how many bytes that brought; resumed:
// there were some before.
func (f *Fetcher) once(j *job) (came int64, resumed bool, err error) {
	file, have, err := f.folder.partial(j.path)
	if err != nil {
		return 0, false, err
	}
	defer func() {
		err = errors.Join(err, diskError(file.Close()))
		if errors.Is(err, ErrDisk) || errors.Is(err, ErrHash) || errors.Is(err, ErrLong) {
			err = errors.Join(err, f.folder.drop(j.path)) // it is of no use, and in the way
		}
	}()
	if have > j.Size {
		if have, err = 0, file.Truncate(0); err == nil {
			_, err = file.Seek(0, io.SeekStart)
		}
		if err != nil {
			return 0, false, diskError(err)
		}
	}
	if have < j.Size {
		q := Request{Ref: j.Ref, Ext: extOf(j.Name), Start: have}
		c, err := f.opener.Open(j.ctx, j.Account, j.From, func(own jami.LongID) string {
			q.Device = own
			return q.Name()
		})
		if err != nil {
			return 0, have > 0, err
		}
		f.change(j, func(p *Progress) { p.State, p.Device, p.Bytes = Running, c.Peer().DeviceLong, have })
		came, err = f.receive(j, c, file, have)
		if err := errors.Join(err, c.Close()); err != nil {
			return came, have > 0, err
		}
	}
	sum, err := hash(j.ctx, file)
	if err != nil {
		return came, have > 0, err
	}
	if sum != j.SHA3 {
		return came, have > 0, ErrHash
	}
	return came, have > 0, f.folder.complete(j.path, file)
}

// receive writes what comes to the end of a file, of which there are have bytes.
func (f *Fetcher) receive(j *job, c channel.Channel, file *os.File, have int64) (came int64, err error) {
	var stalled sync.Once
	var why error
	end := func(err error) func() {
		return func() {
			stalled.Do(func() {
				why = err
				c.Close() //nolint:errcheck // it wakes the reader
			})
		}
	}
	watch := time.AfterFunc(f.stall, end(ErrStalled))
	defer watch.Stop()
	defer context.AfterFunc(j.ctx, end(context.Canceled))()
	told := time.Now()
	for have+came < j.Size {
		b, err := c.ReadMessage()
		if err != nil {
			stalled.Do(func() { why = ErrShort })
			return came, why
		}
		watch.Reset(f.stall)
		if int64(len(b)) > j.Size-have-came {
			return came, ErrLong
		}
		n, err := f.folder.write(file, b)
		came += int64(n)
		if err != nil {
			return came, diskError(err)
		}
		if now := time.Now(); now.Sub(told) >= progressEvery {
			told = now
			f.change(j, func(p *Progress) { p.Bytes = have + came })
		}
	}
	return came, nil
}
