package wire

import (
	"net/netip"

	"github.com/parley-jami/parley/internal/jami"
)

// Kind is what a packet is.
type Kind uint8

// Kinds of packets: seven queries, their answers, a piece of a value, and what listeners
// from before "update" are told of values that were refreshed or expired: "u", whose
// transaction is the listener's number. New values they get as replies of that number.
const (
	Ping Kind = iota + 1
	Find
	Get
	Put
	Listen
	Refresh
	Update
	Reply
	Error
	Fragment
	Legacy
)

var queryNames = [...]string{Ping: "ping", Find: "find", Get: "get", Put: "put", Listen: "listen", Refresh: "refresh", Update: "update"}

// Query reports whether a packet of this kind wants an answer.
func (k Kind) Query() bool { return k >= Ping && k <= Update }

func (k Kind) String() string {
	switch {
	case k.Query():
		return queryNames[k]
	case k == Reply:
		return "reply"
	case k == Error:
		return "error"
	case k == Fragment:
		return "fragment"
	}
	return "other"
}

// Sizes in bytes (§1.2, §1.3, §1.5).
const (
	MaxPacket   = 65507 // of UDP over IPv4
	MaxToken    = 64
	MaxAgent    = 16     // of what is read of it; a longer one is passed over
	MaxNodes    = 8      // of one family in a reply
	Node4       = 26     // id 20, address 4, port 2
	Node6       = 38     // id 20, address 16, port 2
	MaxChunk    = 1280   // of a value in one fragment
	MaxDatagram = 1232   // of what every path takes: IPv6's least MTU, 1280, without headers
	Chunk       = 1184   // of a value in one fragment of ours, which fits MaxDatagram
	MaxInline   = 600    // of all values together in a packet; more goes in fragments
	InlineCount = 50     // as many values or more go in fragments
	MaxPacked   = 65_568 // of a value; a larger one is skipped
)

// Codes of errors (§1.2).
const (
	ErrNonAuthoritative = 203 // zero key or value id
	ErrUnauthorized     = 401 // token
	ErrNotFound         = 404
)

// Families in Want, bits.
const (
	Want4 = 1 << iota
	Want6
)

// Numbers of families in "w": Linux, then the BSDs' and Windows's for IPv6.
const (
	afInet      = 2
	afInet6     = 10
	afInet6BSD  = 28
	afInet6Mac  = 30
	afInet6Wind = 23
)

// Has says which optional parts a message has.
type Has uint16

// Optional parts whose zero value means something.
const (
	HasTarget Has = 1 << iota
	HasQuery
	HasValueID
	HasValues
	HasFields
	HasCreated
	HasExpired
	HasRefreshed
	HasVersion
	HasSID
	HasToken
	HasNodes4
	HasNodes6
)

// Message is a packet. Slices of one that was decoded point into the packet.
type Message struct {
	Kind    Kind
	TID     uint32
	Network uint32
	Client  bool
	Agent   []byte // program of the sender, as it says; of decoded packets only, at most MaxAgent

	Has     Has
	ID      jami.ID // of the sender
	Target  jami.ID // h or target
	Want    uint8
	Query   Query
	Token   []byte
	ValueID uint64
	Nodes4  []byte // a multiple of Node4
	Nodes6  []byte // a multiple of Node6
	Created int64  // unix s
	Addr    netip.Addr
	Values  Array // of packed values, or, when Sizes, of their sizes
	Sizes   bool
	Fields  Fields
	// Of updates: value ids.
	Expired, Refreshed Array
	SID                uint32
	Version            uint32

	Code uint16
	Text []byte

	Pieces Array // of fragments: index and piece in turn; see Piece
}

// Array is a list that was checked and is still packed.
type Array struct {
	n int
	b []byte
}

// NewArray makes a list of n elements that are packed one after the other.
func NewArray(n int, packed []byte) Array { return Array{n, packed} }

// Len returns how many elements are left.
func (a *Array) Len() int { return a.n }

// Next takes the first element off, packed; nil at the end.
func (a *Array) Next() []byte {
	if a.n == 0 {
		return nil
	}
	r := reader{b: a.b}
	e := r.skip()
	a.n, a.b = a.n-1, r.b
	return e
}

// NextUint takes off the first element, a number; false at the end, and for
// anything else.
func (a *Array) NextUint() (uint64, bool) {
	r := reader{b: a.Next()}
	k, n := r.next()
	return n, k == kindUint
}

// NextBytes takes off the first element, bytes or text; nil for anything else.
func (a *Array) NextBytes() []byte {
	r := reader{b: a.Next()}
	return r.bytes(MaxPacket)
}

// Field is a part of a value that queries name (§1.4).
type Field uint8

// Fields of values.
const (
	FieldID Field = iota + 1
	FieldType
	FieldOwner
	FieldSeq
	FieldUserType
	maxField = FieldUserType
)

// maxWhere bounds the conditions of a query.
const maxWhere = 8

// Query asks for some fields of values (none: for whole values) that meet all
// conditions.
type Query struct {
	nSelect, nWhere uint8
	sel             [maxField]Field
	where           [maxWhere]Condition
}

// Condition is one filter of a query.
type Condition struct {
	Field Field
	Num   uint64 // of FieldID and FieldType
	Bytes []byte // of FieldOwner, a key id, and FieldUserType
}

// Select returns what is asked for.
func (q *Query) Select() []Field { return q.sel[:q.nSelect] }

// Where returns the conditions.
func (q *Query) Where() []Condition { return q.where[:q.nWhere] }

// Selecting returns the query with these fields, which ascend.
func (q Query) Selecting(f ...Field) Query {
	q.nSelect = uint8(copy(q.sel[:], f))
	return q
}

// Filtered returns the query with one more condition, or as it is when it is full.
func (q Query) Filtered(c Condition) Query {
	if int(q.nWhere) < len(q.where) {
		q.where[q.nWhere] = c
		q.nWhere++
	}
	return q
}

// Fields is an answer to a query that selects: for every value the fields in turn.
type Fields struct {
	n      uint8
	fields [maxField]Field
	V      Array
}

// NewFields makes an answer.
func NewFields(f []Field, v Array) Fields {
	x := Fields{V: v}
	x.n = uint8(copy(x.fields[:], f))
	return x
}

// Fields returns which fields there are.
func (f *Fields) Fields() []Field { return f.fields[:f.n] }

// Piece is one chunk of a value.
type Piece struct {
	Index  uint32 // of the value in Values
	Offset uint32
	Data   []byte
}

// NextPiece takes a chunk off a list of them; false at the end.
func NextPiece(a *Array) (Piece, bool) {
	i, ok := a.NextUint()
	if !ok {
		return Piece{}, false
	}
	p := Piece{Index: uint32(i)}
	r := reader{b: a.Next()}
	p.read(&r)
	return p, !r.bad
}

// AppendNode appends a record of a node list; the family is the address's.
func AppendNode(b []byte, id jami.ID, a netip.AddrPort) []byte {
	b = append(b, id[:]...)
	ip := a.Addr().Unmap()
	if ip.Is4() {
		x := ip.As4()
		b = append(b, x[:]...)
	} else {
		x := ip.As16()
		b = append(b, x[:]...)
	}
	return append(b, byte(a.Port()>>8), byte(a.Port()))
}

// NextNode takes a record off the front of a list; size is Node4 or Node6.
func NextNode(list []byte, size int) (id jami.ID, a netip.AddrPort, rest []byte) {
	rec := list[:size]
	copy(id[:], rec)
	ip, _ := netip.AddrFromSlice(rec[len(id) : size-2])
	return id, netip.AddrPortFrom(ip, uint16(rec[size-2])<<8|uint16(rec[size-1])), list[size:]
}

// ReadArray reads any list; false for anything else.
func ReadArray(b []byte) (Array, bool) {
	r := reader{b: b}
	n := r.count(kindArray, MaxPacked)
	a := Array{n, r.b}
	for range n {
		r.skip()
	}
	return a, !r.bad && len(r.b) == 0
}
