package contract

// Presence is whether a contact has a device online, as this node sees it: its account
// announces one whose certificates are good, and nobody revoked it.
type Presence struct {
	ID     string `json:"id"` // Jami Id
	Online bool   `json:"online"`
	Since  int64  `json:"since"` // unix seconds; this node says so since then
}

// Presences are the contacts of whom it is known. Those who were added just now, and who
// are beyond what a node follows, are not among them.
type Presences struct {
	Contacts []Presence `json:"contacts"` // sorted by id
	// Followed is how many of the account's contacts the node follows: at most 512 of all
	// accounts together; first those who confirmed, of these who was added last.
	Followed int    `json:"followed"`
	Active   int    `json:"active"`   // contacts that the account has
	Revision uint64 `json:"revision"` // of the last change that is in it for sure
}

// PresenceChanged says that a contact came or went, or that this node knows of it for the
// first time since it started. Revision grows by one with each change of the account's contacts;
// who sees a gap asks for all again.
type PresenceChanged struct {
	Presence
	Revision uint64 `json:"revision"`
}

// The subjects of presence.
var (
	PresenceList   = query[None, Presences]("dht", "presence.list", "{account}.dht.presence.list", "which contacts are online", RightPresence)
	PresenceEvents = event[PresenceChanged]("dht", "presence.changed", "{account}.dht.event.presence.{contact}", "a contact came online or went offline", RightPresence)
)
