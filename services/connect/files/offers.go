package files

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/parley-jami/parley/internal/atomicfile"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/services/connect/channel"
)

// Bounds of what is offered.
const (
	maxOffers  = 4096
	maxMembers = 256 // who may have one file
	maxHashing = 2   // files that are read at once, to be offered
)

// Errors of offers.
var (
	ErrMany    = errors.New("too many files are offered")
	ErrOffered = errors.New("that file of the conversation is offered already")
	ErrRefused = errors.New("the file is not offered to this account")
	ErrChanged = errors.New("the file is not the one that was offered: it has changed")
)

// May says whether a device may have a file of a conversation, and what that says of it: name,
// SHA3-512 and size in bytes. It answers soon.
type May func(account jami.ID, peer channel.Peer, r Ref) (name, sha3 string, size int64, err error)

// Offer is a file that accounts may have.
type Offer struct {
	Ref
	Account  jami.ID   `json:"account"` // of the node
	Name     string    `json:"name"`    // as people see it
	Path     string    `json:"path"`    // below "out"
	Size     int64     `json:"size"`    // bytes
	SHA3     string    `json:"sha3"`    // SHA3-512, 128 hex digits
	Modified time.Time `json:"modified"`
	To       []jami.ID `json:"to"` // accounts
	// Members: the conversation says who may have it. Until it has announced the file it is known by its number
	// alone.
	Members bool `json:"members,omitempty"`
}

// check refuses what cannot be offered.
func (x *Offer) check() error {
	if x.Members && x.Conversation == "" && x.Commit == "" {
		if !isNumber(x.TID) {
			return fmt.Errorf("%w: number %.30q", ErrName, x.TID)
		}
		return nil
	}
	return x.Check()
}

type offerKey struct {
	account jami.ID
	ref     Ref
}

// Offers are the files that are offered: a list that outlives the process. It is safe for
// concurrent use.
type Offers struct {
	folder *Folder
	file   string
	limit  int64 // bytes of a file
	slots  chan struct{}

	mu sync.Mutex
	by map[offerKey]*Offer
}

// OpenOffers reads the list of what is offered, beside the folders. limit bounds a file, in
// bytes.
func OpenOffers(folder *Folder, limit int64) (*Offers, error) {
	o := &Offers{folder: folder, file: filepath.Join(folder.dir, "offers.json"), limit: limit, slots: make(chan struct{}, maxHashing), by: map[offerKey]*Offer{}}
	b, err := os.ReadFile(o.file)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	var all []*Offer
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("list of offered files: %w; remove it to begin a new one", err)
	}
	for _, x := range all {
		if x == nil || x.check() != nil {
			return nil, fmt.Errorf("list of offered files: %s is damaged; remove it to begin a new one", o.file)
		}
		o.by[offerKey{x.Account, x.Ref}] = x
	}
	return o, nil
}

// Add offers a file; x has its path, its name and whom it is offered to. Without a reference it
// gets one that nobody else has. What there is to know of the file is filled in: it is
// read once, 1 GiB in a few seconds.
func (o *Offers) Add(ctx context.Context, x Offer) (*Offer, error) {
	if x.Name == "" {
		x.Name = filepath.Base(x.Path)
	}
	if x.Ref == (Ref{}) {
		if x.Ref = newRef(); x.Members {
			x.Ref = Ref{TID: x.Ref.TID}
		}
	}
	if err := errors.Join(x.check(), CheckName(x.Name)); err != nil {
		return nil, err
	}
	if len(x.To) == 0 && !x.Members || len(x.To) > maxMembers {
		return nil, fmt.Errorf("%w: a file is offered to 1 to %d accounts", ErrName, maxMembers)
	}
	select {
	case o.slots <- struct{}{}:
		defer func() { <-o.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	file, info, err := o.folder.give(x.Path, o.limit)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if x.SHA3, err = hash(ctx, file); err != nil {
		return nil, err
	}
	x.Size, x.Modified = info.Size(), info.ModTime()
	if now, err := file.Stat(); err != nil || !x.same(now) {
		return nil, ErrChanged
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	k := offerKey{x.Account, x.Ref}
	switch {
	case o.by[k] != nil:
		return nil, ErrOffered
	case len(o.by) >= maxOffers:
		return nil, ErrMany
	}
	o.by[k] = &x
	if err := o.saveLocked(); err != nil {
		delete(o.by, k)
		return nil, err
	}
	return &x, nil
}

// same reports whether a file is the one that was read.
func (x *Offer) same(info fs.FileInfo) bool {
	return info.Size() == x.Size && info.ModTime().Equal(x.Modified)
}

// Remove no longer offers a file, which stays where it is; false: it was not offered.
func (o *Offers) Remove(account jami.ID, r Ref) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := offerKey{account, r}
	x := o.by[k]
	if x == nil {
		return false, nil
	}
	delete(o.by, k)
	if err := o.saveLocked(); err != nil {
		o.by[k] = x
		return true, err
	}
	return true, nil
}

// List returns what an account offers.
func (o *Offers) List(account jami.ID) []*Offer {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*Offer
	for k, x := range o.by {
		if k.account == account {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *Offer) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Ref.String(), b.Ref.String()))
	})
	return out
}

// Settle gives a file that members may have the reference by which it was announced; nil: it was not,
// and is offered to accounts alone.
func (o *Offers) Settle(x *Offer, r *Ref) (*Offer, error) {
	next := *x
	if r != nil {
		next.Ref = *r
	} else {
		next.Ref, next.Members = newRef(), false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	was, is := offerKey{x.Account, x.Ref}, offerKey{x.Account, next.Ref}
	if o.by[is] != nil {
		return nil, ErrOffered
	}
	delete(o.by, was)
	o.by[is] = &next
	if err := o.saveLocked(); err != nil {
		delete(o.by, is)
		o.by[was] = x
		return nil, err
	}
	return &next, nil
}

// find returns an offer; one that is not announced yet, as far as is known here, by its number.
func (o *Offers) find(account jami.ID, r Ref) *Offer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if x := o.by[offerKey{account, r}]; x != nil {
		return x
	}
	return o.by[offerKey{account, Ref{TID: r.TID}}]
}

// open opens a file for a device to which it is offered.
func (o *Offers) open(account jami.ID, to channel.Peer, r Ref, may May) (*Offer, *os.File, error) {
	x := o.find(account, r)
	if x == nil && may == nil || x != nil && !x.Members && !slices.Contains(x.To, to.Account) { // who may not have it learns nothing about it
		return nil, nil, ErrRefused
	}
	if x == nil || x.Members {
		name, sum, size, err := may(account, to, r)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("%w: %w", ErrRefused, err)
		case x == nil: // it may be here, since the account got it
			file, err := o.folder.had(localName(account, r, name), size)
			return &Offer{Ref: r, Account: account, Name: name, Size: size, SHA3: sum}, file, err
		case sum != x.SHA3:
			return nil, nil, ErrChanged
		}
	}
	file, info, err := o.folder.give(x.Path, o.limit)
	if err != nil {
		return nil, nil, err
	}
	if !x.same(info) {
		return nil, nil, errors.Join(ErrChanged, file.Close())
	}
	out := *x
	out.Ref = r
	return &out, file, nil
}

func (o *Offers) saveLocked() error {
	all := make([]*Offer, 0, len(o.by))
	for _, x := range o.by {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b *Offer) int { return cmp.Compare(a.Ref.String(), b.Ref.String()) })
	b, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = atomicfile.Write(o.file, b, 0o600)
	}
	return diskError(err)
}

// newRef makes a reference that no conversation has.
func newRef() Ref {
	var b [48]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return Ref{hex.EncodeToString(b[:20]), hex.EncodeToString(b[20:40]), strconv.FormatUint(binary.BigEndian.Uint64(b[40:])%(1<<53)+1, 10)}
}
