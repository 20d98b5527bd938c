package contract

// Signalled is what a participant's signalling came over when it joined.
type Signalled struct {
	// Over is "channel" (of a connection to a Jami device by TCP), "channel/udp" (the same by UDP), "websocket", "http" (WHIP, WHEP),
	// "udp", "tcp" or "tls" (SIP).
	Over   string `json:"over"`
	Local  string `json:"local,omitempty"`  // address and port; empty: not known
	Remote string `json:"remote,omitempty"` // the same; of a proxy where there is one
	TLS    string `json:"tls,omitempty"`    // "TLS 1.3", "DTLS 1.2"; empty: not protected here
	Suite  string `json:"suite,omitempty"`  // cipher suite by its IANA name
}

// LegPath is how a leg's packets travel.
type LegPath struct {
	Protocol string `json:"protocol"` // "udp", or "bus"
	// Local is the address that the node's description names, or the one from which the route
	// starts; Remote is where packets go.
	Local  string `json:"local,omitempty"`
	Remote string `json:"remote,omitempty"`
	// The types of both as candidates (RFC 8445 §5.1.1): "host", "srflx", "prflx" or "relay";
	// without ICE "sdp", as its description says, or "latched", from where its packets come.
	LocalType  string `json:"local_type,omitempty"`
	RemoteType string `json:"remote_type,omitempty"`
	RTCP       string `json:"rtcp,omitempty"`  // where reports go, if not to Remote
	DTLS       string `json:"dtls,omitempty"`  // "DTLS 1.2"; empty: keys come with the signalling, or there are none
	Suite      string `json:"suite,omitempty"` // of DTLS, by its IANA name
}

// Connection is how a participant is connected.
type Connection struct {
	Participant string     `json:"participant"`
	Name        string     `json:"name"`
	Transport   string     `json:"transport"`
	Codec       string     `json:"codec,omitempty"`
	Connected   bool       `json:"connected"`
	Signalled   *Signalled `json:"signalled,omitempty"` // nil: not known, or a bot
	Path        *LegPath   `json:"path,omitempty"`      // nil: media has no leg of it just now
	Quality     LegQuality `json:"quality,omitzero"`    // its Cipher is the SRTP profile
}

// ConnectionQuery asks how participants are connected: one, or a page of all in the order of their
// ids.
type ConnectionQuery struct {
	Participant string `json:"participant,omitempty"`
	After       string `json:"after,omitempty"` // the last participant of the page before
	Limit       int    `json:"limit,omitempty"` // 1 to 500, which is the default
}

// Connections answers it.
type Connections struct {
	Connections []Connection `json:"connections"`
	More        bool         `json:"more,omitempty"` // there are participants after the last one
}

// Answered to operators alone: it tells addresses.
var (
	RoomConnections = query[ConnectionQuery, Connections]("conference", "room.connections", "{account}.room.{room}.cmd.{caller}.connections", "how participants are connected; for operators", "")
)
