package contract

import "time"

// Account is what the node's account shows of itself.
type Account struct {
	ID          string `json:"id"`     // Jami Id, 40 hex
	Alias       string `json:"alias"`  // display name
	DeviceID    string `json:"device"` // long device id, 64 hex
	DeviceShort string `json:"device_short"`
	Rendezvous  bool   `json:"rendezvous"`       // may anyone call a room at any time
	Archive     string `json:"archive"`          // "plain", "password", "locked": with one that the node doesn't have, or "server": none, it is managed
	Server      string `json:"server,omitempty"` // URL of the account server that manages it
	Name        string `json:"name,omitempty"`   // registered at a name server
	Ended       bool   `json:"ended,omitempty"`  // it, or this device of it, was revoked: it signs nothing more
	Note        string `json:"note,omitempty"`   // what the operator should know or do
}

// AccountChange sets what is not nil.
type AccountChange struct {
	Alias      *string `json:"alias,omitempty"`
	Rendezvous *bool   `json:"rendezvous,omitempty"`
	Name       *string `json:"name,omitempty"` // that was registered at a name server
}

// IdentityState is what identity is doing before an account is there.
type IdentityState struct {
	State   string  `json:"state"`            // "creating", "ready", "damaged", or "retrying" while the disk refuses
	Message string  `json:"message"`          // for a person
	Account Account `json:"account,omitzero"` // the main one: its id is the {account} of rooms
	// Accounts are all of the node, the main one first.
	Accounts []Account `json:"accounts,omitempty"`
	Unusable []string  `json:"unusable,omitempty"` // accounts beside these that cannot be used: where they are, and why
	SealKey  []byte    `json:"seal_key"`           // X25519 public key for [Sealed]; another one after each start of identity
}

// KeyName names a private key that identity holds.
type KeyName string

// Keys that identity signs and decrypts with.
const (
	KeyDevice  KeyName = "device"
	KeyAccount KeyName = "account"
)

// SignRequest asks for an RSA signature of a digest.
type SignRequest struct {
	Key    KeyName `json:"key"`
	Hash   string  `json:"hash"`   // "SHA-256", "SHA-384", "SHA-512"
	Scheme string  `json:"scheme"` // "pkcs1" or "pss" (salt as long as the hash)
	Digest []byte  `json:"digest"`
}

// SignReply carries the signature.
type SignReply struct {
	Signature []byte `json:"signature"`
}

// DecryptRequest asks for the session key in one RSA block, PKCS #1 v1.5, as values that
// are encrypted to a device begin with. A wrong padding gets a random key in answer, so that
// nobody learns of it.
type DecryptRequest struct {
	Key     KeyName `json:"key"`
	Cipher  []byte  `json:"cipher"`  // as long as the key's modulus
	Session int     `json:"session"` // bytes of the session key, 16 to 32
}

// DecryptReply carries the session key.
type DecryptReply struct {
	Clear []byte `json:"clear"`
}

// Certificates holds the PEM chain device, account, CA, and what the account
// signed about this device. All of it is public.
type Certificates struct {
	DevicePEM    string   `json:"device_pem"`
	AccountPEM   string   `json:"account_pem"`          // account certificate, then its CA
	Announcement []byte   `json:"announcement"`         // packed DHT value with id 0, from the device receipt
	CRL          []byte   `json:"crl,omitempty"`        // the account's newest revocation list, in DER
	OlderCRLs    [][]byte `json:"older_crls,omitempty"` // those that name what the newest does not
	// Authorities are the lists of the authorities above the account.
	Authorities []RevocationList `json:"authorities,omitempty"`
}

// Bot is a bot that the operator made.
type Bot struct {
	Name    string     `json:"name"`
	Room    string     `json:"room"`
	Rights  []Right    `json:"rights"`
	Created time.Time  `json:"created"`
	Revoked *time.Time `json:"revoked,omitempty"`
}

// BotCreate asks for credentials. The private half of UserKey stays with the
// asker: it never crosses the bus.
type BotCreate struct {
	Name    string  `json:"name"`
	Room    string  `json:"room"`
	Rights  []Right `json:"rights"`
	UserKey string  `json:"user_key"` // public nkey of the bot, "U…"
}

// BotCredentials is what a bot connects with, beside its own seed.
type BotCredentials struct {
	Bot
	JWT         string   `json:"jwt"`
	URL         string   `json:"url"`
	InboxPrefix string   `json:"inbox_prefix"` // "_INBOX": a bot has a NATS account of its own
	Publish     []string `json:"publish"`
	Subscribe   []string `json:"subscribe"`
	// Access is how the bus is reached and verified from another machine.
	Access BusAccess `json:"access"`
}

// BotName names a bot.
type BotName struct {
	Name string `json:"name"`
}

// BotList is every bot that is let in, and the last ones that were revoked.
type BotList struct {
	Bots []Bot `json:"bots"`
}

// BusGrant asks the bus for a NATS account for one bot, with imports for just
// its subjects, and a user in it.
type BusGrant struct {
	Account string  `json:"account"` // Jami Id, the subjects' account token
	Bot     string  `json:"bot"`
	Room    string  `json:"room"`
	Rights  []Right `json:"rights"`
	UserKey string  `json:"user_key"`
}

// BusGranted is the answer to it.
type BusGranted struct {
	JWT       string   `json:"jwt"`
	URL       string   `json:"url"`
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`

	Access BusAccess `json:"access"`
}

// Connected is who has a connection to the bus now: bots by name, and what
// connects as a process of the node by the name of its connection.
type Connected struct {
	Life  string   `json:"life"` // of the bus: another one after each of its starts
	Names []string `json:"names"`
}

// The subjects of identity and of the bus process.
var (
	IdentityGet   = query[None, IdentityState]("identity", "identity.state", "node.identity.state", "the account, or how far its creation is", "")
	IdentityReady = event[IdentityState]("identity", "identity.changed", "node.identity.event.changed", "the account was created or its settings changed", "")
	AccountSet    = command[AccountChange, Account]("identity", "account.set", "{account}.identity.account.set", "change the account's settings", "")
	IdentityCerts = query[None, Certificates]("identity", "identity.certificates", "{account}.identity.certificates", "the PEM chain of this device", "")
	IdentitySign  = query[SignRequest, SignReply]("identity", "identity.sign", "{account}.identity.sign.{caller}", "sign a digest; which key a caller may use is identity's policy", "")
	IdentityOpen  = query[DecryptRequest, DecryptReply]("identity", "identity.decrypt", "{account}.identity.decrypt.{caller}", "decrypt a session key that was encrypted to a key", "")
	BotCreateCmd  = command[BotCreate, BotCredentials]("identity", "bot.create", "{account}.identity.bot.create", "make a bot's credentials", "")
	BotListCmd    = query[None, BotList]("identity", "bot.list", "{account}.identity.bot.list", "list bots", "")
	BotRevoke     = command[BotName, Bot]("identity", "bot.revoke", "{account}.identity.bot.revoke", "revoke a bot: it is disconnected at once, one that is not in the list too", "")
	BusGrantBot   = command[BusGrant, BusGranted]("bus", "bus.bot.grant", "node.bus.bot.grant", "let a bot in; identity alone may ask", "")
	BusRevokeBot  = command[BotName, None]("bus", "bus.bot.revoke", "node.bus.bot.revoke", "shut a bot out; identity alone may ask", "")
	BusConnected  = event[Connected]("bus", "bus.connected", "node.bus.connected", "who is connected, once a second", "")
)
