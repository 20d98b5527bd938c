package contract

// Contact is an entry of the account's contact list, as Jami keeps it; times are unix
// seconds, 0: never.
type Contact struct {
	ID           string `json:"id"` // Jami Id
	Active       bool   `json:"active"`
	Banned       bool   `json:"banned"`    // only where it is not active
	Confirmed    bool   `json:"confirmed"` // it accepted
	Added        int64  `json:"added"`
	Removed      int64  `json:"removed"`
	Conversation string `json:"conversation,omitempty"`
}

// Contacts is the whole list, removed and banned ones too.
type Contacts struct {
	Contacts []Contact `json:"contacts"`
}

// ContactChange is "add", "remove", "block" or "unblock" of a contact.
type ContactChange struct {
	ID     string `json:"id"`
	Change string `json:"change"`
}

// The commands of contacts.
var (
	ContactList   = query[None, Contacts]("identity", "contact.list", "{account}.identity.contact.list", "the account's contacts", "")
	ContactSetCmd = command[ContactChange, Contact]("identity", "contact.set", "{account}.identity.contact.set", "add, remove, block or unblock a contact", "")
)
