package contract

import "time"

// Device is one of the account's devices.
type Device struct {
	ID      string    `json:"id"`       // long id, 64 hex
	Short   string    `json:"short_id"` // 40 hex
	Name    string    `json:"name"`     // empty: it told none
	Created time.Time `json:"created"`  // its certificate was
	Seen    time.Time `json:"seen"`     // when this node learnt of it last
	This    bool      `json:"this"`     // the node's own
	Revoked bool      `json:"revoked"`
}

// Devices is every device that the node knows.
type Devices struct {
	Devices []Device `json:"devices"`
}

// DeviceName names the node's own device.
type DeviceName struct {
	Name string `json:"name"`
}

// DeviceRevoked is what came of a revocation.
type DeviceRevoked struct {
	Device
	// Peers of the overlay that were asked to keep the list; 0: none is known, and the
	// node hands it on to the first that it meets.
	Peers int `json:"peers"`
}

// RevocationList is what the account revoked. A holder of what is revoked adds it to that:
// from then on the devices that it names are refused.
type RevocationList struct {
	AccountPEM string   `json:"account_pem"`     // the issuer
	CRL        []byte   `json:"crl"`             // its newest list, in DER
	Older      [][]byte `json:"older,omitempty"` // those that name what the newest does not
}

// The subjects of devices.
var (
	DeviceList     = query[None, Devices]("identity", "device.list", "{account}.identity.device.list", "the account's devices that are known", "")
	DeviceRename   = command[DeviceName, Device]("identity", "device.rename", "{account}.identity.device.rename", "give the node's device a name", "")
	DeviceRevoke   = command[Sealed, DeviceRevoked]("identity", "device.revoke", "{account}.identity.device.revoke", "revoke another device of the account; sealed", "")
	AccountRevoked = event[RevocationList]("identity", "identity.revoked", "{account}.identity.event.revoked", "a device of the account was revoked, here or elsewhere; again when identity starts or finds the bus again", "")
)
