package turnclient

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
)

const (
	// lookEvery is how often an allocation is looked at.
	lookEvery = 30 * time.Second
	// tries are those of a request that a server refuses for its nonce, which changes.
	tries = 3
)

// nobody is an address of documentation (RFC 5737): the permission for it, or its refusal,
// shows that an allocation is there.
var nobody = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}

// allocation is what relays of both kinds have.
type allocation struct {
	url   string
	cl    *turn.Client
	base  *way
	m     *Metrics
	tcp   bool
	every time.Duration

	wg     sync.WaitGroup
	mu     sync.Mutex
	opened bool
	over   bool
	lost   chan struct{} // closed after err is set
	err    error
	ends   sync.Once
	stop   chan struct{} // closed by Close
}

// Server is the URL of the server.
func (a *allocation) Server() string { return a.url }

// Lost is closed when the relay is of no use any more.
func (a *allocation) Lost() <-chan struct{} { return a.lost }

// Err says why; it is to be asked after Lost is closed.
func (a *allocation) Err() error { return a.err }

// open begins to look after an allocation that was made.
func (a *allocation) open() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.opened = !a.over; a.opened {
		a.m.opened(a.tcp)
		a.wg.Go(a.watch)
	}
}

func (a *allocation) lose(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	a.over, a.err = true, err
	if a.opened {
		a.m.closed(a.tcp)
		if !errors.Is(err, net.ErrClosed) {
			a.m.lost(a.tcp)
		}
	}
	close(a.lost)
}

// read takes what the server sends until the way to it ends. What cannot be understood is
// passed over: anybody may send to a UDP port.
func (a *allocation) read() {
	b := make([]byte, 1<<16)
	for {
		n, from, err := a.base.ReadFrom(b)
		if err != nil {
			a.lose(fmt.Errorf("the way to it ended: %w", err))
			return
		}
		if from.String() == a.base.far.String() {
			_, _ = a.cl.HandleInbound(b[:n], from) // junk is passed over: what is wrong with the relay shows when it is refreshed
		}
	}
}

// watch looks whether the allocation is there until it is not, or is closed.
func (a *allocation) watch() {
	t := time.NewTicker(a.every)
	defer t.Stop()
	for {
		select {
		case <-a.lost:
			return
		case <-a.stop:
			return
		case <-t.C:
		}
		if err := a.look(); err != nil {
			a.lose(err)
			return
		}
	}
}

// look asks the server something that it refuses without the allocation.
func (a *allocation) look() error {
	err := a.permit(nobody)
	var refused *stun.TurnError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.ErrorCodeAttr.Code {
	case stun.CodeUnauthorized, stun.CodeAllocMismatch, stun.CodeWrongCredentials:
		return fmt.Errorf("it has ended there: %w", err)
	}
	return nil // it refuses that address
}

// permit lets packets and connections of an address in.
func (a *allocation) permit(to net.Addr) (err error) {
	for range tries {
		var refused *stun.TurnError
		if err = a.cl.CreatePermission(to); err == nil || errors.As(err, &refused) || a.gone() {
			return err
		}
	}
	return err
}

func (a *allocation) gone() bool {
	select {
	case <-a.lost:
		return true
	case <-a.stop:
		return true
	default:
		return false
	}
}

// end ends the allocation at the server by end, without waiting for its answer, and then
// what runs here.
func (a *allocation) end(end func() error) {
	a.ends.Do(func() {
		close(a.stop)
		_ = end() // the server ends it by itself if this is lost
		a.lose(net.ErrClosed)
		a.cl.Close()
		_ = a.base.Close() // of the two ends of it, one is not there any more
	})
	a.wg.Wait()
}

// way is how packets go to the server and come from it.
type way struct {
	net.PacketConn
	far net.Addr
}

// RemoteAddr is the server: pion takes from nobody else what a relay sends.
func (w *way) RemoteAddr() net.Addr { return w.far }

func addrPortOf(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
