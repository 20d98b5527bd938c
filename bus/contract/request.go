package contract

// ContactRequest asks the account to be somebody's contact, and waits for an answer. What
// it says of a name is the asker's own word: the id alone tells who asks.
type ContactRequest struct {
	ID           string `json:"id"`       // Jami Id of who asks
	Name         string `json:"name"`     // from the vCard that came along; empty: none, or another device of the account received it
	Received     int64  `json:"received"` // unix seconds
	Conversation string `json:"conversation,omitempty"`
}

// ContactRequests are all that wait, the latest first.
type ContactRequests struct {
	Requests []ContactRequest `json:"requests"`
}

// RequestAnswer is "accept", "refuse" or "block".
type RequestAnswer struct {
	ID     string `json:"id"`
	Answer string `json:"answer"`
}

// The subjects of requests. What is confirmed is told as a change of the contact.
var (
	RequestList      = query[None, ContactRequests]("identity", "request.list", "{account}.identity.request.list", "who asks to be a contact", "")
	RequestAnswerCmd = command[RequestAnswer, Contact]("identity", "request.answer", "{account}.identity.request.answer", "accept or refuse a request, or block who asks; answered when that is on disk", "")

	RequestEvents = event[ContactRequest]("identity", "request.received", "{account}.identity.event.request", "somebody asks to be a contact of the account", "")
)
