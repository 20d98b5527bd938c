package contract

// FileRef is which file of which conversation is meant, as Jami names it.
type FileRef struct {
	Conversation string `json:"conversation"` // 40 hex digits
	Commit       string `json:"commit"`       // that announces the file, 40 hex digits
	TID          string `json:"tid"`          // its number there, decimal
}

// FileOffer is a file that accounts may have.
type FileOffer struct {
	Path string   `json:"path"`           // below connect/files/out in the node's data
	Name string   `json:"name,omitempty"` // as people see it; the last part of Path by default
	To   []string `json:"to"`             // Jami Ids, at most 256
	// Conversation is where it is announced to all members; without it, and with one account in To,
	// the one with that account, if there is one.
	Conversation string `json:"conversation,omitempty"`
	// Direct: it is announced nowhere.
	Direct bool `json:"direct,omitempty"`
	// Ref is where it was announced; without one, and without a conversation, the node makes one
	// up, by which only who is told it gets the file.
	Ref *FileRef `json:"ref,omitempty"`
}

// FileOffered is a file that is offered, by an account of the node or by a peer.
type FileOffered struct {
	FileRef
	Name string   `json:"name"`
	Size int64    `json:"size"` // bytes
	SHA3 string   `json:"sha3"` // SHA3-512, 128 hex digits
	Path string   `json:"path,omitempty"`
	To   []string `json:"to,omitempty"` // Jami Ids
}

// FileGet asks for a file of a peer. What of it is there already is not sent again.
type FileGet struct {
	FileRef
	From string `json:"from"` // Jami Id
	Name string `json:"name"` // as people see it: never a path
	Size int64  `json:"size"` // bytes; what is longer or shorter is refused
	SHA3 string `json:"sha3"` // SHA3-512, 128 hex digits
}

// FileID names a transfer.
type FileID struct {
	ID string `json:"id"`
}

// States of a transfer; after the last three nothing follows.
const (
	FileWaiting   = "waiting" // for its turn, or for a device of the peer
	FileRunning   = "running"
	FileDone      = "done"
	FileFailed    = "failed"
	FileCancelled = "cancelled"
)

// FileTransfer is how far a transfer is. It is told at each change of its state, and twice a
// second between.
type FileTransfer struct {
	FileRef
	ID     string `json:"id"`
	Given  bool   `json:"given"`            // the peer gets it; else the account does
	Peer   string `json:"peer"`             // Jami Id
	Device string `json:"device,omitempty"` // long id of the peer's device
	Name   string `json:"name"`
	Size   int64  `json:"size"`  // bytes, as announced
	Bytes  int64  `json:"bytes"` // of them that there are
	State  string `json:"state"`
	Why    string `json:"why,omitempty"`  // it failed, for a person
	Path   string `json:"path,omitempty"` // where it is on the node's disk, when the account has it
}

// Files is what an account offers, and what it gets and got since the process began.
type Files struct {
	Offered   []FileOffered   `json:"offered"`
	Announced []FileAnnounced `json:"announced"` // by members of conversations, the last 100
	Transfers []FileTransfer  `json:"transfers"`
}

// The subjects of files. Their bytes do not cross the bus.
var (
	FileOfferCmd  = command[FileOffer, FileOffered]("connect", "file.offer", "{account}.connect.file.offer", "let accounts have a file; it is read once before the answer, 1 GiB in some seconds", RightFiles)
	FileRemoveCmd = command[FileRef, None]("connect", "file.remove", "{account}.connect.file.remove", "no longer offer a file; it stays on the disk", RightFiles)
	FileGetCmd    = command[FileGet, FileID]("connect", "file.get", "{account}.connect.file.get", "get a file of a peer; what becomes of it is told as file.transfer", RightFiles)
	FileCancelCmd = command[FileID, None]("connect", "file.cancel", "{account}.connect.file.cancel", "end the transfer of a file that the account gets, and remove what there is of it", RightFiles)
	FileListCmd   = query[None, Files]("connect", "file.list", "{account}.connect.file.list", "what the account offers and gets", RightFiles)
	FileTransfers = event[FileTransfer]("connect", "file.transfer", "{account}.connect.event.file.{contact}", "how far a transfer is", RightFiles)
)
