package contract

// AddressAsk asks a contact's devices for the addresses under which others see them, and tells them this
// node's.
type AddressAsk struct {
	To string `json:"to"` // Jami Id
}

// AddressAsked says how many devices were asked. What they answer is told as [PeerAddresses].
type AddressAsked struct {
	Devices int      `json:"devices"`
	Told    []string `json:"told"` // the addresses that they were told
}

// PeerAddresses are the IP addresses of a contact's device, by its own word: it asked for
// this node's, or answered.
type PeerAddresses struct {
	From      string   `json:"from"`   // Jami Id
	Device    string   `json:"device"` // long id
	Addresses []string `json:"addresses"`
	Answer    bool     `json:"answer"`
}

// The subjects of what devices put for one another.
var (
	AddressAskCmd = command[AddressAsk, AddressAsked]("identity", "address.ask", "{account}.identity.address.ask", "exchange public addresses with a contact's devices", "")
	AddressEvents = event[PeerAddresses]("identity", "address.learned", "{account}.identity.event.address.{contact}", "a contact's device told its addresses", "")
)
