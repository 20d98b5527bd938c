package icetcp

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/parley-jami/parley/services/connect/device/request"
)

// fakeRelay is a listener that takes connections of those who were let in, and resets others.
type fakeRelay struct {
	ln net.Listener
	mu sync.Mutex
	in map[netip.Addr]bool
}

// wrapped is no connection of the kernel's.
type wrapped struct{ net.Conn }

func (r *fakeRelay) Addr() netip.AddrPort { return r.ln.Addr().(*net.TCPAddr).AddrPort() }

func (r *fakeRelay) Permit(ips []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ip := range ips {
		r.in[ip] = true
	}
	return nil
}

func (r *fakeRelay) Serve(take func(net.Conn)) {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		ok := r.in[c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()]
		r.mu.Unlock()
		if !ok {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
			continue
		}
		take(wrapped{c})
	}
}

// Devices that reach each other by the relay alone are connected by way of it, on either side.
func TestByOurRelay(t *testing.T) {
	for _, c := range []struct {
		name   string
		asked  bool // who is asked has the relay
		direct bool // there is a way without it too
	}{{"of who is asked", true, false}, {"of who asks", false, false}, {"a direct way goes before", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			r := &fakeRelay{ln: ln, in: map[netip.Addr]bool{}}
			la, lb := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
			with := lb
			if c.asked {
				with = la
			}
			served := make(chan struct{})
			go func() { defer close(served); with.ServeRelay(r) }()
			for named := false; !named; time.Sleep(time.Millisecond) {
				with.mu.Lock()
				named = with.relay != nil
				with.mu.Unlock()
			}
			asked, asks := agent(t, la, true), agent(t, lb, false)
			da, db := asked.Local(), asks.Local()
			named := da
			if !c.asked {
				named = db
			}
			last := named.Candidates[len(named.Candidates)-1]
			if last.Type != request.Relay || last.TCPType != request.Passive || last.Addr != r.Addr() || last.Foundation != "R7f000001" || last.Priority != 65535<<8|255 {
				t.Errorf("named as %+v", last)
			}
			if _, err := named.Text(); err != nil {
				t.Error(err)
			}
			// Of the others there are the active ones alone: nobody connects to their ports.
			hide := func(d request.Description) request.Description {
				d.Candidates = slices.DeleteFunc(slices.Clone(d.Candidates), func(x request.Candidate) bool { return x.Type == request.Host && x.TCPType == request.Passive })
				return d
			}
			if !c.direct {
				da, db = hide(da), hide(db)
			}
			began := time.Now()
			x, y := connect(t, asked, asks, da, db)
			byRelay := x.LocalAddr().String() == r.Addr().String() || y.LocalAddr().String() == r.Addr().String()
			if byRelay == c.direct {
				t.Errorf("by the relay: %v", byRelay)
			}
			if took := time.Since(began); byRelay && took < holdTime {
				t.Errorf("nominated after %v", took)
			}
			exchange(t, x, y)
			ln.Close()
			<-served
			if with.relay != nil {
				t.Error("a relay that is gone is still named")
			}
		})
	}
}
