package contract

// PeerText is a text for the devices of an account with which the node has a connection.
type PeerText struct {
	To   string `json:"to"`   // Jami Id
	ID   string `json:"id"`   // 16 hex digits; a device that has it already takes it once
	Type string `json:"type"` // MIME type
	Body string `json:"body"` // UTF-8, 1 to [MaxMessage] bytes
	// Skip are the short ids of devices that have it already.
	Skip []string `json:"skip,omitempty"`
}

// PeerTold is a device that has a text.
type PeerTold struct {
	Device string `json:"device"` // long id, 64 hex
	Short  string `json:"short"`  // short id, 40 hex
	// Confirmed: the device answered. Daemons from November 2024 on take texts on a channel
	// that has no answers.
	Confirmed bool `json:"confirmed"`
}

// PeerTolds are the devices that have a text.
type PeerTolds struct {
	Devices []PeerTold `json:"devices"`
}

// The subject of texts on connections.
var (
	PeerSay = query[PeerText, PeerTolds]("connect", "peer.say", "{account}.connect.peer.say", "write to the devices of an account that the node has a connection with; the others are not asked for one; it takes up to 4 s", "")
)
