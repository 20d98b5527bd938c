package contract

// AccountCreate says what a new account is called.
type AccountCreate struct {
	Alias string `json:"alias"`
}

// AccountRequested is a request for the certificate of a new account, whose keys identity
// keeps until it comes. A request that nobody answers is forgotten after 90 days.
type AccountRequested struct {
	Request string `json:"request"` // PKCS #10 in PEM
}

// AccountIssued brings the certificate: the account's, then those above it up to one that
// signed itself.
type AccountIssued struct {
	Chain string `json:"chain"` // PEM
}

// AccountRetired says where the files of an account are now.
type AccountRetired struct {
	ID  string `json:"id"`
	Dir string `json:"dir"`
}

// AuthorityList is a revocation list of an authority above the account.
type AuthorityList struct {
	CRL []byte `json:"crl"` // DER
}

// NameClaim is what registers a name for an account at a name server: the account's
// signature of the name.
type NameClaim struct {
	Name      string `json:"name"`
	Owner     string `json:"owner"` // Ethereum address of the account
	Key       []byte `json:"key"`   // the account's public key in DER
	Signature []byte `json:"signature"`
}

// The commands by which a node gets and loses accounts. A first one is the main account.
var (
	AccountCreateCmd = command[AccountCreate, Account]("identity", "account.create", "node.identity.account.create", "make one more account", "")
	AccountRequest   = command[AccountCreate, AccountRequested]("identity", "account.request", "node.identity.account.request", "ask for the certificate of one more account, which an authority is to sign", "")
	AccountComplete  = command[AccountIssued, Account]("identity", "account.complete", "node.identity.account.complete", "make the account of the certificate that was asked for", "")
	AccountImport    = command[Sealed, Account]("identity", "account.import", "node.identity.account.import", "take in one more account from its archive; sealed", "")
	AccountJoin      = command[Sealed, Account]("identity", "account.join", "node.identity.account.join", "become a device of an account that another device of it shows a PIN for; sealed", "")
	AccountEnrol     = command[Sealed, Account]("identity", "account.enrol", "node.identity.account.enrol", "become a device of a user's account at an account server; sealed", "")
	AccountRetire    = command[None, AccountRetired]("identity", "account.retire", "{account}.identity.account.retire", "take an account other than the main one out of use", "")
	AccountCRL       = command[AuthorityList, Account]("identity", "account.crl", "{account}.identity.account.crl", "take a revocation list of an authority above the account", "")
	DeviceLink       = command[Sealed, Sealed]("identity", "device.link", "{account}.identity.device.link", "show a PIN with which another device joins the account; sealed both ways", "")
	NameSign         = query[Sealed, NameClaim]("identity", "name.sign", "{account}.identity.name.sign", "sign a name, to register it; sealed", "")
)
