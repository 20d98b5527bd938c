// Package gate says who may reach the node, for one account: it holds package trust's
// rules together with what identity knows now, the devices that the account revoked and the
// contacts that it banned. A service opens one for its account, asks it at each check
// of a certificate, and has it watch the connections that it keeps.
//
// # When identity can't be asked
//
// [Open] waits for identity: a service that does not know yet whom to refuse lets nobody in.
// A gate that has lost the bus keeps what it knows, since who was refused stays so and
// nobody can revoke or ban over a bus that is away; closing then would end every
// call of a node whose bus is started again. When the bus is back all is read
// anew. What happened meanwhile takes effect then.
//
// # What can't be missed
//
// Identity tells of each revocation and each change of a contact when it is on disk. A
// gate subscribes before it reads, so that nothing falls between; the changes have
// numbers, and after a gap the list is read again. Identity tells again when
// it starts and when it had lost the bus.
//
// A banned id counts for each certificate of a chain, as with Jami (dht-and-identity
// §3.4): banning an organisation's authority bars its accounts.
package gate

import (
	"crypto/x509"
	"maps"
	"sync"
	"time"

	"github.com/parley-jami/parley/bus/contract"
	"github.com/parley-jami/parley/internal/jami"
	"github.com/parley-jami/parley/internal/trust"
)

// Banned is the reason beside those of package trust: the account blocked the contact.
const Banned trust.Reason = "banned"

// maxBehind bounds the changes that are kept while the list is read; with more it is read
// once more.
const maxBehind = 4096

// Gate is safe for concurrent use. Its errors are [*trust.Error].
type Gate struct {
	now     func() time.Time
	revoked *trust.Revocations
	stale   chan struct{} // holds an element when the list is to be read again
	others  *Set          // whose revoked it is; nil: the gate's own

	mu       sync.Mutex
	banned   map[jami.ID]struct{}
	revision uint64 // of the last change that is in banned
	reading  bool
	behind   []*contract.ContactChanged // came while the list is read
	by       map[jami.ID]map[*watch]struct{}
}

// watch is something that ends when one of ids is banned or, where it has a chain,
// a certificate of that is revoked.
type watch struct {
	ids   []jami.ID
	chain *trust.Chain
	fn    func(error)
}

func newGate(now func() time.Time) *Gate {
	return &Gate{now: now, revoked: new(trust.Revocations), stale: make(chan struct{}, 1),
		banned: map[jami.ID]struct{}{}, by: map[jami.ID]map[*watch]struct{}{}}
}

// Rules returns what chains are checked against, revocations included; the caller may
// narrow them. Who is banned is not in them: ask [Gate.Allowed] too.
func (g *Gate) Rules() *trust.Rules { return &trust.Rules{Now: g.now, Revoked: g.revoked} }

// Check judges a chain that a stranger showed.
func (g *Gate) Check(certs []*x509.Certificate) (*trust.Chain, error) {
	c, err := g.Rules().Check(certs)
	if err != nil {
		return nil, err
	}
	if err := g.AllowedIDs(idsOf(c)...); err != nil {
		return nil, err
	}
	return c, nil
}

// Allowed judges a chain again that was good: it may have expired, or been revoked or banned.
// It verifies no signature.
func (g *Gate) Allowed(c *trust.Chain) error {
	if err := g.Rules().Recheck(c); err != nil {
		return err
	}
	return g.AllowedIDs(idsOf(c)...)
}

// AllowedIDs refuses when one of the ids is banned.
func (g *Gate) AllowedIDs(ids ...jami.ID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bannedLocked(ids)
}

func (g *Gate) bannedLocked(ids []jami.ID) error {
	for _, id := range ids {
		if _, is := g.banned[id]; is {
			return &trust.Error{Reason: Banned, Why: id.String() + " is blocked"}
		}
	}
	return nil
}

// Watch judges a chain as [Gate.Allowed] does and, unless that refuses, calls fn when a
// certificate of it is revoked or the contact is banned: once, within the event that
// tells of it and from its goroutine, so fn must not wait for anything. After stop, which
// may be called at any time and more than once, it is not called unless it runs already.
// That a certificate expires calls nobody.
func (g *Gate) Watch(c *trust.Chain, fn func(error)) (stop func(), err error) {
	if err := g.Rules().Recheck(c); err != nil {
		return nil, err
	}
	return g.watch(&watch{ids: idsOf(c), chain: c, fn: fn})
}

// WatchID is [Gate.Watch] for an id without certificates, which can be banned alone.
func (g *Gate) WatchID(id jami.ID, fn func(error)) (stop func(), err error) {
	return g.watch(&watch{ids: []jami.ID{id}, fn: fn})
}

func (g *Gate) watch(w *watch) (stop func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.barredLocked(w); err != nil { // under the lock of who looks at all: it is found there, or here
		return nil, err
	}
	for _, id := range w.ids {
		if g.by[id] == nil {
			g.by[id] = map[*watch]struct{}{}
		}
		g.by[id][w] = struct{}{}
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.forgetLocked(w)
	}, nil
}

func (g *Gate) forgetLocked(w *watch) {
	for _, id := range w.ids {
		delete(g.by[id], w)
		if len(g.by[id]) == 0 {
			delete(g.by, id)
		}
	}
}

// barredLocked says why a watch has to end, but for dates.
func (g *Gate) barredLocked(w *watch) error {
	if w.chain != nil {
		if err := (&trust.Rules{Revoked: g.revoked, AnyTime: true}).Recheck(w.chain); err != nil {
			return err
		}
	}
	return g.bannedLocked(w.ids)
}

// ended is a watch and why it ended.
type ended struct {
	w   *watch
	err error
}

// barLocked takes out those of ws that have to end.
func (g *Gate) barLocked(ws map[*watch]struct{}) (out []ended) {
	for w := range maps.Clone(ws) {
		if err := g.barredLocked(w); err != nil {
			g.forgetLocked(w)
			out = append(out, ended{w, err})
		}
	}
	return out
}

func (g *Gate) allLocked() map[*watch]struct{} {
	all := map[*watch]struct{}{}
	for _, ws := range g.by {
		maps.Copy(all, ws)
	}
	return all
}

func tell(all []ended) {
	for _, e := range all {
		e.w.fn(e.err)
	}
}

// revoke takes revocation lists of an issuer. Those that don't verify are reported,
// the others count.
func (g *Gate) revoke(issuer *x509.Certificate, lists [][]byte) (errs []error) {
	news := false
	for _, der := range lists {
		n, err := g.revoked.Add(der, issuer)
		if err != nil {
			errs = append(errs, err)
		}
		news = news || n
	}
	if news {
		g.barAll()
		if g.others != nil {
			g.others.barAll()
		}
	}
	return errs
}

// barAll looks at every watch after something was revoked.
func (g *Gate) barAll() {
	g.mu.Lock()
	out := g.barLocked(g.allLocked())
	g.mu.Unlock()
	tell(out)
}

// changed takes a change of a contact.
func (g *Gate) changed(e *contract.ContactChanged) {
	id, err := jami.ParseID(e.Contact.ID)
	var out []ended
	g.mu.Lock()
	switch {
	case err != nil: // identity began anew, perhaps with lower numbers
		g.revision = e.Revision
		g.readAgain()
	case e.Revision <= g.revision: // the list had it
	default:
		if g.reading {
			g.behind = append(g.behind, e)
		} else if e.Revision != g.revision+1 {
			g.readAgain()
		}
		if len(g.behind) > maxBehind {
			g.behind = nil
			g.readAgain()
		}
		g.revision = e.Revision
		out = g.setLocked(id, e.Contact.Banned)
	}
	g.mu.Unlock()
	tell(out)
}

func (g *Gate) setLocked(id jami.ID, banned bool) []ended {
	if !banned {
		delete(g.banned, id)
		return nil
	}
	g.banned[id] = struct{}{}
	return g.barLocked(g.by[id])
}

func (g *Gate) readAgain() {
	select {
	case g.stale <- struct{}{}:
	default:
	}
}

// begin notes that the list is being read: changes that come meanwhile are kept.
func (g *Gate) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reading, g.behind = true, nil
}

// read takes the whole list of who is banned, which has all changes up to revision and
// may have later ones.
func (g *Gate) read(banned map[jami.ID]struct{}, revision uint64) {
	g.mu.Lock()
	g.banned, g.revision, g.reading = banned, revision, false
	var out []ended
	for _, e := range g.behind {
		if e.Revision <= g.revision {
			continue
		}
		if e.Revision != g.revision+1 {
			g.readAgain()
		}
		if id, err := jami.ParseID(e.Contact.ID); err == nil {
			g.revision = e.Revision
			out = append(out, g.setLocked(id, e.Contact.Banned)...)
		}
	}
	g.behind = nil
	out = append(out, g.barLocked(g.allLocked())...)
	g.mu.Unlock()
	tell(out)
}

// failed notes that the list was not read.
func (g *Gate) failed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reading, g.behind = false, nil
}

func idsOf(c *trust.Chain) []jami.ID {
	ids := []jami.ID{c.JamiID, c.DeviceShort}
	for _, a := range c.Authorities {
		id, _ := jami.CertIDs(a)
		ids = append(ids, id)
	}
	return ids
}
