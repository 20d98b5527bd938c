package contract

// MaxPeerMessage bounds the message of a [PeerMessage] in bytes.
const MaxPeerMessage = 16 << 10

// PeerMessage is a message between devices that a connection begins with: it was signed by
// the device that Chain names first, or is to be signed for that one. What is received had a
// good chain when it came, of an account that is not blocked.
type PeerMessage struct {
	Chain   string `json:"chain"` // PEM: device, account, authorities
	Message []byte `json:"message"`
}

// PeerAccount names an account, whose devices are asked for.
type PeerAccount struct {
	ID string `json:"id"` // Jami Id
}

// PeerDevices are devices of an account that can be reached.
type PeerDevices struct {
	Chains []string `json:"chains"` // PEM, as in [PeerMessage]; at most 16
	// Missing is how many announced devices have no certificates in the overlay now, or were not
	// found soon after the first of them: who wants them too asks again.
	Missing int `json:"missing"`
}

// PeerReached is a device that the node tried to connect to.
type PeerReached struct {
	Device    string `json:"device"` // long id, 64 hex
	Connected bool   `json:"connected"`
	Address   string `json:"address,omitempty"` // of the device's end
	Over      string `json:"over,omitempty"`    // "tcp" or "udp"
	TLS       string `json:"tls,omitempty"`     // "TLS 1.3"; by UDP "DTLS 1.2"
	Suite     string `json:"suite,omitempty"`   // cipher suite by its IANA name
	TookMs    int64  `json:"took_ms"`
	Error     string `json:"error,omitempty"`
}

// PeerReaches is what came of it.
type PeerReaches struct {
	Devices []PeerReached `json:"devices"`
	Missing int           `json:"missing"` // as in [PeerDevices]
}

// MessageHeard is a message that came over a connection with a device, which has proved to be
// the one of that account.
type MessageHeard struct {
	From   string `json:"from"`         // Jami Id
	Device string `json:"device"`       // long id, 64 hex
	ID     string `json:"id,omitempty"` // 16 hex digits, as the sender chose it; none: it is told each time it comes
	Type   string `json:"type"`         // MIME type
	Body   string `json:"body"`         // UTF-8, at most [MaxMessage] bytes
}

// The subjects of connections between devices.
var (
	PeerSend     = query[PeerMessage, None]("identity", "peer.send", "{account}.identity.peer.send", "ask a device for a connection, or answer it; answered when the overlay has it", "")
	PeerFind     = query[PeerAccount, PeerDevices]("identity", "peer.find", "{account}.identity.peer.find", "find an account's devices", "")
	PeerReach    = query[PeerAccount, PeerReaches]("connect", "peer.reach", "{account}.connect.peer.reach", "connect to an account's devices, to see that they can be called; it may take 25 s", "")
	MessageTake  = query[MessageHeard, None]("identity", "message.take", "{account}.identity.message.take", "take a message that came over a connection; one that the account takes from nobody of that kind is passed over without an error", "")
	PeerMessages = event[PeerMessage]("identity", "peer.message", "{account}.identity.event.peer", "a device asks for a connection, or answers", "")
)
