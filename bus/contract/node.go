package contract

// Process is one process of the node. UpS and CPUS are seconds, RSS is bytes.
type Process struct {
	Name     string  `json:"name"`
	PID      int     `json:"pid"` // 0 while it is down
	UpS      float64 `json:"up_s"`
	CPUS     float64 `json:"cpu_s"`
	RSSBytes int64   `json:"rss_bytes"`
	Restarts int     `json:"restarts"`
	Ready    bool    `json:"ready"`
}

// Links is how people reach the node.
type Links struct {
	Join     string `json:"join"`
	Operator string `json:"operator"`
	SIP      string `json:"sip"`
	Jami     string `json:"jami"`
}

// NodeProcesses is the supervisor's view.
type NodeProcesses struct {
	Processes []Process `json:"processes"`
}

// Endpoints is what connect listens on.
type Endpoints struct {
	Links     Links             `json:"links"`
	Listeners map[string]string `json:"listeners"` // "http", "https", "sip/udp", "sip/tcp", "sip/tls" -> address
}

// The subjects of the supervisor and of connect.
var (
	NodeStatus    = query[None, NodeProcesses]("up", "node.processes", "node.up.processes", "the processes of this node", "")
	ConnectStatus = query[None, Endpoints]("connect", "connect.status", "{account}.connect.status", "links and listening addresses", "")
)
