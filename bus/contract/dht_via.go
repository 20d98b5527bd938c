package contract

import "time"

// DHTVia says how a node without UDP reaches OpenDHT's network.
type DHTVia struct {
	Proxies []DHTProxy `json:"proxies"` // the preferred first
	Since   time.Time  `json:"since"`   // when one came into use, or, with none in use, when the last one ceased to answer
	Peers   int        `json:"peers"`   // that the one in use knows
}

// DHTProxy is a DHT proxy that the settings name.
type DHTProxy struct {
	URL     string `json:"url"`
	InUse   bool   `json:"in_use"`
	Answers bool   `json:"answers"` // when it was last asked
}
