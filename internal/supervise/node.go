package supervise

import "time"

// Node is what a running node, or a worker of one, tells the command line on its Unix socket.
type Node struct {
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	BusURL  string    `json:"bus_url"`
	Admin   string    `json:"admin,omitempty"`
	Worker  string    `json:"worker,omitempty"`  // here is no node, but this worker of the one at BusURL
	Account string    `json:"account,omitempty"` // Jami Id, once it is known
	Alias   string    `json:"alias,omitempty"`
	// Links is how people reach the node: "join", "operator", "sip", "jami".
	Links map[string]string `json:"links,omitempty"`
}
