package contract

// Sealed is what the bus may carry of a secret: bytes that only identity can read
// (in a request), or only who asked (in an answer).
//
// A request's are the JSON of a [Secret], by HPKE (RFC 9180: X25519, HKDF-SHA256,
// AES-256-GCM) to the SealKey of [IdentityState], with the command's name as the info.
// An answer's are IV, AES-256-GCM and tag with the secret's Reply as the key.
type Sealed struct {
	Cipher []byte `json:"cipher"`
	// More says, of an answer, that it is a part, and that the next one is asked for with the
	// number of bytes that came so far in [Secret].From. All of them together are opened.
	More bool `json:"more,omitempty"`
}

// Secret is inside a [Sealed] request; each command says which of it it takes.
type Secret struct {
	Password []byte `json:"password,omitempty"` // opens the account's archive; empty: identity has it, or there is none
	New      []byte `json:"new,omitempty"`      // of the exported file, or from now on; empty: none
	Reply    []byte `json:"reply,omitempty"`    // AES-256 key for the answer
	From     int    `json:"from,omitempty"`     // of archive.export: where the wanted part begins, with the Reply of the first
	Device   string `json:"device,omitempty"`   // that is revoked, by its long or short id
	// Certificate is PEM of that device, for one that the node has not heard of.
	Certificate string `json:"certificate,omitempty"`
	Archive     []byte `json:"archive,omitempty"` // that is imported, at most [MaxSealedArchive] bytes
	PIN         string `json:"pin,omitempty"`     // that another device shows
	Name        string `json:"name,omitempty"`    // that is signed
	Server      string `json:"server,omitempty"`  // URL of an account server
	User        string `json:"user,omitempty"`    // of it
	Roots       string `json:"roots,omitempty"`   // PEM of who certifies it; empty: the system's authorities
}

// MaxSealedArchive bounds an archive in a [Secret]: a message of the bus holds 1 MiB.
const MaxSealedArchive = 512 << 10

// The commands of the archive.
var (
	ArchiveExport   = query[Sealed, Sealed]("identity", "archive.export", "{account}.identity.archive.export", "the account's archive as a file, in parts; sealed both ways", "")
	ArchivePassword = command[Sealed, Account]("identity", "archive.password", "{account}.identity.archive.password", "set, change or remove the archive's password; sealed", "")
)
