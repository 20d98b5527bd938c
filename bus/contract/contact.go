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

// ContactPage is how many contacts a page holds at most, so that it stays below the largest
// message of the bus (1 MiB).
const ContactPage = 2000

// ContactQuery asks for a page of the list, which is sorted by id.
type ContactQuery struct {
	After  string `json:"after,omitempty"`  // the page begins behind this id; empty: with the first
	Limit  int    `json:"limit,omitempty"`  // 1 to 2,000, which is the default
	Banned bool   `json:"banned,omitempty"` // only those
}

// Contacts is a page of the list, removed and banned ones too.
type Contacts struct {
	Contacts []Contact `json:"contacts"`
	Next     string    `json:"next,omitempty"` // After of the next page; empty: this is the last
	Total    int       `json:"total"`          // of the list, whatever was asked for
	Revision uint64    `json:"revision"`       // of the last change that is in it for sure
}

// ContactChanged says how a contact is now: the change is on disk. Revision grows by one
// with each; who sees a gap, or an event without an id, reads the list again.
type ContactChanged struct {
	Contact  Contact `json:"contact"`
	Revision uint64  `json:"revision"`
}

// ContactChange is "add", "remove", "block" or "unblock" of a contact.
type ContactChange struct {
	ID     string `json:"id"`
	Change string `json:"change"`
}

// The subjects of contacts.
var (
	ContactList   = query[ContactQuery, Contacts]("identity", "contact.list", "{account}.identity.contact.list", "the account's contacts, by pages", "")
	ContactSetCmd = command[ContactChange, Contact]("identity", "contact.set", "{account}.identity.contact.set", "add, remove, block or unblock a contact; answered when that is on disk", "")

	ContactEvents = event[ContactChanged]("identity", "contact.changed", "{account}.identity.event.contact", "a contact was added, removed, blocked, unblocked or confirmed, here or on another device of the account", "")
)
