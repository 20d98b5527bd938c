package core

import (
	"net/netip"
	"slices"
	"time"

	"github.com/parley-jami/parley/internal/limits"
	"github.com/parley-jami/parley/services/dht/opendht/wire"
)

// Bounds of values that come in fragments (§1.5).
const (
	partialWait = 3 * time.Second  // between two
	partialAsk  = 1 * time.Second  // between two of an answer, which can be asked for again
	partialMost = 10 * time.Second // in all
	partialAll  = 32 << 20         // bytes of all that come in
	partialLow  = 8 << 20          // the same, of a node that keeps little
	partialHost = 4                // one host has that part of it
	partialMany = 4096             // values of one packet
	partExtra   = 64               // bytes that a value takes beside its own
)

// span is a part of a value that has come.
type span struct{ from, to int }

// part is one value that is coming.
type part struct {
	size int
	b    []byte // nil until the first chunk
	have []span // ascending, apart
}

// partial is a packet whose values are coming.
type partial struct {
	key    requestKey
	packet []byte
	answer bool // to a query of ours
	parts  []part
	left   int // parts that are not whole
	bytes  int
	until  time.Time
	timer  *task
}

// collect starts to take the fragments of a packet that is known to be wanted.
func (c *Core) collect(from netip.AddrPort, m *wire.Message, packet []byte, answer bool) {
	k := requestKey{from, m.TID}
	if c.partials[k] != nil {
		return // sent again: the chunks come again, too
	}
	if m.Values.Len() > partialMany {
		c.stats.Crowded++
		return
	}
	x := &partial{key: k, answer: answer, until: c.now.Add(partialMost), parts: make([]part, 0, m.Values.Len())}
	for a := m.Values; a.Len() > 0; {
		n, _ := a.NextUint()
		x.bytes += partExtra
		if n == 0 || n > wire.MaxPacked { // skipped
			x.parts = append(x.parts, part{size: 0})
			continue
		}
		x.parts = append(x.parts, part{size: int(n)})
		x.bytes += int(n)
		x.left++
	}
	room := min(partialAll, max(c.cfg.MaxStore, partialLow))
	if c.partial+x.bytes > room || c.partialOf(from.Addr())+x.bytes > room/partialHost {
		c.stats.Crowded++
		return
	}
	x.packet = slices.Clone(packet)
	c.partials[k] = x
	c.partial += x.bytes
	x.timer = &task{fn: func() { c.stalled(x) }}
	x.wait(c)
	if x.left == 0 {
		c.complete(x)
	}
}

// partialOf returns the bytes of a host's values that are coming in.
func (c *Core) partialOf(ip netip.Addr) (n int) {
	h := limits.Subnet(ip)
	for k, x := range c.partials {
		if limits.Subnet(k.addr.Addr()) == h {
			n += x.bytes
		}
	}
	return n
}

func (c *Core) removePartial(x *partial) {
	delete(c.partials, x.key)
	c.partial -= x.bytes
	c.timer.stop(x.timer)
}

// stalled gives up on fragments. A query of ours is sent again if it may be: its answer
// comes again, and fills the gaps.
func (c *Core) stalled(x *partial) {
	r := c.requests[x.key]
	if x.answer && r != nil && r.tries < len(waits) && c.now.Before(x.until) {
		c.resend(r)
		x.wait(c)
		return
	}
	c.removePartial(x)
	if x.answer && r != nil {
		c.timer.set(r.timer, c.now)
	}
}

// wait waits for the next chunk.
func (x *partial) wait(c *Core) {
	d := partialWait
	if x.answer {
		d = partialAsk
	}
	c.timer.set(x.timer, earlier(c.now.Add(d), x.until))
}

// fragment takes chunks in.
func (c *Core) fragment(from netip.AddrPort, m *wire.Message) {
	x := c.partials[requestKey{from, m.TID}]
	if x == nil {
		c.stats.Stray++
		return
	}
	for {
		p, ok := wire.NextPiece(&m.Pieces)
		if !ok {
			break
		}
		if int(p.Index) < len(x.parts) {
			x.add(&x.parts[p.Index], int(p.Offset), p.Data)
		}
	}
	if x.left == 0 {
		c.complete(x)
		return
	}
	x.wait(c)
}

// spansMost bounds the gaps that chunks which come out of order may leave.
const spansMost = 64

// add takes one chunk in.
func (x *partial) add(p *part, off int, b []byte) {
	end := off + len(b)
	if len(b) == 0 || end > p.size || p.size == 0 || len(p.have) == 1 && p.have[0] == (span{0, p.size}) {
		return
	}
	if p.b == nil {
		p.b = make([]byte, p.size)
	}
	i := 0
	for i < len(p.have) && p.have[i].to < off {
		i++
	}
	s, j := span{off, end}, i
	for j < len(p.have) && p.have[j].from <= end {
		s.from, s.to = min(s.from, p.have[j].from), max(s.to, p.have[j].to)
		j++
	}
	if i == j && len(p.have) >= spansMost {
		return
	}
	copy(p.b[off:], b)
	p.have = slices.Replace(p.have, i, j, s)
	if s == (span{0, p.size}) {
		x.left--
	}
}

// complete goes on with a packet whose values are all there.
func (c *Core) complete(x *partial) {
	c.removePartial(x)
	m := new(wire.Message)
	if wire.Decode(x.packet, m) != nil { // it was read before
		return
	}
	values := make([][]byte, 0, len(x.parts))
	for _, p := range x.parts {
		if p.size > 0 {
			values = append(values, p.b)
		}
	}
	if !x.answer {
		c.queryWhole(x.key.addr, m, values)
		return
	}
	if r := c.requests[x.key]; r != nil {
		c.end(r)
		c.deliver(r, m, values)
	}
}

// Bytes of a packet beside its values and node lists, at most: ids, token, query.
const envelope = 256

// attach puts values into a packet, or their sizes; it returns what is to follow in
// fragments.
func (c *Core) attach(m *wire.Message, values [][]byte) [][]byte {
	total := 0
	for _, v := range values {
		total += len(v)
	}
	m.Has |= wire.HasValues
	var b []byte
	if len(values) < wire.InlineCount && total < wire.MaxInline && envelope+total+len(m.Nodes4)+len(m.Nodes6) <= wire.MaxDatagram {
		for _, v := range values {
			b = append(b, v...)
		}
		m.Values = wire.NewArray(len(values), b)
		return nil
	}
	for _, v := range values {
		b = wire.AppendUint(b, uint64(len(v)))
	}
	m.Values, m.Sizes = wire.NewArray(len(values), b), true
	return values
}

// sendChunks sends values as fragments.
func (c *Core) sendChunks(to netip.AddrPort, tid uint32, values [][]byte) {
	m := wire.Message{Kind: wire.Fragment, TID: tid, Network: c.cfg.Network}
	var piece []byte
	for i, v := range values {
		for off := 0; off < len(v); off += wire.Chunk {
			piece = wire.AppendPiece(piece[:0], wire.Piece{Index: uint32(i), Offset: uint32(off), Data: v[off:min(off+wire.Chunk, len(v))]})
			m.Pieces = wire.NewArray(2, piece)
			c.out = m.Append(c.out[:0])
			c.send(to, m.Kind, c.out)
		}
	}
}
