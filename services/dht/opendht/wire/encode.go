package wire

import "math/bits"

// Agent is what packets name as their program; nobody checks it (§1.1).
const Agent = "RNG1"

// Append appends the packet, its keys in the order in which OpenDHT writes them.
// Nodes and Pieces have to be whole.
func (m *Message) Append(b []byte) []byte {
	n := 4
	if m.Network != 0 {
		n++
	}
	if m.Client {
		n++
	}
	switch {
	case m.Kind.Query():
		b = m.appendArgs(AppendStr(appendMap(b, n+1), "a"))
		if m.Has&(HasExpired|HasRefreshed) != 0 { // these have another order
			b = m.appendAgent(AppendStr(AppendStr(b, "y"), "q"))
			b = AppendStr(AppendStr(b, "q"), queryNames[m.Kind])
			return m.appendOptional(m.appendTID(b))
		}
		b = AppendStr(AppendStr(b, "q"), queryNames[m.Kind])
		return m.appendTail(b, "q")
	case m.Kind == Reply:
		b = m.appendResult(AppendStr(appendMap(b, n), "r"))
		return m.appendTail(b, "r")
	case m.Kind == Error:
		b = AppendStr(appendMap(b, n+1), "e")
		b = AppendUint(appendArray(b, 2), uint64(m.Code))
		b = AppendStr(AppendStr(b, m.Text), "r")
		b = m.appendResult(b)
		return m.appendTail(b, "e")
	case m.Kind == Fragment:
		return m.appendFragment(b)
	case m.Kind == Legacy: // these have another order
		b = m.appendResult(AppendStr(appendMap(b, n), "u"))
		b = m.appendAgent(AppendStr(AppendStr(b, "y"), "r"))
		return m.appendOptional(m.appendTID(b))
	}
	return b
}

func (m *Message) appendTail(b []byte, y string) []byte {
	b = AppendStr(AppendStr(m.appendTID(b), "y"), y)
	return m.appendOptional(m.appendAgent(b))
}

func (m *Message) appendTID(b []byte) []byte { return AppendUint(AppendStr(b, "t"), uint64(m.TID)) }

func (m *Message) appendAgent(b []byte) []byte { return AppendStr(AppendStr(b, "v"), Agent) }

func (m *Message) appendOptional(b []byte) []byte {
	if m.Client {
		b = append(AppendStr(b, "s"), 0xc3)
	}
	if m.Network != 0 {
		b = AppendUint(AppendStr(b, "n"), uint64(m.Network))
	}
	return b
}

func (m *Message) has(h Has) bool { return m.Has&h != 0 }

func (m *Message) appendArgs(b []byte) []byte {
	n := 1
	count := func(on bool) {
		if on {
			n++
		}
	}
	count(m.Kind != Ping && m.Kind != Update || m.Kind == Update && m.has(HasTarget))
	count(m.has(HasVersion))
	count(m.has(HasQuery))
	count(m.Want != 0)
	count(m.has(HasValueID))
	count(m.has(HasSID))
	count(m.has(HasValues))
	count(m.has(HasCreated))
	count(m.has(HasToken))
	count(m.has(HasExpired))
	count(m.has(HasRefreshed))
	b = AppendBin(AppendStr(appendMap(b, n), "id"), m.ID[:])
	if m.has(HasVersion) {
		b = AppendUint(AppendStr(b, "ve"), uint64(m.Version))
	}
	switch {
	case m.Kind == Find:
		b = AppendBin(AppendStr(b, "target"), m.Target[:])
	case m.Kind != Ping && (m.Kind != Update || m.has(HasTarget)):
		b = AppendBin(AppendStr(b, "h"), m.Target[:])
	}
	if m.Kind == Listen {
		b = m.appendQuery(m.appendSID(m.appendToken(b)))
	} else {
		b = m.appendValues(m.appendSID(m.appendQuery(b)))
	}
	if m.Want != 0 {
		b = appendArray(AppendStr(b, "w"), bits.OnesCount8(m.Want))
		if m.Want&Want4 != 0 {
			b = AppendUint(b, afInet)
		}
		if m.Want&Want6 != 0 {
			b = AppendUint(b, afInet6)
		}
	}
	b = m.appendValueID(b)
	if m.has(HasCreated) {
		b = AppendUint(AppendStr(b, "c"), uint64(m.Created))
	}
	if m.Kind != Listen {
		b = m.appendToken(b)
	}
	return m.appendIDs(b)
}

func (m *Message) appendIDs(b []byte) []byte {
	if m.has(HasExpired) {
		b = m.Expired.append(AppendStr(b, "exp"))
	}
	if m.has(HasRefreshed) {
		b = m.Refreshed.append(AppendStr(b, "re"))
	}
	return b
}

func (m *Message) appendResult(b []byte) []byte {
	n := 1
	for _, on := range []bool{m.has(HasValueID), m.Addr.IsValid(), m.has(HasNodes4), m.has(HasNodes6), m.has(HasToken), m.has(HasValues), m.has(HasFields), m.has(HasExpired), m.has(HasRefreshed)} {
		if on {
			n++
		}
	}
	b = AppendBin(AppendStr(appendMap(b, n), "id"), m.ID[:])
	b = m.appendValueID(b)
	if a := m.Addr; a.IsValid() {
		b = AppendStr(b, "sa")
		if a.Is4() {
			x := a.As4()
			b = AppendBin(b, x[:])
		} else {
			x := a.As16()
			b = AppendBin(b, x[:])
		}
	}
	if m.has(HasNodes4) {
		b = AppendBin(AppendStr(b, "n4"), m.Nodes4)
	}
	if m.has(HasNodes6) {
		b = AppendBin(AppendStr(b, "n6"), m.Nodes6)
	}
	b = m.appendValues(m.appendToken(b))
	if m.has(HasFields) {
		b = m.Fields.append(AppendStr(b, "fileds"))
	}
	return m.appendIDs(b)
}

func (m *Message) appendToken(b []byte) []byte {
	if !m.has(HasToken) {
		return b
	}
	return AppendBin(AppendStr(b, "token"), m.Token)
}

func (m *Message) appendSID(b []byte) []byte {
	if !m.has(HasSID) {
		return b
	}
	return AppendUint(AppendStr(b, "sid"), uint64(m.SID))
}

func (m *Message) appendValueID(b []byte) []byte {
	if !m.has(HasValueID) {
		return b
	}
	return AppendUint(AppendStr(b, "vid"), m.ValueID)
}

func (m *Message) appendValues(b []byte) []byte {
	if !m.has(HasValues) {
		return b
	}
	return m.Values.append(AppendStr(b, "values"))
}

func (m *Message) appendQuery(b []byte) []byte {
	if !m.has(HasQuery) {
		return b
	}
	q := &m.Query
	b = appendFields(AppendStr(appendMap(AppendStr(b, "q"), 2), "s"), q.Select())
	b = appendArray(AppendStr(b, "w"), len(q.Where()))
	for _, c := range q.Where() {
		b = AppendUint(AppendStr(appendMap(b, 2), "f"), uint64(c.Field))
		b = AppendStr(b, "v")
		if c.Field == FieldID || c.Field == FieldType {
			b = AppendUint(b, c.Num)
		} else {
			b = AppendBin(b, c.Bytes)
		}
	}
	return b
}

func appendFields(b []byte, f []Field) []byte {
	b = appendArray(b, len(f))
	for _, x := range f {
		b = AppendUint(b, uint64(x))
	}
	return b
}

func (f *Fields) append(b []byte) []byte {
	b = appendFields(AppendStr(appendMap(b, 2), "f"), f.Fields())
	return f.V.append(AppendStr(b, "v"))
}

func (a *Array) append(b []byte) []byte { return append(appendArray(b, a.n), a.b...) }

func (m *Message) appendFragment(b []byte) []byte {
	n := 3
	if m.Network != 0 {
		n++
	}
	b = appendMap(b, n)
	if m.Network != 0 {
		b = AppendUint(AppendStr(b, "n"), uint64(m.Network))
	}
	b = AppendStr(AppendStr(b, "y"), "p")
	b = AppendUint(AppendStr(b, "t"), uint64(m.TID))
	b = AppendStr(b, "p")
	switch pieces := m.Pieces.n / 2; {
	case pieces < 16:
		b = appendMap(b, pieces)
	default:
		b = append(b, 0xde, byte(pieces>>8), byte(pieces))
	}
	return append(b, m.Pieces.b...)
}

// AppendPiece appends a chunk to a list of them for [NewArray], as two elements.
func AppendPiece(b []byte, p Piece) []byte {
	b = AppendUint(b, uint64(p.Index))
	b = AppendUint(AppendStr(appendMap(b, 2), "o"), uint64(p.Offset))
	return AppendBin(AppendStr(b, "d"), p.Data)
}
