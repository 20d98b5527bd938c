package proxy

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/parley-jami/parley/internal/httpapi"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/overlay"
	"github.com/parley-jami/parley/services/dht/proxyjson"
	"github.com/parley-jami/parley/services/dht/push"
)

// Overlay is what is served; see [overlay.Overlay].
type Overlay interface {
	Put(ctx context.Context, v overlay.Value, permanent bool) (overlay.Stored, error)
	Restore(vs []overlay.Value) error
	Cancel(ctx context.Context, key overlay.Key, id uint64) bool
	overlay.Getter
	Listen(ctx context.Context, key overlay.Key, fn func(overlay.Change)) (now []overlay.Value, stop func(), err error)
	Node() overlay.Node
}

// Pusher wakes clients up; see [push.Pusher].
type Pusher interface {
	Check(push.Target) error
	Send(push.Message) error
}

// Options of a proxy.
type Options struct {
	Overlay Overlay
	Push    Pusher
	// File keeps subscriptions and permanent values.
	File string
	// Alone: the node was told of no other, so that it is a network by itself.
	Alone bool
	// VAPID is what browsers subscribe with; "" is none.
	VAPID   string
	Log     *zap.Logger
	Metrics *httpapi.Metrics
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// How long what a client asks for is kept, and when it is told of the end (§5.1).
const (
	keepTime   = 24 * time.Hour
	noticeTime = 2 * time.Hour
)

// What one address may ask, a second and at once. A client with many contacts begins with
// some requests for each.
const (
	readsPerSec = 50
	readsBurst  = 1000
	putsPerSec  = 10
	putsBurst   = 500
	infosPerSec = 10
	infosBurst  = 200
	pingsPerSec = 0.05
	pingsBurst  = 5
)

// What one address may have, and all together. The node's own host has the share of all:
// a reverse proxy or a test comes from there.
const (
	listensPerAddress = 512
	maxListens        = 4096
	subsPerAddress    = 1024
	subsPerEndpoint   = 512
	maxSubs           = 8192
	putsPerAddress    = 256
	maxPuts           = 2048 // half of what the overlay lets this node put
	maxPutBytes       = 16 << 20
	maxKeys           = 2048 // that are watched
	gets              = 128  // at once of one address, and 8 times that in all
	atOnce            = 512  // requests that are worked on
)

// Times of requests.
const (
	getTime    = 20 * time.Second
	putTime    = 15 * time.Second
	readerTime = 10 * time.Second // that a reader has to take a value
)

// Proxy serves requests. It is safe for concurrent use.
type Proxy struct {
	*httpapi.API
	o       Options
	mux     *http.ServeMux
	feeds   *feeds
	listens *limits.Places
	gets    *limits.Places
	life    context.Context // ends what outlives its request
	end     context.CancelFunc
	wg      sync.WaitGroup
	wake    chan struct{} // something is to be done earlier
	// writeTime is readerTime, but in tests.
	writeTime time.Duration
	asked     atomic.Int64 // requests

	mu     sync.Mutex
	subs   map[subKey]*sub
	puts   map[putKey]*kept
	bytes  int // of puts
	tokens map[string]int
	shares struct{ subs, puts *limits.Places }
	dirty  bool // the file is older than this
	saved  time.Time
	rate   rate
}

// New reads the file and returns a proxy that serves, and does the rest while Run runs. A
// file that is damaged is set aside, with a word in the log.
func New(o Options) (*Proxy, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &Proxy{o: o, mux: http.NewServeMux(), listens: limits.NewPlaces(listensPerAddress, maxListens), gets: limits.NewPlaces(gets, 8*gets),
		wake: make(chan struct{}, 1), writeTime: readerTime, subs: map[subKey]*sub{}, puts: map[putKey]*kept{}, tokens: map[string]int{},
		API: httpapi.API{Log: o.Log, Metrics: o.Metrics, LimitedStatus: http.StatusTooManyRequests, Refusal: refusal}.Bounded(atOnce)}
	p.shares.subs, p.shares.puts = limits.NewPlaces(subsPerAddress, maxSubs), limits.NewPlaces(putsPerAddress, maxPuts)
	p.life, p.end = context.WithCancel(context.Background())
	p.feeds = newFeeds(p.life, o.Overlay, o.Log, maxKeys)
	if err := p.load(); err != nil {
		return nil, err
	}
	reads, puts := limits.NewAddresses(readsPerSec, readsBurst), limits.NewAddresses(putsPerSec, putsBurst)
	infos, pings := limits.NewAddresses(infosPerSec, infosBurst), limits.NewAddresses(pingsPerSec, pingsBurst)
	info := p.Handle(opNode, infos, p.info)
	get := p.Stream(opGet, reads, p.gets, p.get)
	listen := p.Stream(opListen, reads, p.listens, p.listen)
	put := p.Handle(opPut, puts, p.put)
	for pattern, h := range map[string]http.Handler{
		"GET /{$}": info, "GET /node/info": info, "GET /node/stats": p.Handle(opNode, infos, p.stats),
		"GET /{key}": get, "GET /key/{key}": get,
		"GET /key/{key}/listen": listen, "LISTEN /{key}": listen, "LISTEN /key/{key}": listen,
		"POST /{key}": put, "POST /key/{key}": put,
		"SUBSCRIBE /{key}": p.Stream(opSubscribe, reads, p.gets, p.subscribe), "SUBSCRIBE /key/{key}": p.Stream(opSubscribe, reads, p.gets, p.subscribe),
		"UNSUBSCRIBE /{key}": p.Handle(opSubscribe, reads, p.unsubscribe), "UNSUBSCRIBE /key/{key}": p.Handle(opSubscribe, reads, p.unsubscribe),
		"POST /node/pingPush": p.Handle(opPing, pings, p.ping),
		"OPTIONS /":           http.HandlerFunc(options), "GET /key/{key}/options": http.HandlerFunc(options),
		"/": p.Handle(opNode, infos, p.unknown),
	} {
		p.mux.Handle(pattern, h)
	}
	return p, nil
}

// ServeHTTP answers a request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked.Add(1)
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("X-Content-Type-Options", "nosniff")
	p.mux.ServeHTTP(w, r)
}

// options answers what a browser asks before a request of another origin.
func options(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Access-Control-Allow-Methods", "OPTIONS, GET, POST, LISTEN, SUBSCRIBE, UNSUBSCRIBE")
	h.Set("Access-Control-Allow-Headers", "content-type")
	h.Set("Access-Control-Max-Age", "86400")
}

func (p *Proxy) unknown(r *http.Request) httpapi.Answer {
	return p.Refuse(http.StatusNotImplemented, httpapi.Invalid, "there is nothing of that name and method here")
}

// refusal is the body of an error. What cannot be parsed has a name of its own in
// OpenDHT, with a colon (§5.1).
func refusal(result, words string) any {
	if result == resultJSON {
		return map[string]string{"err:": "Incorrect JSON", "err": words}
	}
	return map[string]string{"err": words}
}

// End lets go of the listeners; those that come later are refused.
func (p *Proxy) End() { p.end() }

// Run keeps what is kept and tells what is to be told, until ctx ends.
func (p *Proxy) Run(ctx context.Context) error {
	p.restore()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			p.end()
			p.leaveAll()
			p.wg.Wait()
			p.feeds.wait()
			return p.save()
		case <-t.C:
		case <-p.wake:
		}
		t.Reset(p.tick(p.o.Now()))
	}
}

// poke has tick run soon.
func (p *Proxy) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// keyOf reads the key of a request.
func (p *Proxy) keyOf(r *http.Request) (overlay.Key, *httpapi.Answer) {
	id, err := proxyjson.ParseKey(r.PathValue("key"))
	if err == nil && id.IsZero() { // §1.2: error 203
		err = errors.New("the zero key is no place for values")
	}
	if err != nil {
		x := p.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
		return overlay.Key{}, &x
	}
	return overlay.Key(id), nil
}

// misread refuses a body.
func (p *Proxy) misread(err error) httpapi.Answer {
	switch {
	case errors.Is(err, jami.ErrTooLarge):
		return p.Refuse(http.StatusRequestEntityTooLarge, httpapi.Invalid, err.Error())
	case errors.Is(err, proxyjson.ErrJSON):
		return p.Refuse(http.StatusBadRequest, resultJSON, err.Error())
	}
	return p.Refuse(http.StatusBadRequest, httpapi.Invalid, err.Error())
}

// trace tells in the log, at its debug level, what was done for a client: never what is in a
// value, nor a push token.
func (p *Proxy) trace(words string, r *http.Request, key overlay.Key, about ...zap.Field) {
	if e := p.Log.Check(zap.DebugLevel, words); e != nil {
		e.Write(append(about, zap.Stringer("client", limits.ClientIP(r)), zap.Stringer("key", jami.ID(key)))...)
	}
}

func hexKey(k overlay.Key) string { return hex.EncodeToString(k[:]) }

// restored is the address of what a process before this one was asked for: nobody's.
var restored = netip.AddrFrom4([4]byte{127, 0, 0, 1})
