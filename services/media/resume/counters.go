// Package resume keeps what a leg needs to outlive its process: a small file a
// leg, written when something is negotiated, and a table of counters in mapped
// memory, written with each packet. Nothing is synced to the disk: the state is
// for the next process on the same boot of the same machine.
package resume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Slots is how many legs the table holds; one worker serves fewer.
const Slots = 16384

// Stale is how old the table's last sign of life may be. Callers have hung up
// by then.
const Stale = 60 * time.Second

const (
	version  = 3
	fileSize = (Slots + 1) * int(unsafe.Sizeof(Slot{}))
)

// Slot holds the counters of one leg: one cache line.
//
//	 0  Sent       48-bit SRTP index (or plain sequence) of the last packet sent
//	 8  Timestamp  its RTP timestamp
//	16  SentAt     when, unix microseconds
//	24  Received   highest index received
//	32  Source     SSRC of the far end
//	40  RTCP       last SRTCP index sent
//	48  Owner      leg's random tag; 0: free
type Slot struct {
	Sent, Timestamp, SentAt, Received, Source, RTCP, Owner atomic.Uint64
	_                                                      uint64
}

// header is the first line of the file.
type header struct {
	version, alive atomic.Uint64 // alive: unix microseconds
	boot           [32]byte
	_              [16]byte
}

// Table is the mapped file. Taking and freeing slots is safe for concurrent use.
type Table struct {
	mem   []byte
	head  *header
	slots []Slot

	mu   sync.Mutex
	free []int
}

// ErrFull says that no slot is left.
var ErrFull = errors.New("resume: no slot left for another leg")

// OpenTable maps the file at path, made when it is not there. fresh is true when
// what it held is of no use: another boot, another format, or too old.
func OpenTable(path string, now time.Time) (t *Table, fresh bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("leg counters: %w", err)
	}
	defer f.Close()
	// The blocks are taken now: a hole would end the process when the disk is
	// full at the first write to it.
	if err := allocate(f); err != nil {
		return nil, false, fmt.Errorf("leg counters %s: %w", path, err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, fileSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, false, fmt.Errorf("leg counters %s: %w", path, err)
	}
	t = tableOf(mem)
	boot := bootID()
	alive := time.UnixMicro(int64(t.head.alive.Load()))
	if t.head.version.Load() != version || t.head.boot != boot || now.Sub(alive) > Stale || alive.After(now.Add(Stale)) {
		fresh = true
		clear(mem)
		t.head.boot = boot
		t.head.version.Store(version)
	}
	t.Alive(now)
	return t, fresh, nil
}

// Memory returns a table that does not outlive the process, for when the disk is
// full.
func Memory() *Table { return tableOf(make([]byte, fileSize)) }

func tableOf(mem []byte) *Table {
	base := unsafe.Pointer(&mem[0])
	t := &Table{mem: mem, head: (*header)(base), slots: unsafe.Slice((*Slot)(base), Slots+1)[1:]}
	for i := Slots - 1; i >= 0; i-- {
		t.free = append(t.free, i)
	}
	return t
}

func allocate(f *os.File) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, int64(fileSize))
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	st, err := f.Stat()
	if err != nil || st.Size() >= int64(fileSize) {
		return err
	}
	_, err = f.Write(make([]byte, fileSize))
	return err
}

func bootID() (id [32]byte) {
	if b, err := os.ReadFile(filepath.Join("/proc/sys/kernel/random", "boot_id")); err == nil {
		copy(id[:], strings.ReplaceAll(strings.TrimSpace(string(b)), "-", ""))
	}
	return id
}

// Alive notes that the process lives; it is called about ten times a second.
func (t *Table) Alive(now time.Time) { t.head.alive.Store(uint64(now.UnixMicro())) }

// Take takes a free slot, cleared.
func (t *Table) Take(owner uint64) (*Slot, int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.free) == 0 {
		return nil, 0, ErrFull
	}
	i := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	s := &t.slots[i]
	t.wipe(s)
	s.Owner.Store(owner)
	return s, i, nil
}

// Claim takes the slot that a leg had before; false when it is not its any more.
func (t *Table) Claim(i int, owner uint64) (*Slot, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i < 0 || i >= Slots || owner == 0 || t.slots[i].Owner.Load() != owner {
		return nil, false
	}
	for k, f := range t.free {
		if f == i {
			t.free = append(t.free[:k], t.free[k+1:]...)
			return &t.slots[i], true
		}
	}
	return nil, false
}

// Free gives a slot back. The caller writes to it no more.
func (t *Table) Free(i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wipe(&t.slots[i])
	t.free = append(t.free, i)
}

func (t *Table) wipe(s *Slot) {
	for _, v := range []*atomic.Uint64{&s.Owner, &s.Sent, &s.Timestamp, &s.SentAt, &s.Received, &s.Source, &s.RTCP} {
		v.Store(0)
	}
}
