package contract

// DHTValue is a value stored under a key. Key is hex; a text that is not 40 hex
// digits is hashed with SHA-1 first, as OpenDHT's proxy does.
type DHTValue struct {
	Key    string `json:"key"`
	ID     uint64 `json:"id,string"` // 0: chosen by the node
	Type   uint16 `json:"type"`
	Data   []byte `json:"data"`
	Writer string `json:"writer"` // peer that stored it, as the overlay names it
	TTLMs  int64  `json:"ttl_ms"` // time left to live
	// Peers, in the answer to a put, is how many peers were asked to keep it; 0:
	// none is known, this node alone has it and hands it on to the first it meets.
	Peers int `json:"peers,omitempty"`
}

// DHTPut stores a value.
type DHTPut struct {
	Value     DHTValue `json:"value"`
	Permanent bool     `json:"permanent"` // refresh until it is cancelled
}

// DHTKey names a key, or asks for its values.
type DHTKey struct {
	Key string `json:"key"`
	// SoonMs has a get answered so long after the first value was found, 1 to 10,000 ms, with
	// what has been found until then; 0: when the search has ended, for which it waits some
	// seconds for each node that has gone.
	SoonMs int `json:"soon_ms,omitempty"`
}

// DHTValues is what was found.
type DHTValues struct {
	Values []DHTValue `json:"values"`
}

// DHTCancel ends a permanent put.
type DHTCancel struct {
	Key string `json:"key"`
	ID  uint64 `json:"id,string"`
}

// DHTListen starts or renews the delivery of changes under a key as events; it
// ends by itself TTLMs after the last renewal.
type DHTListen struct {
	Key   string `json:"key"`
	TTLMs int64  `json:"ttl_ms"`
}

// DHTListening answers DHTListen with the subject token and what is there now.
type DHTListening struct {
	Key    string     `json:"key"` // 40 hex
	Values []DHTValue `json:"values"`
}

// DHTChange is one change under a key that is listened to.
type DHTChange struct {
	Value   DHTValue `json:"value"`
	Expired bool     `json:"expired"`
}

// DHTPresence is whether a Jami Id has a device online.
type DHTPresence struct {
	ID     string `json:"id"`
	Online bool   `json:"online"`
}

// DHTNode describes this node in its overlay.
type DHTNode struct {
	Overlay   string   `json:"overlay"`
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"`
	Public    []string `json:"public"` // IP addresses under which most others see this node
	Peers     int      `json:"peers"`
	Stored    int      `json:"stored"`
}

// The subjects of dht.
var (
	DHTPutCmd      = command[DHTPut, DHTValue]("dht", "dht.put", "{account}.dht.put", "store a value", "")
	DHTCancelCmd   = command[DHTCancel, None]("dht", "dht.cancel", "{account}.dht.cancel", "stop refreshing a permanent value", "")
	DHTGetCmd      = query[DHTKey, DHTValues]("dht", "dht.get", "{account}.dht.get", "find the values of a key", "")
	DHTListenCmd   = command[DHTListen, DHTListening]("dht", "dht.listen", "{account}.dht.listen", "deliver changes of a key as events", "")
	DHTChanged     = event[DHTChange]("dht", "dht.changed", "{account}.dht.event.changed.{key}", "a value was stored or expired", "")
	DHTPresenceGet = query[DHTPresence, DHTPresence]("dht", "dht.presence", "{account}.dht.presence", "is this Jami Id online", "")
	DHTNodeGet     = query[None, DHTNode]("dht", "dht.node", "{account}.dht.node", "this node's place in the overlay", "")
)
