package contract

import "time"

// ChatMessage is one message of a room's conversation: a commit.
type ChatMessage struct {
	ID     string    `json:"id"` // commit id, 40 hex
	Parent string    `json:"parent"`
	Room   string    `json:"room"`
	From   string    `json:"from"` // participant id, empty for the account itself
	Name   string    `json:"name"` // display name at that time
	Type   string    `json:"type"` // "text/plain"
	Body   string    `json:"body"`
	Reply  string    `json:"reply_to,omitempty"`
	Time   time.Time `json:"time"`
}

// ChatPost writes a message; From and Name are filled in by conference.
type ChatPost struct {
	From  string `json:"from,omitempty"`
	Name  string `json:"name,omitempty"`
	Body  string `json:"body"` // 1 to 8192 bytes of UTF-8
	Reply string `json:"reply_to,omitempty"`
	Key   string `json:"key,omitempty"` // idempotency key, kept in the commit
}

// ChatQuery reads messages, newest last.
type ChatQuery struct {
	Before string `json:"before,omitempty"` // commit id, excluded
	Limit  int    `json:"limit,omitempty"`  // 1 to 200, 50 by default
}

// ChatHistory is a page of messages, oldest first.
type ChatHistory struct {
	Conversation string        `json:"conversation"` // id: the initial commit
	Messages     []ChatMessage `json:"messages"`
	More         bool          `json:"more"` // there are older ones
}

// Conversation is a Git repository that carries a room's chat.
type Conversation struct {
	Room     string `json:"room"`
	ID       string `json:"id"`
	Messages int    `json:"messages"`
}

// The subjects of swarm. Participants and bots chat through the room
// (room.chat, room.history); swarm writes what the room let through.
var (
	SwarmOpen   = command[None, Conversation]("swarm", "swarm.open", "{account}.swarm.{room}.open", "the conversation of a room, made when there is none", "")
	SwarmPost   = command[ChatPost, ChatMessage]("swarm", "swarm.post", "{account}.swarm.{room}.post", "commit a message; the reply comes when it is on disk", "")
	SwarmDetach = command[None, None]("swarm", "swarm.detach", "{account}.swarm.{room}.detach", "take the room's conversation off it: what is said next begins a new one; the repository stays on the disk", "")
	SwarmRead   = query[ChatQuery, ChatHistory]("swarm", "swarm.read", "{account}.swarm.{room}.read", "read a page of messages", "")
)
