package relay

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/parley-jami/parley/internal/limits"
)

// Requests of a client with an allocation, a second and at once. Each costs some
// microseconds of HMAC; a browser makes a few a minute.
const (
	requestsPerSec = 50
	requestsBurst  = 200
)

// Quotas bound allocations.
type Quotas struct {
	User, Address, All int
	Lifetime           time.Duration // of one allocation, refreshed or not
}

// seat is one allocation, or a place for one that is being made.
type seat struct {
	// fixed after it runs
	user    string
	client  netip.AddrPort
	network string // between client and server: "udp" or "tcp"
	addr    net.Addr
	relay   net.Addr
	began   time.Time
	pipe    *pipe
	end     *time.Timer

	requests *rate.Limiter
}

// endpoints are the two ends of a client's way to us.
type endpoints struct{ network, client, server string }

// endpointsOf tells TCP and UDP clients with the same port apart.
func endpointsOf(client, server net.Addr) endpoints {
	return endpoints{client.Network(), client.String(), server.String()}
}

// caller is where a request comes from, before it is known which listener has it.
type caller struct{ network, client string }

// book keeps who has which allocations. pion tells it in this order, for each
// allocation on the goroutine that reads its client: reserve, made, begin or failed,
// and at last end. It is safe for concurrent use.
type book struct {
	log    *zap.Logger
	m      *Metrics
	quotas Quotas
	now    func() time.Time

	mu        sync.Mutex
	closed    bool
	places    *limits.Places // has a lock of its own and calls nobody
	byUser    map[string]int
	reserved  map[caller][]*seat
	running   map[endpoints]*seat
	clients   map[netip.AddrPort]*seat // running ones over UDP
	streams   map[string]*seat         // running ones over TCP, by client
	pipes     map[string]*pipe         // of relays whose allocation does not run yet
	listeners map[string]*listenRelay
	alive     int           // running ones, and those whose end is not in the log yet
	empty     chan struct{} // closed when none is alive and closed is set
}

func newBook(q Quotas, log *zap.Logger, m *Metrics) *book {
	return &book{log: log, m: m, quotas: q, now: time.Now, places: limits.NewPlaces(q.Address, q.All), byUser: map[string]int{},
		reserved: map[caller][]*seat{}, running: map[endpoints]*seat{}, clients: map[netip.AddrPort]*seat{}, streams: map[string]*seat{},
		pipes: map[string]*pipe{}, listeners: map[string]*listenRelay{}, empty: make(chan struct{})}
}

// reserve takes a place for an allocation that is about to be made.
func (b *book) reserve(user string, client net.Addr) bool {
	at := addrPort(client)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		b.m.refused(refusedStop)
		return false
	case b.byUser[user] >= b.quotas.User:
		b.m.refused(refusedUser)
		return false
	case !b.places.Take(at.Addr()):
		b.m.refused(refusedAddress)
		return false
	}
	b.byUser[user]++
	k := caller{client.Network(), client.String()}
	b.reserved[k] = append(b.reserved[k], &seat{user: user, client: at, network: client.Network()})
	return true
}

// takeReservedLocked returns the oldest reservation of a caller, or nil.
func (b *book) takeReservedLocked(client net.Addr) *seat {
	k := caller{client.Network(), client.String()}
	list := b.reserved[k]
	if len(list) == 0 {
		return nil
	}
	if len(list) == 1 {
		delete(b.reserved, k)
	} else {
		b.reserved[k] = list[1:]
	}
	return list[0]
}

func (b *book) leaveLocked(s *seat) {
	b.places.Free(s.client.Addr())
	if b.byUser[s.user]--; b.byUser[s.user] <= 0 {
		delete(b.byUser, s.user)
	}
}

// failed gives the place back if one was reserved.
func (b *book) failed(client net.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.takeReservedLocked(client); s != nil {
		b.leaveLocked(s)
	}
}

// made notes the pipe of a relay, for begin.
func (b *book) made(relay net.Addr, p *pipe) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pipes[relay.Network()+relay.String()] = p
}

// listens notes the listener of a TCP relay, for connections to peers.
func (b *book) listens(relay net.Addr, l *listenRelay) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listeners[relay.String()] = l
}

func (b *book) listener(relay net.Addr) *listenRelay {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listeners[relay.String()]
}

// begin says that an allocation runs.
func (b *book) begin(client, server net.Addr, user string, relay net.Addr) {
	b.mu.Lock()
	s := b.takeReservedLocked(client)
	if s == nil { // pion asks for each allocation; a seat without a place is still ended
		s = &seat{user: user, client: addrPort(client), network: client.Network()}
		b.places.Take(s.client.Addr())
		b.byUser[user]++
	}
	name := relay.Network() + relay.String()
	s.addr, s.relay, s.began, s.pipe = client, relay, b.now(), b.pipes[name]
	s.requests = rate.NewLimiter(requestsPerSec, requestsBurst)
	delete(b.pipes, name)
	b.running[endpointsOf(client, server)] = s
	b.alive++
	if s.network == "udp" {
		b.clients[s.client] = s
	} else {
		b.streams[client.String()] = s
	}
	p := s.pipe
	s.end = time.AfterFunc(b.quotas.Lifetime, func() { p.close() }) // an error: it ended before
	shut := b.closed
	b.mu.Unlock()
	b.m.begun(s.network, relay.Network())
	b.log.Info("allocation begins", s.fields()...)
	if shut { // came while the server ended
		p.close()
	}
}

func (s *seat) fields() []zap.Field {
	return []zap.Field{zap.String("user", s.user), zap.Stringer("client", s.client), zap.String("transport", s.network),
		zap.Stringer("relay", s.relay), zap.String("relay_transport", s.relay.Network())}
}

// end says that an allocation is over.
func (b *book) end(client, server net.Addr) {
	b.mu.Lock()
	k := endpointsOf(client, server)
	s := b.running[k]
	if s == nil {
		b.mu.Unlock()
		return
	}
	delete(b.running, k)
	if b.clients[s.client] == s {
		delete(b.clients, s.client)
	}
	if b.streams[k.client] == s {
		delete(b.streams, k.client)
	}
	if s.relay.Network() == "tcp" {
		delete(b.listeners, s.relay.String())
	}
	b.leaveLocked(s)
	took := b.now().Sub(s.began)
	b.mu.Unlock()
	s.end.Stop()
	b.m.ended(s.network, s.relay.Network(), took)
	b.log.Info("allocation ends", append(s.fields(), zap.Duration("lasted", took),
		zap.Uint64("bytes_from_client", s.pipe.upBytes.Load()), zap.Uint64("bytes_to_client", s.pipe.downBytes.Load()),
		zap.Uint64("dropped", s.pipe.dropped.Load()), zap.Uint64("forbidden", s.pipe.forbidden.Load()))...)
	b.mu.Lock()
	b.alive--
	b.emptyLocked()
	b.mu.Unlock()
}

// client returns the running allocation of a UDP client, or nil.
func (b *book) client(at netip.AddrPort) *seat {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clients[at]
}

// stands reports whether a client has an allocation of the user's.
func (b *book) stands(client net.Addr, user string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.streams[client.String()]
	if client.Network() == "udp" {
		s = b.clients[addrPort(client)]
	}
	return s != nil && s.user == user
}

func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.running)
}

// shut refuses new allocations and ends those that run; empty is closed when the last
// one is over.
func (b *book) shut() int {
	b.mu.Lock()
	b.closed = true
	all := make([]*pipe, 0, len(b.running))
	for _, s := range b.running {
		all = append(all, s.pipe)
	}
	b.emptyLocked()
	b.mu.Unlock()
	for _, p := range all {
		p.close() // an error: it ended meanwhile
	}
	return len(all)
}

func (b *book) emptyLocked() {
	if b.closed && b.alive == 0 {
		select {
		case <-b.empty:
		default:
			close(b.empty)
		}
	}
}

// addrPort returns the address of a UDP or TCP socket.
func addrPort(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}
