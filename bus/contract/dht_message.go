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
	// Conversation and Commit say where it was written, of a message that came by a conversation.
	Conversation string `json:"conversation,omitempty"`
	Commit       string `json:"commit,omitempty"`
	// File is what the message announces: file.get gets it.
	File *FileOffered `json:"file,omitempty"`
}

// MessageSend is what is to be written to somebody.
type MessageSend struct {
	To   string `json:"to"`             // Jami Id
	Type string `json:"type,omitempty"` // a kind of text; text/plain by default
	Body string `json:"body"`           // UTF-8, 1 to [MaxMessage] bytes
	// Direct: it is written to the devices, also where there is a conversation with the account.
	Direct bool `json:"direct,omitempty"`
}

// MessageQueued says under which id a message will be sent. It waits in memory: what became of
// it is told as [MessageState]. One that is in a conversation is on the disk.
type MessageQueued struct {
	ID           string `json:"id"` // 16 hex digits
	Conversation string `json:"conversation,omitempty"`
	Commit       string `json:"commit,omitempty"`
}

// What becomes of a message.
const (
	MessageSent      = "sent"      // it lies at the inboxes of all devices that are announced, for ten minutes, or is in the conversation
	MessageDelivered = "delivered" // a device confirmed or fetched it; told for each, of the first maybe before it is sent to all
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
	MessageSendCmd = command[MessageSend, MessageQueued]("identity", "message.send", "{account}.identity.message.send", "write to all devices of an account, or into the conversation with it", RightMessages)
	MessageEvents  = event[Message]("identity", "message.received", "{account}.identity.event.message.{contact}", "somebody wrote to the account, or in a conversation that it is in", RightMessages)
	MessageStates  = event[MessageState]("identity", "message.state", "{account}.identity.event.sent.{contact}", "a message was sent, confirmed or given up", RightMessages)
)
