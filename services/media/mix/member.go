package mix

// Member is one leg in a room.
type Member struct {
	room *Room
	id   string
}

// ID returns the id that the member was added with.
func (m *Member) ID() string { return m.id }

// Push hands over a received packet. It never blocks, copies the payload and
// doesn't allocate. Packets of a member who is muted or may not speak are dropped
// at once.
func (m *Member) Push(p *Packet) {}

// SetMuted mutes or unmutes.
func (m *Member) SetMuted(muted bool) {}

// SetCanSpeak lets speak or not.
func (m *Member) SetCanSpeak(can bool) {}

// SetCodecs changes what the member sends and receives.
func (m *Member) SetCodecs(in, out CodecID) error { return nil }

// Wake says that the member's [Source] has something to read.
func (m *Member) Wake() {}

// Stats returns what was counted.
func (m *Member) Stats() Stats { return Stats{} }

// Close takes the member out. After it returned nothing more is written to its sink.
func (m *Member) Close() {}
