package contract

import "time"

// What a conversation is to an account.
const (
	ConversationReady   = "ready"   // it is here
	ConversationInvited = "invited" // the account is asked to join, and has not answered
	ConversationWanted  = "wanted"  // it is to be fetched from a member
)

// Member is an account in a conversation.
type ConversationMember struct {
	ID   string `json:"id"`   // Jami Id
	Role string `json:"role"` // "admin", "member", "invited" or "banned"
}

// MemberConversation is a conversation of Jami accounts in which one of the node's is.
type MemberConversation struct {
	ID      string               `json:"id"`             // of its first commit, 40 hex digits
	State   string               `json:"state"`          // ConversationReady, ConversationInvited or ConversationWanted
	With    string               `json:"with,omitempty"` // Jami Id of the contact that it is with; of one of two alone
	From    string               `json:"from,omitempty"` // Jami Id of who invited
	Title   string               `json:"title,omitempty"`
	Members []ConversationMember `json:"members,omitempty"`
	Commits int                  `json:"commits,omitempty"`
	Head    string               `json:"head,omitempty"` // newest commit
	Why     string               `json:"why,omitempty"`  // it is not fetched yet, for a person
}

// MemberConversations are those of an account.
type MemberConversations struct {
	Conversations []MemberConversation `json:"conversations"`
}

// ConversationWith names the one conversation of two with an account.
type ConversationWith struct {
	ID string `json:"id"` // Jami Id
}

// ConversationID names a conversation.
type ConversationID struct {
	ID string `json:"id"` // 40 hex digits
}

// ConversationAnswer is "accept" or "refuse".
type ConversationAnswer struct {
	ID     string `json:"id"` // of the conversation
	Answer string `json:"answer"`
}

// ConversationWrite is a message to be committed.
type ConversationWrite struct {
	With string `json:"with,omitempty"` // Jami Id; or
	ID   string `json:"id,omitempty"`   // conversation
	Body string `json:"body"`           // UTF-8, 1 to [MaxMessage] bytes
	// File is announced in the place of a text.
	File *FileOffered `json:"file,omitempty"`
}

// ConversationPost is a commit of a conversation.
type ConversationPost struct {
	ID           string       `json:"id"` // commit
	Conversation string       `json:"conversation"`
	From         string       `json:"from"`   // Jami Id
	Device       string       `json:"device"` // long id, 64 hex
	Type         string       `json:"type"`
	Body         string       `json:"body,omitempty"`
	File         *FileOffered `json:"file,omitempty"`
	Time         time.Time    `json:"time"` // by the sender's clock
}

// ConversationQuery reads a page of a conversation.
type ConversationQuery struct {
	ID     string `json:"id"`
	Before string `json:"before,omitempty"` // commit, excluded
	Limit  int    `json:"limit,omitempty"`  // 1 to 100, 50 by default
}

// ConversationPage is a page, the newest first.
type ConversationPage struct {
	Posts []ConversationPost `json:"posts"`
	More  bool               `json:"more"`
}

// FileAsked asks whether an account may have a file of a conversation.
type FileAsked struct {
	FileRef
	Peer   string `json:"peer"`   // Jami Id
	Device string `json:"device"` // its long id
}

// FileAnnounced is a file that a conversation announces.
type FileAnnounced struct {
	FileOffered
	From string    `json:"from"` // Jami Id of who announced it
	Time time.Time `json:"time"`
}

// FilesAnnounced are files that members announced, the newest first.
type FilesAnnounced struct {
	Files []FileAnnounced `json:"files"`
}

// Notice is what devices tell each other of conversations, beside what people write.
type Notice struct {
	From   string `json:"from"`   // Jami Id
	Device string `json:"device"` // long id of the device that signed it
	Type   string `json:"type"`   // MIME type: one of Notice…
	Body   string `json:"body"`
}

// Types of notices (swarm §3.4, §4.2).
const (
	NoticeCommit = "application/im-gitmessage-id" // there is a new commit
	NoticeInvite = "application/invite+json"      // an invitation
	NoticeAsk    = "application/invite"           // the sender asks to be invited again
)

// NoticeSend is a notice for all devices of an account.
type NoticeSend struct {
	To   string `json:"to"` // Jami Id
	Type string `json:"type"`
	Body string `json:"body"`
}

// PostFetched says that a device has a commit of the account.
type PostFetched struct {
	ID     string `json:"id"`     // of the message, as [MessageQueued] has it
	To     string `json:"to"`     // Jami Id
	Device string `json:"device"` // long id
}

// PeerGit is a conversation that is to be fetched. Its bytes do not cross the bus: connect brings them
// to swarm's socket.
type PeerGit struct {
	Of           string `json:"of"`               // Jami Id of who has it
	Device       string `json:"device,omitempty"` // long id of the device that is meant; empty: any
	Conversation string `json:"conversation"`
	Token        string `json:"token"` // by which swarm knows the channel
}

// PeerGitFrom is the device that the channel goes to.
type PeerGitFrom struct {
	Device string `json:"device"` // long id
}

// The subjects of conversations of Jami accounts.
var (
	ConversationList     = query[None, MemberConversations]("swarm", "conversation.list", "{account}.swarm.member.conversation.list", "the account's conversations with Jami accounts", "")
	ConversationStart    = command[ConversationWith, ConversationID]("swarm", "conversation.start", "{account}.swarm.member.conversation.start", "the conversation with a contact, made where there is none", "")
	ConversationAnswered = command[ConversationAnswer, None]("swarm", "conversation.answer", "{account}.swarm.member.conversation.answer", "join a conversation to which the account was invited, or refuse", "")
	ConversationPut      = command[ConversationWrite, ConversationPost]("swarm", "conversation.write", "{account}.swarm.member.conversation.write", "commit a message and tell the members; answered when it is on the disk; not_found: there is no conversation, or the contact has not joined it", "")
	ConversationRead     = query[ConversationQuery, ConversationPage]("swarm", "conversation.read", "{account}.swarm.member.conversation.read", "read a page of a conversation", "")
	ConversationMay      = query[FileAsked, FileOffered]("swarm", "conversation.file", "{account}.swarm.member.conversation.file", "what a conversation says of a file, if the account that asks is in it", "")
	ConversationFiles    = query[None, FilesAnnounced]("swarm", "conversation.files", "{account}.swarm.member.conversation.files", "the last files that members announced", "")
	PeerGitCmd           = query[PeerGit, PeerGitFrom]("connect", "peer.git", "{account}.connect.peer.git", "have a device of an account serve a conversation to swarm; it may take 25 s", "")
	NoticeSendCmd        = command[NoticeSend, MessageQueued]("identity", "notice.send", "{account}.identity.notice.send", "tell all devices of an account of a conversation", "")
	PostFetchedCmd       = command[PostFetched, None]("identity", "message.fetched", "{account}.identity.message.fetched", "a device has fetched a message of the account", "")
	NoticeEvents         = event[Notice]("identity", "conversation.notice", "{account}.identity.event.notice.{contact}", "a device tells of a conversation", "")
)

// GitSocket is the name of swarm's socket in DATA/run, of type SOCK_SEQPACKET: connect makes a connection there
// for each channel git://DEVICE/CONVERSATION. The first message is a [GitHello]. On a channel that a peer
// opened swarm says "ok" or "no" to it. Then each message is one of the channel, both ways, of at most
// [GitMessage] bytes; the end of one is the end of the other.
const GitSocket = "channels.sock"

// GitMessage bounds a message on the socket, in bytes.
const GitMessage = 65535

// GitHello says what a channel is.
type GitHello struct {
	Account      string `json:"account"`         // of the node
	Conversation string `json:"conversation"`    // 40 hex digits
	Peer         string `json:"peer"`            // Jami Id, as the connection proved it
	Device       string `json:"device"`          // its long id
	Token        string `json:"token,omitempty"` // of [PeerGit]; empty: the peer opened the channel
}
