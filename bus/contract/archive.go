package contract

// Sealed is what the bus may carry of a secret: bytes that only identity can read
// (in a request), or only who asked (in an answer).
//
// A request's are the JSON of a [Secret], encrypted to the public key of the node's
// device in OpenDHT's form: RSA of an AES-256 key, then IV, AES-GCM and tag. An
// answer's are IV, AES-256-GCM and tag with the secret's Reply as the key.
type Sealed struct {
	Cipher []byte `json:"cipher"`
}

// Secret is inside a [Sealed] request. For is the name of the command that it is
// for: for another one it is refused.
type Secret struct {
	For      string `json:"for"`
	Password []byte `json:"password,omitempty"` // opens the account's archive; empty: identity has it, or there is none
	New      []byte `json:"new,omitempty"`      // of the exported file, or from now on; empty: none
	Reply    []byte `json:"reply,omitempty"`    // AES-256 key for the answer
	Device   string `json:"device,omitempty"`   // that is revoked, by its long or short id
	// Certificate is PEM of that device, for one that the node has not heard of.
	Certificate string `json:"certificate,omitempty"`
}

// The commands of the archive.
var (
	ArchiveExport   = query[Sealed, Sealed]("identity", "archive.export", "{account}.identity.archive.export", "the account's archive as a file; sealed both ways", "")
	ArchivePassword = command[Sealed, Account]("identity", "archive.password", "{account}.identity.archive.password", "set, change or remove the archive's password; sealed", "")
)
