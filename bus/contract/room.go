package contract

import "time"

// Role is what a participant may do.
type Role string

// The roles, from most to least.
const (
	RoleModerator Role = "moderator"
	RoleSpeaker   Role = "speaker"
	RoleListener  Role = "listener"
)

// ParticipantKind is what a participant came with.
type ParticipantKind string

// The kinds of participants.
const (
	KindBrowser ParticipantKind = "browser"
	KindSIP     ParticipantKind = "sip"
	KindJami    ParticipantKind = "jami"
	KindBot     ParticipantKind = "bot"
)

// Participant is somebody in a room.
type Participant struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`
	Kind       ParticipantKind `json:"kind"`
	JamiID     string          `json:"jami_id,omitempty"`     // of the account whose device it proved to be; 40 hex
	JamiDevice string          `json:"jami_device,omitempty"` // long id of that device, where it called as a Jami peer; 64 hex
	Role       Role            `json:"role"`
	Muted      bool            `json:"muted"`
	MutedBy    string          `json:"muted_by,omitempty"` // participant id of the moderator who muted
	Speaking   bool            `json:"speaking"`
	Hand       *time.Time      `json:"hand,omitempty"` // since when it is raised
	Transport  string          `json:"transport"`
	Codec      string          `json:"codec"`
	Joined     time.Time       `json:"joined"`
	Connected  bool            `json:"connected"` // audio has been received
	Quality    LegQuality      `json:"quality,omitzero"`
	Worker     string          `json:"worker,omitempty"`
	Signalling string          `json:"signalling,omitempty"` // connect process that signals for it
}

// RoomSettings is what an operator or a moderator decides.
type RoomSettings struct {
	Name        string `json:"name"`  // 1 to 64 of a-z, 0-9 and -
	Title       string `json:"title"` // for people
	HasPIN      bool   `json:"has_pin"`
	Locked      bool   `json:"locked"`
	SIPAuth     bool   `json:"sip_auth"`     // SIP callers prove user = room, password = PIN by digest
	DefaultRole Role   `json:"default_role"` // "speaker", or "listener" in large rooms
	Max         int    `json:"max"`          // participants; 0: no limit
	// Account is the Jami Id of the account whose room it is: it is called there, and signs
	// the chat. Empty: the node's main one.
	Account string `json:"account,omitempty"`
}

// Room is a room's state. Revision grows with each change. Of more than
// [RosterMax] participants the list holds the moderators, who speaks, who has a hand
// raised and the asker first; Total counts all. While very many come at once the answers to their joins list fewer.
type Room struct {
	RoomSettings
	Total        int           `json:"total"`
	Created      time.Time     `json:"created"`
	Revision     uint64        `json:"revision"`
	Conversation string        `json:"conversation,omitempty"`
	Participants []Participant `json:"participants"`
	// ModeratorToken is shown to operators only.
	ModeratorToken string `json:"moderator_token,omitempty"`
}

// RosterMax is how many participants a room's list holds at most, so that it
// stays below the largest message of the bus (1 MiB).
const RosterMax = 2000

// RoomCreate makes a room.
type RoomCreate struct {
	Name        string `json:"name"`
	Title       string `json:"title,omitempty"`
	PIN         string `json:"pin,omitempty"` // 4 to 12 digits
	SIPAuth     bool   `json:"sip_auth,omitempty"`
	DefaultRole Role   `json:"default_role,omitempty"`
	Max         int    `json:"max,omitempty"`
	Account     string `json:"account,omitempty"` // Jami Id of one of the node's accounts; empty: the main one
}

// RoomRef names a room.
type RoomRef struct {
	Room string `json:"room"`
}

// RoomList is every room.
type RoomList struct {
	Rooms []Room `json:"rooms"`
	Next  string `json:"next,omitempty"` // After of the next page; empty: this is the last
}

// RoomPage is how many rooms a page holds at most, so that it stays below the largest message
// of the bus (1 MiB).
const RoomPage = 1000

// RoomQuery asks for a page of the list, which is sorted by name.
type RoomQuery struct {
	After string `json:"after,omitempty"` // the page begins behind this name; empty: with the first
}

// RoomFace is what a stranger may know of a room before joining.
type RoomFace struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	PIN     bool   `json:"pin"`
	Locked  bool   `json:"locked"`
	SIPAuth bool   `json:"sip_auth"`
	Account string `json:"account,omitempty"` // as in [RoomSettings]
}

// SIPSecret answers connect with H(room ":" realm ":" PIN) in hex (RFC 3261 §22,
// RFC 8760), so that the PIN itself stays in conference.
type SIPSecret struct {
	Realm     string `json:"realm"`
	HA1       string `json:"ha1"`        // H = MD5
	HA1SHA256 string `json:"ha1_sha256"` // H = SHA-256
}

// Join asks to enter a room. The caller token of the subject is the participant
// id: connect makes a random one for each browser and phone; a bot's is its name.
type Join struct {
	Name       string          `json:"name"` // 1 to 64 characters
	Kind       ParticipantKind `json:"kind"`
	PIN        string          `json:"pin,omitempty"`
	Token      string          `json:"token,omitempty"`       // moderator token of the room's link
	JamiID     string          `json:"jami_id,omitempty"`     // connect checked the device's certificates; not of browsers and bots
	JamiDevice string          `json:"jami_device,omitempty"` // long id of that device, of a Jami peer; 64 hex
	Verified   bool            `json:"verified,omitempty"`    // connect checked the SIP digest
	Source     string          `json:"source,omitempty"`      // IP that the signalling comes from; guesses of a PIN are slowed by it
	Unproved   bool            `json:"unproved,omitempty"`    // Source may be forged: nothing is sent there before room.confirm
	Transport  Transport       `json:"transport"`
	Offer      string          `json:"offer,omitempty"`
	Muted      bool            `json:"muted,omitempty"`
	Signalling string          `json:"signalling,omitempty"`
	Signalled  *Signalled      `json:"signalled,omitempty"` // shown to operators
	// By is who calls this one in: a moderator, the operator or a bot with the right. The seat is
	// reserved, the offer comes back, and the answer to it (room.negotiate) takes the seat.
	By string `json:"by,omitempty"`
}

// Joined answers it. A phone gets no list of participants but itself.
type Joined struct {
	Participant Participant `json:"participant"`
	SDP         string      `json:"sdp,omitempty"`
	Room        Room        `json:"room"`
	Seq         uint64      `json:"seq"` // events after this one are not in Room yet
}

// Negotiate brings a new offer or a late answer for the caller's leg.
type Negotiate struct {
	SDP    string `json:"sdp"` // empty: the node makes the offer, for a Jami peer whose leg is lost or moves
	Answer bool   `json:"answer,omitempty"`
	Was    string `json:"was,omitempty"`    // the node's SDP that the far end has: a leg that is made anew goes on with its SRTP keys, as phones are that take no others
	Source string `json:"source,omitempty"` // IP that the signalling comes from now
	Device string `json:"device,omitempty"` // long id of the Jami device that took a call of ours, 64 hex

	// Signalled is of whom took a call of ours; it is shown to operators.
	Signalled *Signalled `json:"signalled,omitempty"`
}

// Negotiated is the answer to it.
type Negotiated struct {
	SDP string `json:"sdp,omitempty"`
}

// Target is a participant that a command is about; empty means the caller.
type Target struct {
	Participant string `json:"participant,omitempty"`
}

// MuteChange mutes or unmutes. Who was muted by a moderator can unmute only
// when a moderator allows it.
type MuteChange struct {
	Participant string `json:"participant,omitempty"`
	Muted       bool   `json:"muted"`
}

// RoleChange gives a role.
type RoleChange struct {
	Participant string `json:"participant"`
	Role        Role   `json:"role"`
}

// HandChange raises or lowers the caller's hand, or, by a moderator, lowers another's.
type HandChange struct {
	Participant string `json:"participant,omitempty"`
	Raised      bool   `json:"raised"`
}

// LockChange locks the room for newcomers.
type LockChange struct {
	Locked bool `json:"locked"`
}

// Leave ends the caller's stay.
type Leave struct {
	Reason string `json:"reason,omitempty"`
}

// Replay asks for past events: from a sequence, or from a time.
type Replay struct {
	From  uint64     `json:"from,omitempty"` // first sequence wanted
	Since *time.Time `json:"since,omitempty"`
	Limit int        `json:"limit,omitempty"` // 1 to 500, 100 by default
}

// Replayed is a page of events.
type Replayed struct {
	Events []RoomEvent `json:"events"`
	Next   uint64      `json:"next"` // From of the next page
	More   bool        `json:"more"`
}

// Lease asks to be the one replica of a bot that serves the room, or renews.
type Lease struct {
	Instance string `json:"instance"` // chosen by the replica, unique
	TTLMs    int64  `json:"ttl_ms"`   // 1,000 to 60,000
	Release  bool   `json:"release,omitempty"`
}

// Leased says who holds the lease.
type Leased struct {
	Held   bool   `json:"held"` // the asker holds it
	Holder string `json:"holder"`
	Epoch  uint64 `json:"epoch"` // grows with each change of holder
	TTLMs  int64  `json:"ttl_ms"`
}

// EventType says what happened in a room.
type EventType string

// The events of a room.
const (
	EventJoined  EventType = "joined"  // Participant
	EventLeft    EventType = "left"    // Participant, Reason
	EventChanged EventType = "changed" // Participant: mute, role, hand, name, codec
	EventVoice   EventType = "voice"   // Participant.Speaking began or stopped
	EventRoom    EventType = "room"    // Room settings changed
	EventChat    EventType = "chat"    // Chat
	EventDigit   EventType = "digit"   // Participant, Digit
	EventMedia   EventType = "media"   // Participant's audio must be negotiated again: Reason
	EventQuality EventType = "quality" // Qualities, every 2 s, not replayed (Seq 0)
	EventClosed  EventType = "closed"  // the room was removed or the node stops: Reason
)

// KeptEvents are the events that have a sequence and that the stream of room
// events keeps for replay: all but quality.
var KeptEvents = []EventType{EventJoined, EventLeft, EventChanged, EventVoice, EventRoom, EventChat, EventDigit, EventMedia, EventClosed}

// RoomEventTypes are all of them.
var RoomEventTypes = append([]EventType{EventQuality}, KeptEvents...)

// Right returns what a bot must have been granted to see events of this type. Who
// may not see them finds their numbers by replay, without what they say.
func (t EventType) Right() Right {
	if t == EventChat {
		return RightChat
	}
	return RightAny
}

// Reasons why somebody left.
const (
	ReasonLeft     = "left"
	ReasonKicked   = "kicked"
	ReasonLost     = "lost"
	ReasonShutdown = "shutdown"
	ReasonRemoved  = "removed"
	ReasonRevoked  = "revoked"
	ReasonBanned   = "banned"
)

// RoomEvent is one fact. Seq counts the room's events without gaps (0: this
// event is not kept); Time is when it happened.
type RoomEvent struct {
	Seq         uint64                `json:"seq"`
	Time        time.Time             `json:"time"`
	Room        string                `json:"room"`
	Type        EventType             `json:"type"`
	By          string                `json:"by,omitempty"` // participant who caused it
	Participant *Participant          `json:"participant,omitempty"`
	Settings    *RoomSettings         `json:"settings,omitempty"`
	Chat        *ChatMessage          `json:"chat,omitempty"`
	Digit       string                `json:"digit,omitempty"`
	Reason      string                `json:"reason,omitempty"`
	Qualities   map[string]LegQuality `json:"qualities,omitempty"`
}

// Operator is the caller token of the command line and the operator's page.
const Operator = "operator"

// The subjects of rooms, served by conference.
var (
	RoomCreateCmd = command[RoomCreate, Room]("conference", "room.create", "{account}.conference.create", "make a room", "")
	RoomRemoveCmd = command[RoomRef, None]("conference", "room.remove", "{account}.conference.remove", "end a room and forget it; its chat stays in Git", "")
	WorkerList    = query[None, Workers]("conference", "worker.list", "{account}.conference.workers", "the media workers", "")
	WorkerDrain   = command[Drain, Worker]("conference", "worker.drain", "{account}.conference.workers.{worker}.drain", "have a media worker's participants go to others", "")
	RoomListCmd   = query[RoomQuery, RoomList]("conference", "room.list", "{account}.conference.list", "the rooms with their participants, by pages", "")
	RoomFaceCmd   = query[RoomRef, RoomFace]("conference", "room.face", "{account}.conference.face", "what a stranger may know", "")
	RoomSIPSecret = query[SIPSecret, SIPSecret]("conference", "room.sip", "{account}.conference.{room}.sip", "the digest secret of a room", "")

	RoomJoin      = command[Join, Joined]("conference", "room.join", "{account}.room.{room}.cmd.{caller}.join", "enter the room", RightAny)
	RoomLeave     = command[Leave, None]("conference", "room.leave", "{account}.room.{room}.cmd.{caller}.leave", "leave the room", RightAny)
	RoomGet       = query[None, Joined]("conference", "room.get", "{account}.room.{room}.cmd.{caller}.get", "the room as it is now; for a participant also who one is", RightAny)
	RoomNegotiate = command[Negotiate, Negotiated]("conference", "room.negotiate", "{account}.room.{room}.cmd.{caller}.negotiate", "negotiate one's audio again", "")
	RoomConfirm   = command[None, None]("conference", "room.confirm", "{account}.room.{room}.cmd.{caller}.confirm", "the caller has repeated what only it was told: its source is its own", "")
	RoomReplay    = query[Replay, Replayed]("conference", "room.replay", "{account}.room.{room}.cmd.{caller}.replay", "past events", RightAny)
	RoomLease     = command[Lease, Leased]("conference", "room.lease", "{account}.room.{room}.cmd.{caller}.lease", "be the one replica that serves", RightAny)
	RoomHand      = command[HandChange, Participant]("conference", "room.hand", "{account}.room.{room}.cmd.{caller}.hand", "raise or lower a hand", RightAny)
	RoomMute      = command[MuteChange, Participant]("conference", "room.mute", "{account}.room.{room}.cmd.{caller}.mute", "mute or unmute oneself or, by a moderator, another", RightAny)
	RoomListen    = command[Listen, Listen]("conference", "room.listen", "{account}.room.{room}.cmd.{caller}.listen", "have audio delivered over the bus; renew before it ends", RightListen)
	RoomChat      = command[ChatPost, ChatMessage]("conference", "room.chat", "{account}.room.{room}.cmd.{caller}.chat", "write to the chat; acknowledged when it is committed", RightChat)
	RoomHistory   = query[ChatQuery, ChatHistory]("conference", "room.history", "{account}.room.{room}.cmd.{caller}.history", "read the chat", RightChat)
	RoomKick      = command[Target, None]("conference", "room.kick", "{account}.room.{room}.cmd.{caller}.kick", "put somebody out", RightModerate)
	RoomRole      = command[RoleChange, Participant]("conference", "room.role", "{account}.room.{room}.cmd.{caller}.role", "give a role", RightModerate)
	RoomLock      = command[LockChange, RoomSettings]("conference", "room.lock", "{account}.room.{room}.cmd.{caller}.lock", "lock or open the room", RightModerate)

	RoomEvents = event[RoomEvent]("conference", "room.event", "{account}.room.{room}.event.{type}", "what happened in the room", RightAny)
)
