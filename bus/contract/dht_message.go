package contract

// MaxMessage bounds the body of a message in bytes: with signature and encryption it fits into a
// value of the overlay (64 KiB).
const MaxMessage = 48 << 10

// MaxMessageType bounds a MIME type, in bytes.
const MaxMessageType = 255

// Message is what somebody wrote to the account. Who that is says the signature of the device;
// body, type and date are the sender's own words.
type Message struct {
	ID       string `json:"id"`       // 16 hex digits; told once for each sender
	From     string `json:"from"`     // Jami Id
	Device   string `json:"device"`   // long id of the device that signed it
	Contact  bool   `json:"contact"`  // an active contact of the account; others are told of where rendezvous is on
	Sent     int64  `json:"sent"`     // unix seconds, by the sender's clock
	Received int64  `json:"received"` // unix seconds
	Type     string `json:"type"`     // MIME type, such as text/plain
	Body     string `json:"body"`     // UTF-8
}

// MessageSend is what is to be written to somebody.
type MessageSend struct {
	To   string `json:"to"`             // Jami Id
	Type string `json:"type,omitempty"` // a kind of text; text/plain by default
	Body string `json:"body"`           // UTF-8, 1 to [MaxMessage] bytes
}

// MessageQueued says under which id a message will be sent. It waits in memory: what became of
// it is told as [MessageState].
type MessageQueued struct {
	ID string `json:"id"` // 16 hex digits
}

// What becomes of a message.
const (
	MessageSent      = "sent"      // it lies at the inboxes of all devices that are announced, for ten minutes
	MessageDelivered = "delivered" // a device confirmed it; told for each, of the first maybe before it is sent to all
	MessageFailed    = "failed"    // it is not tried any more
)

// MessageState says what became of a message that was sent.
type MessageState struct {
	ID      string `json:"id"`
	To      string `json:"to"`                // Jami Id
	State   string `json:"state"`             // MessageSent, MessageDelivered or MessageFailed
	Device  string `json:"device,omitempty"`  // long id of who confirmed it
	Devices int    `json:"devices,omitempty"` // how many it was sent to
	Why     string `json:"why,omitempty"`     // it failed, for a person
}

// The subjects of messages, where there is no connection.
var (
	MessageSendCmd = command[MessageSend, MessageQueued]("identity", "message.send", "{account}.identity.message.send", "write to all devices of an account", RightMessages)
	MessageEvents  = event[Message]("identity", "message.received", "{account}.identity.event.message.{contact}", "somebody wrote to the account", RightMessages)
	MessageStates  = event[MessageState]("identity", "message.state", "{account}.identity.event.sent.{contact}", "a message was sent, confirmed or given up", RightMessages)
)
