package lasting

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/parley-jami/parley/services/connect/device/tls13"
)

// Sizes in bytes. Of the memory only what is written to takes room.
const (
	infoSize    = 32 << 10
	outSize     = 68 << 10  // a message of a channel, sealed and framed
	inSize      = 256 << 10 // of which more than one message is acted upon at a time
	noteSize    = 8 << 10   // a SIP message, which has less than 8000
	maxNotes    = 32
	maxChannels = 1 << 16

	size = int(unsafe.Sizeof(memory{}))
)

// layout is the version; another one is not gone on with. The size says of what platform it is, too.
const layout = 1

// memory is mapped. All numbers are as the machine has them.
type memory struct {
	head header
	note [maxNotes]noteHead
	// channels are those that are open, by number.
	channels [maxChannels]ChannelState
	info     [infoSize]byte
	out      [outSize]byte
	notes    [maxNotes][noteSize]byte
	in       [inSize]byte
}

type header struct {
	magic         [8]byte
	layout, size  uint32
	id            uint64
	infoLen       uint32
	suite         uint16
	_             uint16
	read, written uint64 // positions of the kernel at the stream's beginning
	due           atomic.Uint32
	tries         atomic.Uint32 // processes that went on with it, one soon after the other
	in            turn[inState]
	out           turn[outState]
	complete      atomic.Uint32 // 1: all of the above is there
	_             uint32
}

// inState is how far what was read was acted upon.
type inState struct {
	pos    uint64 // of the stream
	seq    uint64 // of the record that begins there
	at     uint32 // where it lies in in
	left   uint32 // bytes of a frame that follow there
	skip   uint32 // bytes of the record's plaintext that were acted upon
	lost   uint32 // 1: it lies there no more
	secret [tls13.MaxSecret]byte
}

// outState is the last message that was written, or is being written.
type outState struct {
	pos    uint64
	seq    uint64 // of the next record
	n      uint32
	ended  uint32 // 1: it is the last
	secret [tls13.MaxSecret]byte
}

// noteHead is of a message that is being acted upon.
type noteHead struct {
	order atomic.Uint64 // 0: free
	ch    uint32
	n     uint32
}

// turn is a value that changes at once.
type turn[T any] struct {
	which atomic.Uint32
	_     uint32
	value [2]T
}

func (t *turn[T]) get() T { return t.value[t.which.Load()&1] }

func (t *turn[T]) set(v T) {
	next := t.which.Load()&1 ^ 1
	t.value[next] = v
	t.which.Store(next)
}

var magic = [8]byte{'p', 'a', 'r', 'l', 'e', 'y', 'd', 'c'}

// Errors of memories.
var (
	errForeign = errors.New("the memory of the connection is not of this program's version")
	errDamaged = errors.New("the memory of the connection is damaged")
	errTries   = errors.New("process after process has died that went on with the connection")
)

// seals keep a memory's size as it is: what is mapped can't vanish.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// mapping is a memory that is mapped.
type mapping struct {
	*memory
	raw  []byte
	file *os.File // nil: of this process alone
}

// newMapping returns an empty memory; shared: others may map its file.
func newMapping(shared bool) (*mapping, error) {
	if !shared {
		return mapped(-1, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, nil)
	}
	fd, err := unix.MemfdCreate("parley-device", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "parley-device")
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return mapped(fd, unix.MAP_SHARED, f)
}

// openMapping maps the memory of another process, if it is one. It closes the file on an error.
func openMapping(f *os.File) (*mapping, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var m *mapping
	var merr error
	err = rc.Control(func(fd uintptr) {
		st, err := f.Stat()
		got, serr := unix.FcntlInt(fd, unix.F_GET_SEALS, 0)
		if err != nil || serr != nil || st.Size() != int64(size) || got&seals != seals {
			merr = errors.Join(errForeign, err, serr)
			return
		}
		m, merr = mapped(int(fd), unix.MAP_SHARED, f)
	})
	if err = errors.Join(err, merr); err != nil {
		if m == nil {
			f.Close()
		}
		return nil, err
	}
	if err := m.check(); err != nil {
		m.unmap()
		return nil, err
	}
	return m, nil
}

func mapped(fd, flags int, f *os.File) (*mapping, error) {
	raw, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, fmt.Errorf("memory of a connection: %w", err)
	}
	_ = unix.Madvise(raw, unix.MADV_DONTDUMP) // keys are in no core file, where the kernel can help it
	return &mapping{memory: (*memory)(unsafe.Pointer(&raw[0])), raw: raw, file: f}, nil
}

// unmap gives the memory back. Nobody may use it any more.
func (m *mapping) unmap() {
	if m.file != nil {
		m.file.Close()
	}
	unix.Munmap(m.raw) //nolint:errcheck // it was mapped
}

// check finds out whether a memory is one that this program can go on with. What it has let pass leads to no
// access outside of it.
func (m *memory) check() error {
	h := &m.head
	if h.magic != magic || h.layout != layout || h.size != uint32(size) || tls13.SecretSize(h.suite) == 0 {
		return errForeign
	}
	in, out := h.in.get(), h.out.get()
	switch {
	case h.complete.Load() != 1, h.infoLen > infoSize, h.id == 0:
		return fmt.Errorf("%w: it is not complete", errDamaged)
	case in.lost != 0:
		return fmt.Errorf("%w: a message was too long to be kept", errDamaged)
	case in.at > inSize, in.left > maxFrame, in.skip > tls13.MaxPlaintext:
		return fmt.Errorf("%w: what was read", errDamaged)
	case out.n > outSize, out.ended != 0:
		return fmt.Errorf("%w: what is to be written", errDamaged)
	}
	for i := range m.note {
		if n := &m.note[i]; n.n > noteSize || n.ch >= maxChannels {
			return fmt.Errorf("%w: a message", errDamaged)
		}
	}
	return nil
}
