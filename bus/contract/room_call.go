package contract

import "time"

// CallOut asks that somebody is called into the room. The caller of the command is a
// moderator of the room, the operator, or a bot with [RightCall].
type CallOut struct {
	To   string `json:"to"`             // a Jami Id (40 hex), or a sip: or sips: URI of a host in sip.call_hosts
	Name string `json:"name,omitempty"` // of the participant, 1 to 64 characters; empty: made of To
}

// CallPlaced answers it: the call has begun. How it goes on is told by room.calling.
type CallPlaced struct {
	Call string `json:"call"` // the id of the participant, if the call is taken
}

// CallEnd ends a call, whether it was taken or not. Who made it may end it before it is
// taken; otherwise it takes a moderator.
type CallEnd struct {
	Call string `json:"call"`
}

// CallState is how far a call of the node's is.
type CallState string

// The states of a call, in order; the last three are its end.
const (
	CallReaching CallState = "reaching" // devices are looked for and connected to
	CallRinging  CallState = "ringing"  // Device rings, or the phone
	CallTaken    CallState = "taken"    // the participant is in the room
	CallRefused  CallState = "refused"  // declined or busy: Status, Reason
	CallFailed   CallState = "failed"   // it was not taken for another reason: Code, Reason
	CallEnded    CallState = "ended"    // it was taken, and is over: Reason as in the event "left"
)

// CallProgress is a step of a call. It is told once, in order, and not replayed.
type CallProgress struct {
	Time   time.Time `json:"time"`
	Room   string    `json:"room"`
	Call   string    `json:"call"`
	To     string    `json:"to"`
	By     string    `json:"by"` // who called: a participant, a bot or "operator"
	State  CallState `json:"state"`
	Device string    `json:"device,omitempty"` // long id of the Jami device that this is about, 64 hex
	Status int       `json:"status,omitempty"` // of SIP, where the other end gave one
	Code   string    `json:"code,omitempty"`   // stable, of failed: as of an error
	Reason string    `json:"reason,omitempty"` // for a person
}

// The errors of calls that the node makes, beside those of every command.
var (
	ErrUnreachable = &Error{Code: "unreachable", Message: "nobody can be reached there now", Retry: true}
	ErrNoAnswer    = &Error{Code: "no_answer", Message: "it rang, and nobody took the call", Retry: true}
	ErrDeclined    = &Error{Code: "declined", Message: "the call was declined"}
	ErrHungUp      = &Error{Code: "hung_up", Message: "the call was given up"}
)

// The subjects of calls that the node makes, served by connect.
var (
	RoomCall    = command[CallOut, CallPlaced]("connect", "room.call", "{account}.room.{room}.cmd.{caller}.call", "call somebody into the room", RightCall)
	RoomHangUp  = command[CallEnd, None]("connect", "room.hangup", "{account}.room.{room}.cmd.{caller}.hangup", "end a call that the node made", RightCall)
	RoomCalling = event[CallProgress]("connect", "room.calling", "{account}.room.{room}.calling.{call}", "how a call that the node makes goes", RightCall)
)
