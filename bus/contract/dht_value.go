package contract

// DHTSeal asks identity for a value of the DHT that the account's device signs, and, when
// it is for somebody, encrypts. Only whole values are signed, never digests.
type DHTSeal struct {
	Type     uint16 `json:"type"`
	Data     []byte `json:"data"`
	UserType string `json:"user_type,omitempty"`
	ID       uint64 `json:"id,string"` // 0: chosen
	Seq      uint16 `json:"seq"`       // of a signed value: higher than that of the one that it replaces
	// To is the Jami Id of who is to read it; empty: anybody.
	To string `json:"to,omitempty"`
}

// DHTSealed is the values to put: one, or one for each device of the recipient.
type DHTSealed struct {
	Values []DHTPacked `json:"values"`
	// Missing counts devices of the recipient whose certificate is not to be had now.
	Missing int `json:"missing"`
}

// DHTPacked is a packed value of OpenDHT.
type DHTPacked struct {
	Packed []byte `json:"packed"`
	Device string `json:"device,omitempty"` // long id of the device that can read it
}

// DHTOpen asks identity to decrypt a packed value that may be for the account's device.
type DHTOpen struct {
	Packed []byte `json:"packed"`
}

// The subjects of values that identity signs and opens for the operator.
var (
	DHTSealCmd = query[DHTSeal, DHTSealed]("identity", "value.seal", "{account}.identity.value.seal", "sign a value of the DHT with the account's device, and encrypt it", "")
	DHTOpenCmd = query[DHTOpen, DHTPacked]("identity", "value.open", "{account}.identity.value.open", "decrypt a value of the DHT that is for the account's device", "")
)
