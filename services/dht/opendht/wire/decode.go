package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
)

// Decode reads a packet into m, which it overwrites. On an error m holds nothing to
// rely on. It keeps b.
func Decode(b []byte, m *Message) error {
	*m = Message{}
	r := reader{b: b}
	var name, y []byte
	var seen uint16
	for n := r.count(kindMap, 16); n > 0 && !r.bad; n-- {
		bit := uint16(0)
		switch string(r.bytes(MaxPacket)) {
		case "y":
			bit, y = 1, r.bytes(1)
		case "t":
			bit, m.TID = 2, r.tid()
		case "n":
			bit, m.Network = 4, uint32(r.uint(math.MaxUint32))
		case "s":
			bit, m.Client = 8, r.bool()
		case "v":
			m.Agent = r.agent()
		case "q":
			bit, name = 16, r.bytes(16)
		case "a":
			bit = 32
			m.args(&r)
		case "r":
			bit = 64
			m.args(&r)
		case "u":
			bit = 128
			m.args(&r)
		case "e":
			bit = 256
			m.fault(&r)
		case "p":
			bit = 512
			m.pieces(&r)
		default:
			r.skip()
		}
		if seen&bit != 0 {
			return fmt.Errorf("%w: a key comes twice", ErrPacket)
		}
		seen |= bit
	}
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("%w: malformed", ErrPacket)
	}
	if args := seen & (32 | 64 | 128 | 512); args&(args-1) != 0 {
		return fmt.Errorf("%w: of several kinds", ErrPacket)
	}
	if seen&2 == 0 {
		return fmt.Errorf("%w: without transaction id", ErrPacket)
	}
	return m.classify(seen, name, y)
}

// classify finds the kind (§1.1) and checks what that kind has to have.
func (m *Message) classify(seen uint16, name, y []byte) error {
	switch {
	case seen&256 != 0:
		m.Kind = Error
	case seen&64 != 0:
		m.Kind = Reply
	case seen&512 != 0:
		m.Kind = Fragment
		return nil
	case seen&128 != 0:
		m.Kind = Legacy
	case seen&32 != 0 && string(y) == "q":
		for k := Ping; k <= Update; k++ {
			if queryNames[k] == string(name) {
				m.Kind = k
			}
		}
	}
	var need Has
	switch m.Kind {
	case 0:
		return fmt.Errorf("%w: unknown query", ErrPacket)
	case Find, Get:
		need = HasTarget
	case Put:
		need = HasTarget | HasValues | HasToken
	case Listen:
		need = HasTarget | HasToken | HasSID
	case Refresh:
		need = HasTarget | HasToken | HasValueID
	case Update:
		need = HasSID
	}
	if m.ID.IsZero() || m.Has&need != need {
		return fmt.Errorf("%w: a part is missing", ErrPacket)
	}
	return nil
}

// agent reads what a program calls itself, which may be anything (§1.1).
func (r *reader) agent() []byte {
	whole := r.skip()
	s := reader{b: whole}
	if k, n := s.next(); (k == kindStr || k == kindBin) && n <= MaxAgent {
		return s.take(n)
	}
	return nil
}

// tid reads a transaction id: a number, or four bytes.
func (r *reader) tid() uint32 {
	k, n := r.next()
	switch {
	case k == kindUint && n <= math.MaxUint32:
		return uint32(n)
	case (k == kindBin || k == kindStr) && n == 4:
		return binary.BigEndian.Uint32(r.take(n))
	}
	r.fail()
	return 0
}

func (m *Message) args(r *reader) {
	var seen uint32
	for n := r.count(kindMap, 32); n > 0 && !r.bad; n-- {
		bit := uint32(0)
		switch string(r.bytes(MaxPacket)) {
		case "id":
			bit = 1
			copy(m.ID[:], r.bin(len(m.ID)))
		case "h", "target":
			bit = 2
			copy(m.Target[:], r.bin(len(m.Target)))
			m.Has |= HasTarget
		case "w":
			bit = 4
			m.want(r)
		case "q":
			bit = 8
			m.Query.read(r)
			m.Has |= HasQuery
		case "token":
			bit = 16
			m.Token = r.bytes(MaxToken)
			m.Has |= HasToken
		case "vid":
			bit = 32
			m.ValueID = r.uint(math.MaxUint64)
			m.Has |= HasValueID
		case "n4":
			bit = 64
			m.Nodes4 = r.nodes(Node4)
			m.Has |= HasNodes4
		case "n6":
			bit = 128
			m.Nodes6 = r.nodes(Node6)
			m.Has |= HasNodes6
		case "c":
			bit = 256
			m.Created = int64(r.uint(math.MaxInt64))
			m.Has |= HasCreated
		case "sa":
			bit = 512
			m.Addr, _ = netip.AddrFromSlice(r.bin(4, 16))
		case "values":
			bit = 1024
			m.values(r)
			m.Has |= HasValues
		case "exp":
			bit = 2048
			m.Expired = r.array(kindUint)
			m.Has |= HasExpired
		case "re":
			bit = 4096
			m.Refreshed = r.array(kindUint)
			m.Has |= HasRefreshed
		case "fileds":
			bit = 8192
			m.Fields.read(r)
			m.Has |= HasFields
		case "sid":
			bit = 16384
			m.SID = r.tid()
			m.Has |= HasSID
		case "ve":
			bit = 32768
			m.Version = uint32(r.uint(math.MaxUint32))
			m.Has |= HasVersion
		default:
			r.skip()
		}
		if seen&bit != 0 {
			r.fail()
		}
		seen |= bit
	}
}

func (m *Message) want(r *reader) {
	for n := r.count(kindArray, 8); n > 0 && !r.bad; n-- {
		switch r.uint(math.MaxUint16) {
		case afInet:
			m.Want |= Want4
		case afInet6, afInet6BSD, afInet6Mac, afInet6Wind:
			m.Want |= Want6
		}
	}
}

func (r *reader) nodes(size int) []byte {
	b := r.bytes(MaxPacket)
	if len(b)%size != 0 {
		r.fail()
		return nil
	}
	return b
}

// array reads a list whose elements are all of kind k.
func (r *reader) array(k kind) Array {
	n := r.count(kindArray, MaxPacket)
	start := r.b
	for range n {
		if r.bad {
			break
		}
		e := reader{b: r.skip()}
		if got, _ := e.next(); got != k {
			r.fail()
		}
	}
	if r.bad {
		return Array{}
	}
	return Array{n, start[:len(start)-len(r.b)]}
}

// values reads packed values, or the sizes of all of them when they come in fragments.
func (m *Message) values(r *reader) {
	after := *r
	n := after.count(kindArray, MaxPacket)
	if k, _ := after.next(); n > 0 && k == kindUint {
		m.Sizes = true
		m.Values = r.array(kindUint)
		return
	}
	m.Values = r.array(kindMap)
}

func (q *Query) read(r *reader) {
	var sel, where bool
	for n := r.count(kindMap, 8); n > 0 && !r.bad; n-- {
		switch string(r.bytes(MaxPacket)) {
		case "s":
			sel = true
			q.nSelect = r.fields(&q.sel)
		case "w":
			where = true
			q.nWhere = 0
			for n := r.count(kindArray, maxWhere); n > 0 && !r.bad; n-- {
				q.where[q.nWhere].read(r)
				q.nWhere++
			}
		default:
			r.skip()
		}
	}
	if !sel || !where { // both mandatory (§1.2)
		r.fail()
	}
}

func (r *reader) fields(out *[maxField]Field) uint8 {
	n := r.count(kindArray, len(out))
	for i := range n {
		f := Field(r.uint(uint64(maxField)))
		if f == 0 {
			r.fail()
			return 0
		}
		out[i] = f
	}
	return uint8(n)
}

func (c *Condition) read(r *reader) {
	*c = Condition{}
	value := reader{}
	for n := r.count(kindMap, 4); n > 0 && !r.bad; n-- {
		switch string(r.bytes(MaxPacket)) {
		case "f":
			c.Field = Field(r.uint(uint64(maxField)))
		case "v":
			value.b = r.skip()
		default:
			r.skip()
		}
	}
	switch c.Field {
	case FieldID, FieldType:
		c.Num = value.uint(math.MaxUint64)
	case FieldOwner:
		c.Bytes = value.bytes(20)
		value.bad = value.bad || len(c.Bytes) != 20
	case FieldUserType:
		c.Bytes = value.bytes(MaxPacket)
	default: // the sequence cannot be filtered (§1.4)
		value.bad = true
	}
	if value.bad {
		r.fail()
	}
}

func (f *Fields) read(r *reader) {
	for n := r.count(kindMap, 4); n > 0 && !r.bad; n-- {
		switch string(r.bytes(MaxPacket)) {
		case "f":
			f.n = r.fields(&f.fields)
		case "v":
			n := r.count(kindArray, MaxPacket)
			start := r.b
			for range n {
				r.skip()
			}
			if !r.bad {
				f.V = Array{n, start[:len(start)-len(r.b)]}
			}
		default:
			r.skip()
		}
	}
	if f.n == 0 && f.V.n != 0 || f.n != 0 && f.V.n%int(f.n) != 0 {
		r.fail()
	}
}

// maxText bounds the text of an error.
const maxText = 1024

func (m *Message) fault(r *reader) {
	if r.count(kindArray, 2) != 2 {
		r.fail()
		return
	}
	m.Code = uint16(r.uint(math.MaxUint16))
	m.Text = r.bytes(maxText)
}

func (m *Message) pieces(r *reader) {
	n := r.count(kindMap, MaxPacket)
	start := r.b
	for range n {
		if r.bad {
			return
		}
		r.uint(math.MaxUint32)
		var p Piece
		p.read(r)
	}
	if !r.bad {
		m.Pieces = Array{2 * n, start[:len(start)-len(r.b)]}
	}
}

func (p *Piece) read(r *reader) {
	var seen uint8
	for n := r.count(kindMap, 4); n > 0 && !r.bad; n-- {
		switch string(r.bytes(MaxPacket)) {
		case "o":
			seen |= 1
			p.Offset = uint32(r.uint(MaxPacked))
		case "d":
			seen |= 2
			p.Data = r.bytes(MaxPacket)
		default:
			r.skip()
		}
	}
	if seen != 3 {
		r.fail()
	}
}
